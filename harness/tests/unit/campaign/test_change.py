"""The change that is tested: patches, kernel trees, ranges of commits."""

import subprocess

import pytest

from harness.campaign import regress
from harness.campaign.change import (
    KernelTree,
    PatchSeries,
    Written,
    merge_base,
)
from harness.campaign.outcomes import INCONCLUSIVE, NO_DIFFERENCE
from harness.campaign.question import RegressRequest
from harness.errors import UsageError
from harness.host import LocalHost
from harness.kernel import patches
from harness.kernel.subsystems import RXE
from harness.ledger import Ledger


@pytest.fixture
def host(tmp_path):
    with Ledger(tmp_path / "runs") as ledger:
        yield LocalHost(ledger)


def test_a_plain_diff_has_an_identity_too(host, tmp_path):
    """Mutation: hand git a diff without its own headline."""
    text = "--- a/f.c\n+++ b/f.c\n@@ -1,1 +1,1 @@\n-one\n+two\n"
    plain, headed = tmp_path / "plain.diff", tmp_path / "headed.diff"
    plain.write_text(text)
    headed.write_text("diff --git a/f.c b/f.c\n" + text)
    identities = {patches.patch_id(patches.read(path), host) for path in (plain, headed)}
    (identity,) = identities
    assert len(identity) == 40


def test_files_outside_of_the_tested_modules_are_reported(tmp_path, host):
    """Mutation: test the rest of the patch as if it were all of it."""
    stock = tmp_path / "stock"
    for name in (RXE.folder, "include/rdma"):
        (stock / name).mkdir(parents=True)
    (stock / RXE.folder / "rxe_odp.c").write_text("1\n")

    def written(*files):
        text = "".join(f"--- a/{file}\n+++ b/{file}\n@@ -1 +1 @@\n-1\n+2\n" for file in files)
        (tmp_path / "p.diff").write_text(text)
        return PatchSeries(patches.read(tmp_path / "p.diff")).write(stock, (RXE,), tmp_path / "into", host)

    assert written("include/linux/hmm.h").outside == ("include/linux/hmm.h",)
    assert written(f"{RXE.folder}/rxe_odp.c") == Written()
    with pytest.raises(UsageError, match="this kernel does not have"):
        written(f"{RXE.folder}/rxe_odp.c", f"{RXE.folder}/rxe_new.c")


def test_a_tree_reaches_the_parts_that_differ(tmp_path, host):
    """Mutations: take every part; forget the headers; take what make left for source."""
    for root in ("tree", "stock"):
        folder = tmp_path / root / RXE.folder
        folder.mkdir(parents=True)
        (folder / "Makefile").write_text("obj-m := rdma_rxe.o\n")
        (folder / "rxe_odp.c").write_text("one\n")
        (tmp_path / root / "include" / "rdma").mkdir(parents=True)
    tree, stock = KernelTree(tmp_path / "tree"), tmp_path / "stock"
    assert tree.parts(stock) == ((), ())
    (tmp_path / "tree" / RXE.folder / "rxe_odp.c").write_text("two\n")
    assert tree.parts(stock) == ((RXE,), ())
    (tmp_path / "tree" / RXE.folder / "rdma_rxe.mod.c").touch()
    into = tmp_path / "into"
    tree.write(stock, (RXE,), into, host)
    assert not list(into.rglob("*.mod.c"))
    assert (into / RXE.folder / "rxe_odp.c").read_text() == "two\n"
    equal = regress._nothing_changed(RegressRequest("t", "7.3", (), tmp_path), tree, ())
    assert equal.verdict == NO_DIFFERENCE, "as a commit that bisect tests and the baseline has too"
    nothing = regress._nothing_changed(RegressRequest("t", "7.3", (), tmp_path), PatchSeries(()), ())
    assert nothing.verdict == INCONCLUSIVE
    with pytest.raises(UsageError, match="is no kernel tree"):
        KernelTree(stock / "include").parts(stock)


def test_a_range_of_commits_is_a_series_with_an_identity(tmp_path, host):
    """Mutations: take the newest commit first; hash line numbers; take what is checked out for the baseline."""
    tree = tmp_path / "tree"
    file = tree / RXE.folder / "rxe_odp.c"
    file.parent.mkdir(parents=True)

    def git(*argv):
        identity = ("-c", "user.name=t", "-c", "user.email=t@t")
        subprocess.run(("git", "-C", tree, *identity, *argv), check=True, capture_output=True)

    git("init", "-q")
    for number, word in enumerate(("base", "one", "two")):
        file.write_text(f"{word}\n" * 3)
        git("add", "-A")
        git("commit", "-qm", f"rxe: commit {number}")
    series = patches.read_range(tree, "HEAD~2..HEAD", host)
    assert [patch.name.split("] ")[1] for patch in series] == ["rxe: commit 1", "rxe: commit 2"]
    change = PatchSeries(series)
    assert change.parts(tmp_path)[0] == (RXE,)
    assert len(change.identity(host)) == 40
    # The baseline is the merge base, which the distribution need not have.
    into = tmp_path / "into"
    into.mkdir()
    base = merge_base(tree, "HEAD~1..HEAD", into, host)
    assert (base.folder / RXE.folder / "rxe_odp.c").read_text() == "one\n" * 3
    with pytest.raises(UsageError, match="has no commits nowhere"):
        merge_base(tree, "nowhere..HEAD", into, host)
    with pytest.raises(UsageError, match="has no commits nowhere"):
        patches.read_range(tree, "nowhere..HEAD", host)
    with pytest.raises(UsageError, match="no commit that changes anything"):
        patches.read_range(tree, "HEAD..HEAD", host)
