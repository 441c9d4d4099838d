"""What a judgement looks like: as a mail, for git bisect, for a fix; and what is judged."""

import argparse
import json
import os
import shlex
import subprocess
import unicodedata
from dataclasses import replace
from pathlib import Path

import kcidb_io
import pytest

from harness.campaign import mail, side_by_side_html
from harness.campaign import regress as judged
from harness.campaign.change import (
    Patched,
    Tree,
    before,
)
from harness.campaign.compare import Comparison, Figure, compare
from harness.campaign.outcomes import BETTER, CANNOT_TELL, SAME, WORSE, Change
from harness.campaign.regress import Judgement, is_fix
from harness.campaign.runs import RegressRequest
from harness.cli import main, regress
from harness.errors import SetupError, Unsupported, UsageError
from harness.host import LocalHost
from harness.kernel import patches
from harness.kernel.subsystems import RXE
from harness.ledger import Ledger
from harness.results.reports import REPORTS
from harness.tests.unit.results.sample import ENVIRONMENT, record, stored
from harness.values.record import Reason

SLOWER = Change(
    WORSE, "odp-write/7.3/soft-roce/remote", "checks least: +20 instructions (100 to 120); nothing moves it"
)
FIGURE = Figure("odp-write/7.3/soft-roce/remote", "checks least", True, 100, 120, (4, 4), 0, 20)
FOUND = Judgement(
    "7.3.4+deb13-amd64",
    "gcc-14 14.2.0-19",
    ("[PATCH rdma-next v3 2/2] RDMA/rxe: a subject that is far longer than a line of a mail may be",),
    "0123456789012345678901234567890123456789",
    ("rdma_rxe",),
    ("not tested: Documentation/infiniband/a_very_long_name_of_a_file_that_is_not_tested.rst",),
    Comparison(WORSE, (SLOWER,), (FIGURE,), (), ("odp-iova/7.3/soft-roce/zero",)),
)


@pytest.fixture
def host(tmp_path):
    with Ledger(tmp_path / "runs") as ledger:
        yield LocalHost(ledger)


def test_a_mail_has_short_lines_and_says_all():
    """Mutation: print the table; leave out how to reproduce."""
    command = [
        "odp-harness",
        "regress",
        "--patch",
        "/home/somebody/a/rather/long/way/to/the/v3.mbox",
        "--seeds",
        "16",
    ]
    text = mail.text(FOUND, command, 16)
    assert max(map(len, text.splitlines())) < 72
    flat = " ".join(text.split())
    for said in (
        "worse",
        "+20 instructions",
        "0123456789012345",
        "gcc-14",
        "Fails with and without",
        "v3.mbox",
    ):
        assert said in flat
    assert "counted by QEMU" in flat and "To reproduce:" in text


WIDE = "\u9801\u9762\u932f\u8aa4"
LONG = "a-directory-of-somebody/" * 8 + "x.diff"


def columns(line):
    """How wide a terminal draws it, at most."""
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in line)


def pasted(text, tmp_path):
    """The words that a shell makes of the command."""
    (tmp_path / "odp-harness").write_text('#!/bin/sh\nprintf "%s\\0" "$0" "$@"\n')
    (tmp_path / "odp-harness").chmod(0o755)
    script = text.partition("To reproduce:\n")[2]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    said = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=True)
    program, *words = said.stdout.split("\0")[:-1]
    return [Path(program).name, *words]


