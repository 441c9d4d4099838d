from __future__ import annotations

import re
import time
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from harness.results import html
from harness.results.svg import SERIES
from harness.results.text import common_environment
from harness.tests.unit.results.sample import ENVIRONMENT, HOSTILE, hostile, mixed, record, stored
from harness.values.answer import Expectation
from harness.values.histogram import Histogram

VOID = {"meta", "input", "br", "path", "use", "rect"}


class Page(HTMLParser):
    """Collects elements, and complains when one is not closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag, **expected):
        return [
            a
            for t, a in self.elements
            if t == tag and all(a.get(key) == value for key, value in expected.items())
        ]


@pytest.fixture
def page(tmp_path):
    return html.render(stored(tmp_path / "r", mixed(), command="odp-harness run"))


def test_every_case_count_and_symptom_is_on_the_page(page):
    """Mutation: leave a section of the template out."""
    parsed = Page(page)
    cases = [a for a in parsed.all("details") if "case" in a["class"]]
    assert [a["data-verdict"] for a in cases].count("pass") == 9 and len(cases) == 14
    text = " ".join(parsed.texts)
    for expected in (
        "9 passed, 2 skipped, 1 known failure, 1 could not be run, 1 failed",
        "11.1.3",
        "one fault a page of each round",
        "leak: QP: 2 before, 3 after",
        "remote, round 4, offset 8192: expected 5a, found 00",
        "rxe_odp_mr_copy+0x8e/0x1c0 [rdma_rxe]",
        "207 of 208",
        "rxe of 6.1 has no on-demand paging",
        "6.16.12+deb13-amd64",
        "fault: hmm_range_fault",
    ):
        assert expected in text, expected
    assert len(parsed.all("svg")) == 11


def test_failures_come_before_the_environment(tmp_path):
    """Mutation: thirty facts of the guest before the first failure; no facts at all."""
    facts = {**ENVIRONMENT, "machine.probe hmm": "hmm_range_fault"}
    page = html.render(stored(tmp_path / "r", [record(1, "fail", environment=facts)]))
    assert page.index("What went wrong") < page.index("Where it ran") < page.index("<dt>probe hmm</dt>")
    assert page.index("<details", page.index("Where it ran")) < page.index("<dt>probe hmm</dt>")


def test_the_page_needs_no_network(page):
    """Mutation: link a style sheet or a script."""
    parsed = Page(page)
    assert not parsed.all("link") and not parsed.all("img") and not parsed.all("iframe")
    for _, attributes in parsed.elements:
        for name in ("src", "href", "xlink:href"):
            assert re.match(r"#|logs/", attributes.get(name) or "#"), attributes
    assert not re.search(r"url\((?!#)|@import", page)
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert "://" not in without_names


def test_ids_are_unique_and_references_have_targets(page):
    """Mutation: give a picture a constant id; do not number the cases."""
    parsed = Page(page)
    ids = [a["id"] for _, a in parsed.elements if "id" in a]
    assert len(ids) == len(set(ids))
    targets = re.findall(r'(?:url\(#|href="#)([^")]+)', page)
    assert targets and set(targets) <= set(ids)


def test_both_themes_have_every_colour(page):
    """Mutation: forget a colour in the dark theme, or write one into a picture."""
    light, dark = re.search(
        r":root \{(.*?)\}.*?prefers-color-scheme: dark\) \{\s*:root \{(.*?)\}", page, re.S
    ).groups()
    names = [set(re.findall(r"(--[\w-]+):", block)) for block in (light, dark)]
    assert names[0] == names[1]
    used = set(re.findall(r"var\((--[\w-]+)\)", page)) - {"--tone"}
    assert used <= names[0] and {f"--series-{n}" for n in range(1, SERIES + 1)} <= names[0]
    svg = page[page.index("<svg") : page.index("</svg>")]
    assert not re.search(r"#[\da-f]{6}", svg) and "currentColor" in svg


def test_hostile_text_stays_text(tmp_path):
    """Mutation: turn autoescape off, or drop finalize."""
    page = html.render(stored(tmp_path / "r", [hostile()], command=HOSTILE))
    parsed = Page(page)
    assert len(parsed.all("script")) == 1 and "<script>alert" not in page and not parsed.all("b")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]", page)
    page.encode("utf-8")
    (link,) = [a for a in parsed.all("a") if not a["href"].startswith("#")]
    assert re.fullmatch(r"[\w/%.~-]+", link["href"])
    policy = parsed.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert "default-src 'none'" in policy and "'sha256-" in policy


def test_a_log_is_a_link_and_never_a_scheme(tmp_path):
    """Mutation: write the path into the link as it is."""
    page = html.render(stored(tmp_path / "r", [replace(record(0), log="javascript:alert(1)")]))
    assert 'href="javascript%3Aalert%281%29"' in page


def test_script_hash_is_of_the_script_that_is_there(page):
    """Mutation: strip the script after hashing."""
    import base64
    import hashlib

    script = re.search(r"<script>(.*?)</script>", page, re.S)[1]
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in page


def test_empty_and_broken_runs(tmp_path):
    """Mutation: count missing cases as passed; hide damaged records."""
    assert "Nothing ran" in html.render(stored(tmp_path / "e", []))
    run = stored(tmp_path / "r", [record(0)], finish=False)
    run = replace(
        run, damaged=("records/002-x.json: not JSON",), index=replace(run.index, expected=7, interrupted=True)
    )
    text = " ".join(Page(html.render(run)).texts)
    assert (
        "6 of 7 cases have no result" in text and "002-x.json" in text and "The run was interrupted" in text
    )


def test_a_thousand_cases(thousand):
    """Keep the pictures of failures if there are too many. Mutation: draw a picture for every case."""
    started = time.monotonic()
    page = html.render(thousand)
    assert time.monotonic() - started < 60
    assert page.count("<svg") == html.MAX_PICTURES and len(page) < 20e6
    for block in page.split("<details class=")[1:]:
        if block.startswith('"case fail"'):
            assert "<svg" in block


def test_quantile():
    """Mutation: return the bottom of the bucket."""
    shape = Histogram("x", "ns", (0, 0, 90, 0, 0, 9, 1), 0, 4, 70)
    assert [shape.quantile(share) for share in (0.5, 0.9, 0.99, 1.0)] == [7, 7, 63, 70]
    assert Histogram("x", "ns").quantile(0.5) == 0


def test_common_environment_survives_a_record_without_one():
    """Mutation: demand every fact of every record."""
    records = [record(0), record(1), replace(record(2, "skip"), environment={})]
    assert common_environment(records) == ENVIRONMENT
    assert "kernel" not in common_environment(mixed()) and common_environment([]) == {}
    assert common_environment([*records, replace(record(3), environment={"card": "x"})]) == ENVIRONMENT


@pytest.mark.parametrize(
    ("observed", "expected", "shown"),
    [
        ((0, 208, 0), (0, 208, 0), "208"),
        ((208, 0, 0), (208, 0, 0), "208"),
        ((1200, 208, 0), (1200, 208, 0), "1\u202f408"),
        ((0, 207, 0), (0, 208, 0), "207 of 208"),
        ((0, 208, 3), (0, 208, 0), "211 of 208"),
        ((0, 0, 0), (0, 0, 0), "0"),
    ],
)
def test_the_faults_of_a_case_are_those_of_all_sides(tmp_path, observed, expected, shown):
    """Use the names of guest/expectations.py. Mutation: show the first count only; count the failed ones twice."""
    names = ("faults_local", "faults_remote", "faults_elsewhere")
    expectations = [
        Expectation(name, right, count, "bcc", "")
        for name, right, count in zip(names, expected, observed, strict=True)
    ]
    expectations.append(Expectation("faults_failed", 0, observed[1], "bcc", "none fails"))
    made = record(1)
    made = replace(made, answer=replace(made.answer, expectations=tuple(expectations)))
    parsed = Page(html.render(stored(tmp_path / "r", [made])))
    texts = [text.strip() for text in parsed.texts if text.strip()]
    assert texts[texts.index(made.case.id) + 1] == shown
