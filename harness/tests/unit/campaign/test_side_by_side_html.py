"""Both sides of a comparison on one page: as complete as terminal and mail, and safe with hostile records."""

import re
from dataclasses import replace

import pytest

from harness.campaign import mail, side_by_side_html
from harness.campaign.compare import compare
from harness.campaign.coverage import Coverage
from harness.campaign.diff_coverage import (
    EXECUTED,
    NOT_EXECUTED,
    hunks,
)
from harness.campaign.outcomes import NO_DIFFERENCE, REGRESSION
from harness.campaign.regress import RegressResult
from harness.campaign.tree_diff import differing
from harness.cli import main
from harness.kernel.line_tables import Lines
from harness.kernel.subsystems import RXE
from harness.results.svg import WIDTH, mirrored, strips
from harness.tests.unit.results.sample import HOSTILE, histogram, hostile, record, stored
from harness.tests.unit.results.test_html import Page
from harness.values.histogram import Histogram, of_values

SEEDS = 4
DIFF = "--- a/x.c\n+++ b/x.c\n@@ -1 +1 @@\n-one <b>\n+two &\n"


def runs(shift=0, verdict="pass"):
    made = []
    for seed in range(SEEDS):
        it = record(1, verdict)
        case = replace(it.case, id=f"odp-write/7.3/soft-roce/remote/seed={seed}")
        trace = it.answer.trace
        stages = (of_values("checks", "ns", (1013 + shift, 5000 + seed, 9000)), *trace.histograms)
        answer = replace(it.answer, trace=replace(trace, histograms=stages))
        made.append(replace(it, case=case, answer=answer))
    return made


NOT_TESTED = ("lines not executed by any case: rxe_odp.c:170",)


def result_of(comparison, **more):
    fixed = ("7.3.4+deb13-amd64", "gcc-14", ("[PATCH] a <subject>",), "01234567", ("rdma_rxe",))
    return RegressResult(*fixed, comparison, not_tested=NOT_TESTED, diffs=(DIFF,), **more)


def words(page):
    return " ".join(" ".join(Page(page).texts).split())


def test_the_page_is_as_complete_as_the_mail():
    """Mutations: leave out the differences; swap the sides; forget what was not tested."""
    base, patched = runs(), runs(20)
    compared = compare(base, patched)
    assert compared.verdict == REGRESSION
    page = side_by_side_html.render(compared, base, patched, result_of(compared))
    text = words(page)
    for each in compared.differences:
        assert each.text in text and each.case in text
    assert f"1 case compared by latency, {len(compared.differences)} difference" in text
    for line in (
        "minimum time in stage `checks` (map and lock pages)",
        "1 013",
        "1 033",
        "+20",
        NOT_TESTED[0],
        "01234567",
    ):
        assert line in text.replace("\u202f", " ")
    flat = " ".join(mail.text(result_of(compared), ["odp-harness"], SEEDS).split())
    assert "(map and lock pages): 1013 -> 1033 instructions, +20;" in flat and "not hardware time" in flat
    assert "not hardware time" in text and "a <subject>" in text
    assert "one <b>" in text and 'class="del"' in page and 'class="add"' in page
    sides_ = re.findall(r'<td class="number" data-label="(baseline|patched)">([^<]*)<', page)
    assert ("baseline", "1\u202f013") in sides_ and ("patched", "1\u202f033") in sides_


def test_metrics_that_did_not_move_are_listed_in_a_line():
    """Mutation: draw each of them."""
    base = runs()
    compared = compare(base, base)
    page = side_by_side_html.render(compared, base, base)
    assert compared.verdict == NO_DIFFERENCE and "Equal in every run of both sides:" in words(page)
    # Means differ between seeds: those have their strokes.
    shown = re.findall(r'<td class="name">([^<]*)<', page)
    assert shown == ["mean time in stage `checks` (map and lock pages)"]
    assert "No new failure, console symptom or leak" in words(page)


def test_a_new_failure_comes_first_with_its_reasons_and_console():
    """Mutations: sort by name; change the sides."""
    base, patched = runs(), runs(verdict="fail")
    other = [replace(r, case=replace(r.case, id="odp-advise/7.3/soft-roce")) for r in base[:1]]
    compared = compare([*base, *other], [*patched, *other])
    page = side_by_side_html.render(compared, [*base, *other], [*patched, *other])
    assert page.index('class="id">odp-write', page.index(">Cases<")) < page.index(
        'class="id">odp-advise', page.index(">Cases<")
    )
    text = words(page)
    assert "4 × fail" in text and "4 × pass" in text and "4 × data: 3 of 851968 bytes are wrong" in text
    assert text.index("4 × pass") < text.index("4 × fail")
    assert "NULL pointer dereference" in text and "fails in 4 of 4 patched runs" in text