def test_a_mail_is_narrow_whatever_it_says(tmp_path):
    """Mutations: count letters, not columns; wrap the fields at blanks only; let a control character through."""
    subject = f"[PATCH] {WIDE * 20} {LONG} \x1b[31m\udcff"
    change = replace(SLOWER, case=LONG, text=f"{WIDE * 30}: {LONG}")
    figure = replace(FIGURE, case=WIDE * 30, stage=LONG)
    found = replace(FOUND, patches=(subject,), notes=(LONG,), modules=(WIDE * 30,), kernel=LONG)
    command = ["odp-harness", "regress", "-k", WIDE * 8, "--patch", WIDE * 8, "--seeds", "16"]
    for verdict, changes in ((WORSE, (change,)), (SAME, ())):
        told = replace(found, comparison=Comparison(verdict, changes, (figure,), (), (LONG + WIDE,)))
        text = mail.text(told, command, 16)
        assert max(map(columns, text.splitlines())) < 72
        text.encode()
        assert "\x1b" not in text and LONG in "".join(text.split()) and WIDE * 20 in "".join(text.split())
        assert pasted(text, tmp_path) == command


def test_the_command_of_a_mail_can_be_pasted(tmp_path):
    """Mutation: wrap it where a line is full, also within quotes."""
    only = "odp-write and (soft-roce or connectx-5)"
    command = ["odp-harness", "regress", "--patch", "it's a b.diff", "--kernel", "7.3", "-k", only]
    command += ["--seeds", "16", "--plans", "testplans/odp-write.toml", f"--base={'x' * 90}", "-j", "2"]
    text = mail.text(FOUND, command, 16)
    assert pasted(text, tmp_path) == command
    assert shlex.split(text.partition("To reproduce:\n")[2].replace("\\\n", "")) == command
    long = [line for line in text.splitlines() if len(line) > 71]
    assert [line.strip(" \\") for line in long] == [f"--base={'x' * 90}"]


@pytest.mark.parametrize("joined", [False, True])
def test_a_long_way_to_a_patch_is_left_out(tmp_path, joined):
    """Mutations: leave it in; take a range of commits for a way; shorten what fits."""

    def asked(given):
        words = [f"--patch={given}"] if joined else ["--patch", str(given)]
        text = mail.text(FOUND, ["odp-harness", "regress", *words], 16)
        return shlex.split(text.partition("To reproduce:\n")[2].replace("\\\n", ""))[-1].removeprefix(
            "--patch="
        )

    patch = tmp_path / ("d" * 60) / "v3 2.mbox"
    patch.parent.mkdir()
    patch.touch()
    assert asked(patch) == "v3 2.mbox"
    commits = f"{'a' * 30}/{'b' * 30}..{'c' * 30}/{'d' * 30}"
    assert asked(commits) == commits
    assert asked("/dev/null") == "/dev/null"


def lines_of(*figures):
    same = replace(FOUND, comparison=Comparison(SAME, (), figures))
    return mail.text(same, ["odp-harness"], 16).splitlines()


STILL = replace(FIGURE, patched=100, change=0)


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ((), "no latency was compared"),
        ((replace(STILL, band=5),), "no latency moved."),
        ((replace(STILL, band=5), replace(FIGURE, band=9)), "no latency moved beyond its null band"),
        ((replace(FIGURE, exact=False, band=5),), "no latency differs by more than chance"),
    ],
)
def test_a_mail_of_no_difference_claims_no_more_than_was_compared(figures, said):
    """Mutation: say that nothing moved beyond a band, whatever was measured."""
    text = " ".join(" ".join(lines_of(*figures)).split())
    assert f"No new failure, symptom or leak; {said}" in text
    found = Comparison(SAME, (), figures)
    assert f"No new failure, symptom or leak; {said}" in side_by_side_html.render(
        found, [], [], replace(FOUND, comparison=found)
    )
    # Of two stored runs nobody measured any.
    assert "null band" not in side_by_side_html.render(found, [], [])


