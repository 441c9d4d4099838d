"""Patches of rdma_rxe that do nothing, cost instructions or corrupt: each gets its own verdict."""

import difflib
import json

import pytest

from harness.kernel.source import source
from harness.tests.vm.conftest import FULL, harness

pytestmark = pytest.mark.skipif(not FULL, reason="builds modules and a null band, minutes: ODP_FULL=1")
FILE = "drivers/infiniband/sw/rxe/rxe_odp.c"
FAULT = "static int rxe_odp_map_range_and_lock(struct rxe_mr *mr, u64 iova, int length, u32 flags)\n{\n"
LOCK = "\tmutex_lock(&umem_odp->umem_mutex);\n\n\tneed_fault = rxe_check_pagefault(umem_odp, iova, length, write);\n"
COPY = "\t\tmemcpy(dest, src, bytes);\n\t\tkunmap_local(user_va);\n"

EDITS = {
    "harmless": (FAULT, "/* a comment */\n" + FAULT),
    "slow": (LOCK, '\tfor (int n = 0; n < 400; n++)\n\t\tasm volatile("nop");\n' + LOCK),
    "corrupt": (COPY, COPY.replace("bytes);\n", "bytes);\n\t\tdest[bytes / 2] += 1;\n", 1)),
}


def patch(session, name):
    """The edit as a diff against the source of the newest kernel."""
    text = (source(session.kernel("newest"), session.archive) / FILE).read_text()
    old, new = EDITS[name]
    assert text.count(old) == 1
    lines = (text.splitlines(True), text.replace(old, new).splitlines(True))
    return "".join(difflib.unified_diff(*lines, f"a/{FILE}", f"b/{FILE}"))


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("harmless", 0, "same"),
        ("slow", 1, "instructions"),
        ("corrupt", 1, "data"),
    ],
)
def test_each_patch_has_its_verdict(session, tmp_path, name, status, said):
    """Mutations: give both sides the base modules; compare without the null band; let the loop be empty."""
    (tmp_path / "p.diff").write_text(patch(session, name))
    argv = ["regress", "--patch", tmp_path / "p.diff", "--seeds", 4, "--results", tmp_path / "r", "--json"]
    done = harness(*argv, "-k", "odp-write or odp-read", timeout=1500)
    assert done.returncode == status, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["modules"] == ["rdma_rxe"]
    comparison = found["comparison"]
    assert comparison["figures"] or status
    words = comparison["verdict"] + " ".join(change["text"] for change in comparison["changes"])
    assert said in words, comparison["changes"]