@pytest.mark.parametrize("names", [("baseline", "patched"), (HOSTILE, HOSTILE)])
def test_a_hostile_guest_writes_nothing_into_the_page(names):
    """Mutation: mark a reason as safe; set autoescape off."""
    bad = hostile()
    compared = compare([bad], [bad])
    page = side_by_side_html.render(compared, [bad], [bad], result_of(compared), names=names)
    parsed = Page(page)
    assert not parsed.all("script") and "\x1b" not in page and "\x00" not in page
    assert not parsed.all("link") and not parsed.all("img") and "http" not in page.replace("http-equiv", "")


def test_one_side_may_be_missing():
    """Mutation: index an empty list of runs."""
    base = runs()
    page = side_by_side_html.render(compare(base, []), base, [])
    assert "did not run" in words(page) and "ran on one side only" in words(page)


def test_strokes_lie_on_one_scale():
    """Mutation: scale each side for itself."""
    drawn = strips([100, 110], [110, 120], band=3, middle=105)
    first, second = (re.findall(r"M([\d.]+) ", path) for path in re.findall(r'd="([^"]*)"', drawn))
    assert first[1] == second[0] and float(first[0]) < float(second[0]) < float(second[1]) <= WIDTH
    assert 'class="band"' in drawn and 'class="band"' not in strips([1, 1], [1, 1], band=3, middle=1)


def test_histograms_are_mirrored_on_one_scale():
    """Mutation: draw the patched one upwards; forget the largest count of the other."""
    one, other = of_values("s", "ns", (1000,) * 4), of_values("s", "ns", (1000, 4000))
    up, down = re.findall(r'class="fill\d" d="([^"]*)"', mirrored(one, other))
    assert up.count("M") == 1 and down.count("M") == 2
    assert up.split("v")[1].startswith("-34") and down.split("v")[1].startswith("8.5")
    assert mirrored(Histogram("s", "ns"), Histogram("s", "ns")) == ""
    assert mirrored(histogram("s", 500, 20), one).count("<path") == 3


@pytest.fixture
def trees(tmp_path):
    for root, line in (("stock", "old();"), ("tree", "new();")):
        folder = tmp_path / root / RXE.folder
        folder.mkdir(parents=True)
        text = [f"line {number}" for number in range(1, 41)]
        text[19] = line
        (folder / "rxe_odp.c").write_text("\n".join(text))
        (folder / "same.c").write_text("same\n")
    (tmp_path / "tree" / RXE.folder / "more.c").write_text("int more;\n")
    return tmp_path / "stock", tmp_path / "tree"


def test_added_lines_say_whether_they_ran(trees):
    """Mutations: take the numbers of the old file; mark lines without code."""
    table = Lines(code={"rxe_odp.c": {19, 20, 22}})
    ran = Coverage({"rdma_rxe": table}, {"a": {"rdma_rxe": {"rxe_odp.c": {20}}}})
    (new, changed) = hunks(differing(*trees, (RXE,)), ran)
    assert new.file == f"{RXE.folder}/more.c" and [line.sign for line in new.lines] == ["+"]
    marked = [(line.sign, line.old, line.new, line.mark) for line in changed.lines if line.sign != " "]
    assert marked == [("-", 20, 0, ""), ("+", 0, 20, EXECUTED)]
    assert len(changed.lines) == 8
    unexecuted = Coverage({"rdma_rxe": table}, {})
    assert [
        line.mark for line in hunks(differing(*trees, (RXE,)), unexecuted)[1].lines if line.sign == "+"
    ] == [NOT_EXECUTED]
    assert not any(line.mark for hunk in hunks(differing(*trees, (RXE,)), None) for line in hunk.lines)


def test_the_page_marks_them(trees):
    """Mutations: leave the mark out; claim that coverage was not measured."""
    table = Lines(code={"rxe_odp.c": {20}})
    base = runs()
    compared = compare(base, base)
    measured = hunks(differing(*trees, (RXE,)), Coverage({"rdma_rxe": table}, {}))
    page = side_by_side_html.render(compared, base, base, result_of(compared, hunks=measured))
    assert '<u class="not-executed">not executed</u>+<code>new();</code>' in page
    unmeasured = result_of(compared, hunks=hunks(differing(*trees, (RXE,)), None))
    assert "Coverage of these lines was not measured" in side_by_side_html.render(
        compared, base, base, unmeasured
    )


def test_a_page_that_cannot_be_written_is_an_error(tmp_path, capfd):
    """Mutation: let the OSError through."""
    stored(tmp_path / "a", runs())
    words_ = ["compare", str(tmp_path / "a"), str(tmp_path / "a"), "--html"]
    assert main([*words_, str(tmp_path / "no" / "x.html")]) == 3
    assert "cannot be written: No such file" in capfd.readouterr().err
    assert main([*words_, str(tmp_path / "x.html")]) == 0
    assert "odp-write/7.3/soft-roce/remote" in words((tmp_path / "x.html").read_text())