def test_a_mail_of_no_difference_shows_what_was_compared():
    """Mutations: show none; those that nothing can be told of; those that moved least; a band that nobody measured."""
    moved = replace(FIGURE, band=9)
    mean = replace(FIGURE, stage="checks mean", change=900, band=40)
    many = [replace(STILL, case=f"odp-{n}/7.3/soft-roce", band=5) for n in range(9)]
    lines = lines_of(*many, mean, moved)
    at = lines.index("Compared, without and with the patch:")
    assert lines[at + 1 : at + 3] == [
        "  odp-0/7.3/soft-roce",
        "    checks least: 100 and 100 instructions, null band 5",
    ]
    assert "    checks least: 100 and 120 instructions, null band 9" in lines
    assert "And 5 figures more." in lines and not any("mean" in line for line in lines)
    assert "    checks least: 100 and 100 instructions" in lines_of(replace(STILL, band=5))
    assert "    fault: 4.2 and 4.4 us" in lines_of(
        replace(STILL, exact=False, stage="fault", base=4200, patched=4400)
    )


def test_each_side_of_a_judgement_has_the_reports_of_any_run(tmp_path):
    """Mutations: write the page alone; the first turn's only; reports of a folder without records; both sides as one
    build.
    """
    folders = ("base-turn-1", "base-turn-2", "patched-turn-1", "patched-turn-2", "null")
    for number, name in enumerate(folders):
        had = {**ENVIRONMENT, "machine.parcel": "rdma_rxe", "parcel": name.split("-")[0]}
        stored(tmp_path / name, [record(number, environment=had)])
    (tmp_path / "patched" / "parcel").mkdir(parents=True)
    found = replace(FOUND, comparison=compare([], []))
    page = regress._page(found, RegressRequest("q", "7.3", (), tmp_path))
    assert page.read_text().count('class="pair"') == 4
    made = {str(path.parent.name) for path in tmp_path.glob("*/kcidb.json")}
    assert made == set(folders[:4])
    builds = []
    for name in folders[:4]:
        assert {path.name for path in (tmp_path / name).iterdir() if path.is_file()} == {
            "index.json",
            *REPORTS,
        }
        document = json.loads((tmp_path / name / "kcidb.json").read_text())
        kcidb_io.schema.LATEST.validate(document)
        builds += [build["id"] for build in document["builds"]]
    assert builds[0] == builds[1] != builds[2] == builds[3]


MENDED = Change(BETTER, "a", "no longer fails: data", True)


@pytest.mark.parametrize(
    ("comparison", "fixed"),
    [
        (Comparison(BETTER, (MENDED,)), BETTER),
        (Comparison(BETTER, (Change(BETTER, "a", "fault: -20 instructions"),)), WORSE),
        (Comparison(BETTER, (MENDED,), failing=("b",)), WORSE),
        (Comparison(WORSE, (MENDED, Change(WORSE, "b", "leaks", True))), WORSE),
        (Comparison(WORSE, (MENDED, Change(WORSE, "b", "fault: +40 instructions"))), BETTER),
        (Comparison(CANNOT_TELL, (MENDED, Change(CANNOT_TELL, "b", "no machine", True))), CANNOT_TELL),
        (Comparison(SAME, ()), WORSE),
    ],
)
def test_a_fix_mends_something_and_leaves_nothing(comparison, fixed):
    """Mutation: take a faster fault for a fix; forget what still fails; ask what a fix costs."""
    assert is_fix(comparison)[0] == fixed


def known(verdict, *reasons):
    return replace(record(1, "pass"), verdict=verdict, reasons=tuple(Reason(*reason) for reason in reasons))


def test_a_known_defect_that_is_mended_is_better():
    """Mutation: take the case that no longer fails as known for a failure."""
    before = known("known", ("data", "9 bytes"), ("known", "KNOWN.md"))
    mended = known("fail", ("known", "did not fail (data) as known: is it mended in this kernel?"))
    found = compare([before], [mended])
    assert found.verdict == BETTER and found.changes[0].outcome and "9 bytes" in found.changes[0].text
    assert compare([before], [before]).known == (before.case.id,)
    assert compare([before], [known("fail", ("leak", "QP"))]).verdict == WORSE
    assert compare([mended], [before]).verdict == WORSE


