"""Patches that do nothing, cost instructions, leak, hang or corrupt, of rdma_rxe and mlx5_ib: each has its verdict."""

import difflib
import json
import stat
import subprocess
import sys
from shutil import copytree

import pytest

from harness.kernel.source import source
from harness.kernel.subsystems import (
    HEADERS,
    RXE,
)
from harness.tests.vm.conftest import CHECKOUT, FULL, environment, harness, interrupted

pytestmark = [
    pytest.mark.skipif(not FULL, reason="builds modules and measures noise bands, minutes: ODP_FULL=1"),
    pytest.mark.timeout(1800),
]
RXE_FILE = "drivers/infiniband/sw/rxe/rxe_odp.c"
MLX5_FILE = "drivers/infiniband/hw/mlx5/odp.c"
FAULT = "static int rxe_odp_map_range_and_lock(struct rxe_mr *mr, u64 iova, int length, u32 flags)\n{\n"
LOCK = "\tmutex_lock(&umem_odp->umem_mutex);\n\n\tneed_fault = rxe_check_pagefault(umem_odp, iova, length, write);\n"
COPY = "\t\tmemcpy(dest, src, bytes);\n\t\tkunmap_local(user_va);\n"
UNLOCK = (
    "\terr =  __rxe_odp_mr_copy(mr, iova, addr, length, dir);\n\n\tmutex_unlock(&umem_odp->umem_mutex);\n"
)
NEVER_EXECUTED = '\tif (unlikely(length == 0x7654321))\n\t\tpr_info("never executed\\n");\n'
REAL_MR = "static int pagefault_real_mr(struct mlx5_ib_mr *mr, struct ib_umem_odp *odp,\n"
LOOKUP = "\tnp = ib_umem_odp_map_dma_and_lock(odp, user_va, bcnt, access_mask, fault);\n"
KEY = "\tmmkey = xa_load(&dev->odp_mkeys, mlx5_base_mkey(key));\n"
ENTRY = "\t\tpas[i] = cpu_to_be64(dma_addr);\n\t\todp->npages++;\n"
UPDATED = "\t\t\t\t   pdn);\n\tmutex_unlock(&odp->umem_mutex);\n\n\tif (ret < 0) {\n"
NOPS = '\tasm volatile(".rept 20; nop; .endr");\n'
FOR_EVER = "\tfor (;;)\n\t\tcpu_relax();\n"

EDITS = {
    ("rdma_rxe", "harmless"): (FAULT, "/* a comment */\n" + FAULT),
    ("rdma_rxe", "slow"): (LOCK, NEVER_EXECUTED + NOPS + LOCK),
    ("rdma_rxe", "leak"): (COPY, COPY + "\t\tget_page(page);\n"),
    ("rdma_rxe", "locked"): (UNLOCK, UNLOCK.replace("\tmutex_unlock(&umem_odp->umem_mutex);\n", "")),
    ("rdma_rxe", "hang"): (LOCK, FOR_EVER + LOCK),
    ("rdma_rxe", "corrupt"): (COPY, COPY.replace("bytes);\n", "bytes);\n\t\tdest[bytes / 2] += 1;\n", 1)),
    ("mlx5_ib", "harmless"): (REAL_MR, "/* a comment */\n" + REAL_MR),
    ("mlx5_ib", "slow"): (KEY, NOPS + KEY),
    ("mlx5_ib", "leak"): (ENTRY, ENTRY + "\t\tget_page(hmm_pfn_to_page(pfn));\n"),
    ("mlx5_ib", "locked"): (UPDATED, UPDATED.replace("\tmutex_unlock(&odp->umem_mutex);\n", "")),
    ("mlx5_ib", "hang"): (LOOKUP, FOR_EVER + LOOKUP),
    ("mlx5_ib", "corrupt"): (ENTRY, ENTRY.replace("cpu_to_be64", "i ? pas[0] : cpu_to_be64")),
}
FILES = {"rdma_rxe": RXE_FILE, "mlx5_ib": MLX5_FILE}


def stock(session):
    return source(session.kernel("newest"), session.archive)


def patch(session, module, name):
    """Write the edit as a diff against the source of the newest kernel."""
    file = FILES[module]
    text = (stock(session) / file).read_text()
    old, new = EDITS[module, name]
    assert text.count(old) == 1
    return diff(file, text, text.replace(old, new))


def diff(file, old, new):
    return "".join(difflib.unified_diff(old.splitlines(True), new.splitlines(True), f"a/{file}", f"b/{file}"))


def writable(session, tree):
    """Copy the sources of rdma_rxe."""
    for folder in (RXE.folder, HEADERS.rstrip("/")):
        copytree(stock(session) / folder, tree / folder)
    for path in tree.rglob("*"):
        path.chmod(path.stat().st_mode | stat.S_IWUSR)


