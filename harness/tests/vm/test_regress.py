"""Patches of rdma_rxe that do nothing, cost instructions, leak, hang or corrupt: each gets its own verdict."""

import difflib
import json
import stat
import subprocess
import sys
from shutil import copytree

import pytest

from harness.kernel.parts import HEADERS, RXE
from harness.kernel.source import source
from harness.tests.vm.conftest import CHECKOUT, FULL, environment, harness

pytestmark = [
    pytest.mark.skipif(not FULL, reason="builds modules and a null band, minutes: ODP_FULL=1"),
    pytest.mark.timeout(1800),
]
FILE = "drivers/infiniband/sw/rxe/rxe_odp.c"
FAULT = "static int rxe_odp_map_range_and_lock(struct rxe_mr *mr, u64 iova, int length, u32 flags)\n{\n"
LOCK = "\tmutex_lock(&umem_odp->umem_mutex);\n\n\tneed_fault = rxe_check_pagefault(umem_odp, iova, length, write);\n"
COPY = "\t\tmemcpy(dest, src, bytes);\n\t\tkunmap_local(user_va);\n"
UNLOCK = (
    "\terr =  __rxe_odp_mr_copy(mr, iova, addr, length, dir);\n\n\tmutex_unlock(&umem_odp->umem_mutex);\n"
)
NOBODY = '\tif (unlikely(length == 0x7654321))\n\t\tpr_info("nobody comes here\\n");\n'

EDITS = {
    "harmless": (FAULT, "/* a comment */\n" + FAULT),
    "slow": (LOCK, NOBODY + '\tasm volatile(".rept 20; nop; .endr");\n' + LOCK),
    "leak": (COPY, COPY + "\t\tget_page(page);\n"),
    "locked": (UNLOCK, UNLOCK.replace("\tmutex_unlock(&umem_odp->umem_mutex);\n", "")),
    "hang": (LOCK, "\tfor (;;)\n\t\tcpu_relax();\n" + LOCK),
    "corrupt": (COPY, COPY.replace("bytes);\n", "bytes);\n\t\tdest[bytes / 2] += 1;\n", 1)),
}


def stock(session):
    return source(session.kernel("newest"), session.archive)


def patch(session, name):
    """The edit as a diff against the source of the newest kernel."""
    text = (stock(session) / FILE).read_text()
    old, new = EDITS[name]
    assert text.count(old) == 1
    lines = (text.splitlines(True), text.replace(old, new).splitlines(True))
    return "".join(difflib.unified_diff(*lines, f"a/{FILE}", f"b/{FILE}"))


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("harmless", 0, "same"),
        ("slow", 1, "checks least: +2"),
        ("leak", 1, "nobody freed"),
        ("locked", 1, "hung_task"),
        ("hang", 1, "no answer to order"),
        ("corrupt", 1, "data"),
    ],
)
def test_each_patch_has_its_verdict(session, tmp_path, name, status, said):
    """Mutations: give both sides the base modules; compare without the null band; let the loop be empty; forget the
    page's references; say of no line that nothing ran it.
    """
    (tmp_path / "p.diff").write_text(patch(session, name))
    argv = ["regress", "--patch", tmp_path / "p.diff", "--seeds", 4, "--results", tmp_path / "r", "--json"]
    done = harness(*argv, "-k", "odp-write", timeout=1700)
    assert done.returncode == status, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["modules"] == ["rdma_rxe"]
    comparison = found["comparison"]
    words = comparison["verdict"] + " ".join(change["text"] for change in comparison["changes"])
    assert said in words, comparison["changes"]
    unreached = [note for note in found["notes"] if "no case ran rxe_odp.c:" in note]
    assert bool(unreached) == (name == "slow"), found["notes"]


BROKEN, BAD, COMMITS = (3, 7, 12), 9, 16


def test_git_bisect_finds_a_planted_commit(session, tmp_path):
    """Mutations: exit 1 for a commit that does not build; judge the commit before."""
    tree = tmp_path / "tree"
    for folder in (RXE.folder, HEADERS.rstrip("/")):
        copytree(stock(session) / folder, tree / folder)
    for path in tree.rglob("*"):
        path.chmod(path.stat().st_mode | stat.S_IWUSR)
    file = tree / FILE

    def git(*argv):
        identity = ("-c", "user.name=t", "-c", "user.email=t@t")
        argv = ("git", "-C", tree, *identity, *argv)
        done = subprocess.run(argv, capture_output=True, text=True, env=environment(), timeout=1700)
        assert not done.returncode, done.stdout + done.stderr
        return done.stdout

    git("init", "-q")
    good = file.read_text()
    for number in range(COMMITS):
        text = good.replace(*EDITS["corrupt"]) if number >= BAD else good
        broken = "this does not build\n" if number in BROKEN else ""
        file.write_text(f"/* commit {number} */\n{broken}{text}")
        git("add", "-A")
        git("commit", "-qm", f"commit {number}")
    # In the tree itself, as a user has it: what runs is this checkout.
    run = tmp_path / "odp-harness"
    run.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m harness "$@"\n')
    run.chmod(0o755)
    git("bisect", "start", "HEAD", f"HEAD~{COMMITS - 1}")
    plan = CHECKOUT / "testplans" / "odp-write.toml"
    options = ("--seeds", "1", "-k", "remote", "-j", "1")
    results = f"$(mktemp -d {tmp_path}/results-XXXXXX)"
    line = f'"{run}" regress --tree . --bisect --plans "{plan}" {" ".join(options)} --results "{results}"'
    said = git("bisect", "run", "sh", "-c", line)
    assert f"commit {BAD}" in said and "is the first bad commit" in said, said