def test_what_is_asked_again_is_without_our_own_folders():
    """Mutation: leave the results of somebody else's machine in it."""
    argv = ["regress", "--patch", "a b.diff", "--results", "/x", "--mail", "--results=/y", "--seeds", "4"]
    assert regress._again(argv) == ["regress", "--patch", "a b.diff", "--seeds", "4"]


def test_a_plain_diff_has_an_identity_too(host, tmp_path):
    """Mutation: hand git a diff without its own headline."""
    text = "--- a/f.c\n+++ b/f.c\n@@ -1,1 +1,1 @@\n-one\n+two\n"
    plain, headed = tmp_path / "plain.diff", tmp_path / "headed.diff"
    plain.write_text(text)
    headed.write_text("diff --git a/f.c b/f.c\n" + text)
    identities = {patches.patch_id(patches.read(path), host) for path in (plain, headed)}
    (identity,) = identities
    assert len(identity) == 40


def asked(**options):
    given = {"bisect": True, "tree": None, "patch": None}
    return argparse.Namespace(**{**given, **options})


@pytest.mark.parametrize(
    ("raised", "place", "options", "status"),
    [
        (SetupError("does not build"), "_judged", {"tree": Path()}, 125),
        (UsageError("no kernel tree"), "_judged", {"tree": Path()}, 125),
        (UsageError("no such kernel"), "_resolve", {}, 128),
        (Unsupported("no kernel of that series any more"), "_resolve", {}, 125),
        (UsageError("no such plan"), "_question", {}, 128),
        (UsageError("no such plan"), "_question", {"tree": Path()}, 128),
    ],
)
def test_what_cannot_be_judged_is_skipped_by_bisect(monkeypatch, raised, place, options, status):
    """Mutations: exit 1 for what does not build: bisect would blame it; 125 for a plan that nobody has: bisect would
    skip everything.
    """

    def fail(*given):
        raise raised

    monkeypatch.setattr(regress, "_question", lambda arguments: None)
    monkeypatch.setattr(regress, "_given", lambda *given: None)
    monkeypatch.setattr(regress, "_resolve", lambda *given: None)
    monkeypatch.setattr(regress, place, fail)
    assert regress.act(asked(**options)) == status
    assert set(regress.BISECT.values()) == {0, 1, 125}


def test_bisect_blames_nobody_for_a_mistake_of_ours(monkeypatch, capfd):
    """git takes 1 and 2 for a bad commit. Mutations: argparse's own status; Python's own."""
    assert main(["regress", "--bisect", "--tree", ".", "--sedes", "4"]) == 128
    assert main(["regress", "--tree", ".", "--sedes", "4"]) == 2
    monkeypatch.setattr(regress, "_question", lambda arguments: None)
    monkeypatch.setattr(regress, "_given", lambda *given: None)
    monkeypatch.setattr(regress, "_resolve", lambda *given: None)
    monkeypatch.setattr(regress, "_judged", lambda *given: {}["x"])
    assert regress.act(asked(tree=Path())) == 125
    assert "KeyError" in capfd.readouterr().err


def test_what_of_a_patch_is_not_here_is_said(tmp_path, host):
    """Mutation: judge what is left of the patch as the whole."""
    stock = tmp_path / "stock"
    for name in (RXE.folder, "include/rdma"):
        (stock / name).mkdir(parents=True)
    (stock / RXE.folder / "rxe_odp.c").write_text("1\n")

    def laid(*files):
        text = "".join(f"--- a/{file}\n+++ b/{file}\n@@ -1 +1 @@\n-1\n+2\n" for file in files)
        (tmp_path / "p.diff").write_text(text)
        return Patched(patches.read(tmp_path / "p.diff")).lay(stock, (RXE,), tmp_path / "into", host)

    assert laid("include/linux/hmm.h") == ("not tested: include/linux/hmm.h",)
    assert laid(f"{RXE.folder}/rxe_odp.c") == ()
    with pytest.raises(UsageError, match="this kernel does not have"):
        laid(f"{RXE.folder}/rxe_odp.c", f"{RXE.folder}/rxe_new.c")