@pytest.mark.parametrize(
    ("module", "name", "text"),
    [
        ("rdma_rxe", "harmless", "no difference"),
        ("rdma_rxe", "slow", "minimum time in stage `checks`"),
        ("rdma_rxe", "leak", "neither mapped nor freed"),
        ("rdma_rxe", "locked", "hung_task"),
        ("rdma_rxe", "hang", "no reply to request"),
        ("rdma_rxe", "corrupt", "data"),
        ("mlx5_ib", "harmless", "no difference"),
        ("mlx5_ib", "slow", "minimum time in stage `keys`"),
        ("mlx5_ib", "leak", "neither mapped nor freed"),
        ("mlx5_ib", "locked", "hung_task"),
        ("mlx5_ib", "hang", "no reply to request"),
        ("mlx5_ib", "corrupt", "data"),
    ],
)
def test_each_patch_has_its_verdict(session, tmp_path, module, name, text):
    """Judge patches of each kind.

    Mutations: run both sides with the baseline's modules; compare without the noise band; leave the loop empty; forget
    the page's references; report no line without coverage.
    """
    (tmp_path / "p.diff").write_text(patch(session, module, name))
    argv = ["regress", "--patch", tmp_path / "p.diff", "--seeds", 4, "--results", tmp_path / "r", "--json"]
    only = "odp-write and (soft-roce or connectx-5)"
    done = harness(*argv, "--plans", CHECKOUT / "testplans" / "odp-write.toml", "-k", only, timeout=1700)
    assert done.returncode == (0 if name == "harmless" else 1), done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["modules"] == [module]
    comparison = result["comparison"]
    words = comparison["verdict"] + " ".join(each["text"] for each in comparison["differences"])
    assert text in words, comparison["differences"]
    slower = [each for each in comparison["differences"] if "instructions, +2" in each["text"]]
    assert slower or name != "slow", comparison["differences"]
    lines = [line for line in result["not_tested"] if "not executed by any case: rxe_odp.c:" in line]
    assert bool(lines) == (EDITS[module, name][1].startswith(NEVER_EXECUTED)), result["not_tested"]


def test_a_patch_is_compared_with_a_tree_of_the_user(session, tmp_path):
    """Mutation: apply it to the distribution's source, where it does not apply."""
    tree = tmp_path / "tree"
    writable(session, tree)
    good = (tree / RXE_FILE).read_text()
    bad = good.replace(*EDITS["rdma_rxe", "corrupt"])
    (tree / RXE_FILE).write_text(bad)
    (tmp_path / "p.diff").write_text(diff(RXE_FILE, bad, good))
    argv = ["regress", "--patch", tmp_path / "p.diff", "--base", tree, "--seeds", 1, "-k", "odp-write"]
    done = harness(*argv, "--results", tmp_path / "r", "--json", timeout=1700)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["comparison"]["verdict"] == "improvement"


def test_an_interrupted_regress_is_resumed(session, tmp_path):
    """Mutations: write the records to a temporary folder; resume with another patch."""
    (tmp_path / "p.diff").write_text(patch(session, "rdma_rxe", "corrupt"))
    plan = CHECKOUT / "testplans" / "odp-write.toml"
    argv = [
        "regress",
        "--patch",
        tmp_path / "p.diff",
        "--seeds",
        3,
        "-j",
        1,
        "--plans",
        plan,
        "-k",
        "soft-roce",
    ]
    before = interrupted(tmp_path / "r", "patched", 2, tmp_path / "log", *argv)
    (tmp_path / "q.diff").write_text(patch(session, "rdma_rxe", "leak"))
    other = harness(*argv[:2], tmp_path / "q.diff", *argv[3:], "--resume", tmp_path / "r", timeout=900)
    assert other.returncode == 2 and "was made with other modules or other plans" in other.stderr
    done = harness(*argv, "--resume", tmp_path / "r", timeout=900)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "resuming the cases" in done.stderr
    assert {path: path.read_bytes() for path in before} == before


BROKEN, BAD, COMMITS = (3, 7, 12), 9, 16


def test_git_bisect_finds_a_planted_commit(session, tmp_path):
    """Mutations: exit 1 for a commit that does not build; test the commit before."""
    tree = tmp_path / "tree"
    writable(session, tree)
    file = tree / RXE_FILE

    def git(*argv):
        identity = ("-c", "user.name=t", "-c", "user.email=t@t")
        argv = ("git", "-C", tree, *identity, *argv)
        done = subprocess.run(argv, capture_output=True, text=True, env=environment(), timeout=1700)
        assert not done.returncode, done.stdout + done.stderr
        return done.stdout

    git("init", "-q")
    good = file.read_text()
    for number in range(COMMITS):
        text = good.replace(*EDITS["rdma_rxe", "corrupt"]) if number >= BAD else good
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
    output = git("bisect", "run", "sh", "-c", line)
    assert f"commit {BAD}" in output and "is the first bad commit" in output, output
