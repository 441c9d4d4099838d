from __future__ import annotations

import re
import time
import xml.etree.ElementTree as ElementTree

import pytest

from harness.results import junit, ktap
from harness.results.text import clean, duration, one_line, tally, why
from harness.tests.unit.results.sample import HOSTILE, hostile, mixed, record, stored

RESULT = re.compile(r"( *)(ok|not ok) (\d+) ([^#]*?)(?: # (.*))?")


def parse(text: str, indent: str = "") -> list[tuple[str, int, str, str, list]]:
    """Parse KTAP strictly: every line is a version, a plan, a result or a diagnostic."""
    lines = text.splitlines()
    assert text.endswith("\n") and len(lines) == text.count("\n"), "only newlines end lines"
    tests, rest = _level(lines, indent)
    assert not rest
    return tests


def _level(lines, indent):
    assert lines[0] == f"{indent}KTAP version 1"
    plan = int(re.fullmatch(rf"{indent}1\.\.(\d+)", lines[1])[1])
    lines, tests, children = lines[2:], [], []
    while lines and len(tests) < plan:
        line = lines[0]
        if line.startswith(f"{indent}  KTAP"):
            children, lines = _level(lines, indent + "  ")
            continue
        lines = lines[1:]
        if line.startswith(f"{indent}# "):
            continue
        match = RESULT.fullmatch(line)
        assert match and match[1] == indent, line
        tests.append((match[2], int(match[3]), match[4], match[5] or "", children))
        children = []
    assert [test[1] for test in tests] == list(range(1, plan + 1))
    return tests, lines


def test_ktap_has_every_verdict(tmp_path):
    """Mutation: give `known` no directive, or let the parent of a failed case be ok."""
    plans = parse(ktap.render(stored(tmp_path / "r", mixed())))
    cases = {name: (result, comment) for plan in plans for result, _, name, comment, _ in plan[4]}
    assert len(cases) == 14
    results = {result + " " + text.split(" ")[0] for result, text in cases.values()}
    assert results == {"ok ", "not ok count:", "ok XFAIL", "ok SKIP", "not ok ERROR"}
    for result, _, _, _, children in plans:
        assert (result == "not ok") == any(child[0] == "not ok" for child in children)


def test_ktap_of_all_skips_and_of_nothing(tmp_path):
    """Mutation: let a plan of skips be a plain ok."""
    (plan,) = parse(ktap.render(stored(tmp_path / "r", [record(0, "skip"), record(4, "skip")])))
    assert plan[0] == "ok" and plan[3].startswith("SKIP")
    assert ktap.render(stored(tmp_path / "e", [])) == "KTAP version 1\n1..0\n"


def test_hostile_strings_make_no_ktap_line(tmp_path):
    """Mutation: drop one_line from _result, or clean from _diagnostics."""
    text = ktap.render(stored(tmp_path / "r", [hostile()]))
    plans = parse(text)
    assert len(plans) == 1 and len(plans[0][4]) == 1
    assert not re.search(r"^ *ok 9", text, re.M)
    assert "\x1b" not in text and text.encode("utf-8")


def test_junit_counts_and_kinds(tmp_path):
    """Mutation: map `known` to Failure."""
    root = ElementTree.fromstring(junit.render(stored(tmp_path / "r", mixed())))
    assert [root.get(key) for key in ("tests", "failures", "errors", "skipped")] == ["14", "1", "1", "3"]
    suites = root.findall("testsuite")
    assert len(suites) == 4 and sum(int(suite.get("tests")) for suite in suites) == 14
    (failure,) = root.iter("failure")
    assert failure.get("type") == "count" and "207 seen (and 3 more)" in failure.get("message")
    assert "leak: QP: 2 before, 3 after" in failure.text
    assert {skipped.get("type") for skipped in root.iter("skipped")} == {"need", "known"}
    (out,) = {out.text for out in root.iter("system-out") if "rxe_odp_map_range_and_lock" in out.text}
    assert "log: logs/" in out
    properties = {p.get("name"): p.get("value") for p in suites[0].find("properties")}
    assert properties["qemu"] == "11.1.3"


def test_junit_of_hostile_strings_is_well_formed(tmp_path):
    """Mutation: drop `clean`: the XML cannot be parsed."""
    root = ElementTree.fromstring(junit.render(stored(tmp_path / "r", [hostile()])))
    assert "<script>alert(1)</script>" in root.find("testsuite/testcase/failure").get("message")


def test_a_thousand_cases(thousand):
    """Mutation: a quadratic report takes minutes."""
    started = time.monotonic()
    assert sum(len(plan[4]) for plan in parse(ktap.render(thousand))) == 1000
    assert ElementTree.fromstring(junit.render(thousand)).get("tests") == "1000"
    assert time.monotonic() - started < 20


def test_clean_and_one_line():
    """Mutation: leave U+2028 or a lone surrogate alone."""
    assert one_line("a\r\n\tb\u2028c\x1b[31m") == "a b c\\x1b[31m"
    assert clean("a\r\nb\x00\ud800") == "a\nb\\x00\\ud800"
    assert one_line("x" * 50, 10) == "x" * 9 + "…"
    clean(HOSTILE).encode("utf-8")


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1000, "1.00 µs"),
        (32_100, "32.1 µs"),
        (999_999, "1.00 ms"),
        (12.5e9, "12.5 s"),
    ],
)
def test_durations(nanoseconds, text):
    """Mutation: always two digits."""
    assert duration(nanoseconds) == text


def test_tally_and_why():
    """Mutation: list verdicts without a case."""
    assert tally({"pass": 2, "fail": 1, "skip": 0, "error": 0, "known": 0}) == "2 passed, 1 failed"
    assert tally({"pass": 0, "fail": 0, "skip": 0, "error": 0, "known": 0}) == "no case"
    assert why(record(0)) == "" and why(record(1, "skip")) == "need: rxe of 6.1 has no on-demand paging"