def test_a_tree_reaches_the_parts_that_differ(tmp_path, host):
    """Mutation: take every part; forget the headers that ours include; take what make left for source."""
    for root in ("tree", "stock"):
        folder = tmp_path / root / RXE.folder
        folder.mkdir(parents=True)
        (folder / "Makefile").write_text("obj-m := rdma_rxe.o\n")
        (folder / "rxe_odp.c").write_text("one\n")
        (tmp_path / root / "include" / "rdma").mkdir(parents=True)
    tree, stock = Tree(tmp_path / "tree"), tmp_path / "stock"
    assert tree.reach(stock) == ((), ())
    (tmp_path / "tree" / RXE.folder / "rxe_odp.c").write_text("two\n")
    assert tree.reach(stock) == ((RXE,), ())
    (tmp_path / "tree" / RXE.folder / "rdma_rxe.mod.c").touch()
    into = tmp_path / "into"
    tree.lay(stock, (RXE,), into, host)
    assert not list(into.rglob("*.mod.c"))
    assert (into / RXE.folder / "rxe_odp.c").read_text() == "two\n"
    equal = judged._untouched(RegressRequest("t", "7.3", (), tmp_path), tree, ())
    assert equal.verdict == SAME, "what git bisect passes on its way, and the base has too"
    nothing = judged._untouched(RegressRequest("t", "7.3", (), tmp_path), Patched(()), ())
    assert nothing.verdict == CANNOT_TELL
    with pytest.raises(UsageError, match="is no kernel tree"):
        Tree(stock / "include").reach(stock)


def test_a_range_of_commits_is_a_series_with_an_identity(tmp_path, host):
    """Mutation: take the newest commit first; make the identity of line numbers; judge on what is checked out."""
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
    subject = Patched(series)
    assert subject.reach(tmp_path)[0] == (RXE,)
    assert len(subject.identity(host)) == 40
    # A commit is judged on what it goes on, which the distribution need not have.
    into = tmp_path / "into"
    into.mkdir()
    base = before(tree, "HEAD~1..HEAD", into, host)
    assert (base.folder / RXE.folder / "rxe_odp.c").read_text() == "one\n" * 3
    with pytest.raises(UsageError, match="has no commits nowhere"):
        before(tree, "nowhere..HEAD", into, host)
    with pytest.raises(UsageError, match="has no commits nowhere"):
        patches.read_range(tree, "nowhere..HEAD", host)
    with pytest.raises(UsageError, match="no commit that changes anything"):
        patches.read_range(tree, "HEAD..HEAD", host)


@pytest.mark.parametrize(
    ("given", "kernel"),
    [
        ({"patch": "A..B"}, "own"),
        ({"patch": "A..B", "kernel": "7.2"}, "7.2"),
        ({"patch": "A..B", "base": "7.2"}, "7.2"),
        ({"patch": "p.diff"}, "newest"),
        ({"patch": None}, "newest"),
    ],
)
def test_a_range_of_a_tree_that_is_built_runs_there(given, kernel, tmp_path, monkeypatch):
    """Mutation: always; never; although another kernel is named."""
    options = {"kernel": None, "base": None, "tree": tmp_path, **given}
    monkeypatch.setattr(regress, "is_built", lambda folder: folder == tmp_path)
    assert regress._kernel(argparse.Namespace(**options)) == (str(tmp_path) if kernel == "own" else kernel)
    assert regress._kernel(argparse.Namespace(**options | {"tree": Path("/not/built"), **given})) == (
        "newest" if kernel == "own" else kernel
    )


