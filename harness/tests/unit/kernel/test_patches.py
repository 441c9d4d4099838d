"""Patches as developers send them, and the errors of those that do not apply."""

import pytest

from harness.errors import UsageError
from harness.host import LocalHost
from harness.kernel import patches
from harness.ledger import Ledger

FILE = "drivers/infiniband/sw/rxe/rxe_odp.c"
BODY = "\n".join(f"line {number};" for number in range(40)) + "\n"


def diff(old="line 20;", new="line twenty;", context="line 19;", path=FILE):
    return f"--- a/{path}\n+++ b/{path}\n@@ -20,3 +20,3 @@\n {context}\n-{old}\n+{new}\n line 21;\n"


MAIL = """From 1234 Mon Sep 17 00:00:00 2001
From: A Developer <a@example.org>
Subject: [PATCH {number}/2] {subject}

Why.
---
 one file

{diff}--
2.45

"""


@pytest.fixture
def tree(tmp_path):
    file = tmp_path / "tree" / FILE
    file.parent.mkdir(parents=True)
    file.write_text(BODY)
    return tmp_path / "tree"


@pytest.fixture
def host(tmp_path):
    with Ledger(tmp_path / "runs") as ledger:
        yield LocalHost(ledger)


def test_a_series_is_sorted_by_its_numbers(tmp_path, tree, host):
    """Mutation: do not sort by the number in the subject."""
    box = tmp_path / "series.mbox"
    second = diff(old="line twenty;", new="line XX;")
    box.write_text(
        MAIL.format(number=2, subject="second", diff=second)
        + MAIL.format(number=1, subject="first", diff=diff())
    )
    parsed = patches.read(box)
    assert [patch.name for patch in parsed] == ["[PATCH 1/2] first", "[PATCH 2/2] second"]
    applied = patches.apply(parsed, tree, host)
    assert applied.changed == (FILE,) and "line XX;" in (tree / FILE).read_text()


def test_an_mbox_is_split_where_messages_begin(tmp_path):
    """Mutations: split at each line with "From "; take [v2] for a number; keep carriage returns."""
    box = tmp_path / "series.mbx"
    mail = MAIL.replace("{number}/2", "{number}/2 v3").replace(
        "Why.", "Why.\n\nFrom the specification:\n  10.3.1"
    )
    first, second = (
        mail.format(number=number, subject=f"H\u00e5kon {number}", diff=diff(old=f"{number};"))
        for number in (1, 2)
    )
    box.write_text(second + first.replace("\n", "\r\n").replace("\r\n", "\n", 1))
    parsed = patches.read(tmp_path / "series.mbx")
    assert [patch.name[:15] for patch in parsed] == ["[PATCH 1/2 v3] ", "[PATCH 2/2 v3] "]
    assert [patch.files for patch in parsed] == [(FILE,), (FILE,)]
    (tmp_path / "one.eml").write_text(first.partition("\n")[2])
    assert patches.read(tmp_path / "one.eml")[0].diff == parsed[0].diff


def test_a_cover_letter_in_a_folder_is_no_patch(tmp_path):
    """Mutation: refuse the folder because of it."""
    (tmp_path / "0000-cover-letter.patch").write_text(MAIL.format(number=0, subject="cover", diff=""))
    (tmp_path / "0001-x.patch").write_text(diff())
    assert [patch.name for patch in patches.read(tmp_path)] == ["0001-x.patch"]


@pytest.mark.parametrize(
    ("before", "after"),
    [("", ""), ("linux-7.3.orig/", "linux-7.3/"), ("i/", "w/"), ("a/", "b/")],
    ids=["none", "quilt", "mnemonic", "git"],
)
def test_a_path_may_have_any_prefix(tmp_path, tree, host, before, after):
    """Mutation: take a/ and b/ off only."""
    (tmp_path / "p.diff").write_text(
        diff().replace("a/drivers", before + "drivers").replace("b/dri", after + "dri")
    )
    (patch,) = patches.read(tmp_path / "p.diff")
    assert patch.files == (FILE,)
    assert (
        patches.apply([patch], tree, host).changed == (FILE,) and "line twenty;" in (tree / FILE).read_text()
    )


def test_a_file_that_moves_is_changed(tmp_path, tree, host):
    """Mutation: look for the file at its new path."""
    new = FILE.replace("rxe_odp", "rxe_paging")
    head = f"diff --git a/{FILE} b/{new}\nsimilarity index 90%\nrename from {FILE}\nrename to {new}\n"
    (tmp_path / "p.diff").write_text(head + diff().replace(f"+++ b/{FILE}", f"+++ b/{new}"))
    applied = patches.apply(patches.read(tmp_path / "p.diff"), tree, host)
    assert applied.outside == () and not (tree / FILE).exists() and "line twenty;" in (tree / new).read_text()


def test_a_quilt_folder_follows_its_series_file(tmp_path):
    """Mutation: sort the folder by name."""
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "b.patch").write_text(diff())
    (tmp_path / "q" / "a.patch").write_text(diff())
    (tmp_path / "q" / "series").write_text("b.patch # first\n\na.patch -p1\n")
    assert [patch.name for patch in patches.read(tmp_path / "q")] == ["b.patch", "a.patch"]


def test_offsets_and_fuzz_are_reported(tmp_path, tree, host):
    """Mutation: drop GNU patch's output when it succeeds."""
    (tree / FILE).write_text("new\n" * 3 + BODY)
    (tmp_path / "p.diff").write_text(diff())
    applied = patches.apply(patches.read(tmp_path / "p.diff"), tree, host)
    assert "offset 3 lines" in applied.notes[0]


def test_a_refused_hunk_is_shown_with_the_nearest_place(tmp_path, tree, host):
    """Mutation: look for the new lines instead of the old ones."""
    (tmp_path / "p.diff").write_text(diff(old="line 20 was different;"))
    with pytest.raises(UsageError) as refused:
        patches.apply(patches.read(tmp_path / "p.diff"), tree, host)
    text = refused.value.render()
    assert "patch 1 does not apply: p.diff" in text and "-line 20 was different;" in text
    assert "rxe_odp.c:20:" in text and "line 20;" in text


def test_files_outside_the_tree_are_named_and_left_out(tmp_path, tree, host):
    """Mutation: pass the whole diff to GNU patch."""
    (tmp_path / "p.diff").write_text(diff(path="Documentation/x.rst") + diff())
    applied = patches.apply(patches.read(tmp_path / "p.diff"), tree, host)
    assert applied.outside == ("Documentation/x.rst",) and applied.changed == (FILE,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no diff here\n", "holds no patch"),
        (diff().replace("@@ -20,3", "@@ -20,9"), "not a unified diff"),
        (diff(path="../../etc/passwd"), "may not leave"),
    ],
)
def test_bad_files_are_errors_of_the_user(tmp_path, text, message):
    """Mutation: let UnidiffParseError through; accept any path."""
    (tmp_path / "p.diff").write_text(text)
    with pytest.raises(UsageError, match=message):
        patches.read(tmp_path / "p.diff")