@pytest.mark.parametrize(
    ("given", "is_one"),
    [
        ("HEAD~1..HEAD", True),
        ("v7.2...mlx5/odp", True),
        ("mlx5/a..mlx5/b", True),
        ("HEAD~3..", True),
        ("..topic", True),
        ("../typo.diff", False),
        ("patches/../typo.diff", False),
        ("../../0001-x.patch", False),
        ("a.diff", False),
    ],
)
def test_what_is_a_range_of_commits(given, is_one):
    """Mutation: ask git about a path that is spelled wrong."""
    assert regress._is_range(given) is is_one


@pytest.mark.parametrize("asked", [("--seeds", "0"), ("--real", "0"), ("--real", "-5")])
def test_numbers_that_ask_nothing(asked, capsys):
    """Mutation: run for ever, or nothing, and call it the same."""
    assert main(["regress", "--patch", "x.diff", *asked]) == 2
    assert asked[0] in capsys.readouterr().err


BAD_PATCHES = {
    "nope.diff": None,
    "words.diff": "no diff in here\n",
    "folder": Path(),
    "broken.diff": "--- a/f\n+++ b/f\n@@ -1,9 +1,9 @@\n x\n",
}


@pytest.mark.parametrize("name", BAD_PATCHES)
def test_a_patch_that_is_none_ends_a_bisect(tmp_path, name, capsys):
    """Mutation: skip (125), at every commit."""
    content = BAD_PATCHES[name]
    if isinstance(content, str):
        (tmp_path / name).write_text(content)
    elif content is not None:
        (tmp_path / name).mkdir()
    argv = ["regress", "--patch", str(tmp_path / name), "--results", str(tmp_path / "r")]
    assert main([*argv, "--bisect", "--cache", str(tmp_path / "c")]) == 128
    assert str(tmp_path / name) in capsys.readouterr().err


def test_other_mistakes_of_a_command_line_end_a_bisect(tmp_path, monkeypatch, capsys):
    """What is only not to be judged at one commit does not. Mutations: take `_given` or `session.spec` out."""
    monkeypatch.setattr(regress, "_judged", lambda *given: 0)
    tree = tmp_path / "linux"
    (tree / RXE.folder).mkdir(parents=True)
    (tree / RXE.folder / "rxe.c").write_text("1\n")
    (tmp_path / "empty").mkdir()
    git = ("git", "-c", "user.name=x", "-c", "user.email=x@y", "-C", str(tree))
    for words in (
        ("init", "-q"),
        ("add", "."),
        ("commit", "-qm", "1"),
        ("commit", "-qm", "2", "--allow-empty"),
    ):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "p.diff").write_text(
        f"--- a/{RXE.folder}/rxe.c\n+++ b/{RXE.folder}/rxe.c\n@@ -1 +1 @@\n-1\n+2\n"
    )

    def status(*words):
        common = [
            "--bisect",
            "--results",
            str(tmp_path / "r"),
            "--cache",
            str(tmp_path / "c"),
            "--kernel",
            "7.3",
        ]
        return main(["regress", *common, *map(str, words)])

    assert status("--tree", tree) == 0
    assert status("--tree", tree, "--patch", "HEAD~1..HEAD") == 0, "an empty commit is one to skip"
    assert status("--patch", tmp_path / "p.diff", "--base", tree) == 0
    assert status("--tree", tmp_path / "nowhere") == 128
    assert status("--tree", tmp_path / "empty") == 128
    assert status("--tree", tree, "--patch", "v9..HEAD") == 128
    assert status("--tree", tmp_path / "empty", "--patch", "HEAD~1..HEAD") == 128
    assert status("--tree", tree, "--patch", tmp_path / "p.diff") == 128
    assert status("--patch", tmp_path / "p.diff", "--base", tmp_path / "empty") == 128
    assert status("--tree", tree, "--image", "nope") == 128
    assert status("--tree", tree, "--vm-images", tmp_path / "nowhere") == 128
    assert status("--tree", tree, "--cache-limit", "much") == 128
    assert status("--tree", tree, "-k", "(") == 128
    assert status("--tree", tree, "--real", "0") == 128
    assert "Traceback" not in capsys.readouterr().err
