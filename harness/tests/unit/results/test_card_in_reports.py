"""The device report of an emulated card is in every report: findings, unknown commands, the conversation log."""

from dataclasses import replace

import pytest

from harness.results import html, junit, ktap
from harness.results.terminal import View
from harness.tests.unit.results.sample import record, stored
from harness.values.record import DeviceReport, Finding, Reason, Unknown
from harness.values.rule import Outcome

STUB = '@command("QUERY_LAG")\ndef query_lag(self, request: View, reply: View) -> None: ...'
DEVICE_REPORT = DeviceReport(
    (Finding("destroy-in-use", "cq 5", "qp 64 refers to it"),),
    {"commands.CREATE_CQ": 4, "events": 7, "faults.open": 0},
    (Unknown("QUERY_LAG", 3, STUB),),
)
FINDING = "destroy-in-use: cq 5: qp 64 refers to it"


def tolerant():
    """Build a case that passes with a finding, because its plan allows it."""
    return record(1, device_report=DEVICE_REPORT)


def failed():
    return record(
        2,
        "fail",
        reasons=(Reason("finding", FINDING),),
        device_report=DEVICE_REPORT,
        card_log="logs/two.card.jsonl.gz",
    )


def text_of_view(run):
    from io import StringIO

    from rich.console import Console

    into = StringIO()
    view = View(Console(file=into, width=200))
    for one in run.records:
        view.case_finished(one)
    view.summary(run)
    return into.getvalue()


@pytest.fixture(
    params=[html.render, junit.render, ktap.render, text_of_view], ids=["html", "junit", "ktap", "live"]
)
def render(request):
    return request.param


def test_findings_of_passed_cases_are_reported(render, tmp_path):
    """Mutation: report findings of failed cases only."""
    text = render(stored(tmp_path, [tolerant()]))
    assert "destroy-in-use" in text and "qp 64 refers to it" in text


def test_findings_are_reported_with_the_path_of_the_log(render, tmp_path):
    """Mutation: leave card_log out."""
    text = render(stored(tmp_path, [failed()]))
    assert "qp 64 refers to it" in text and "logs/two.card.jsonl.gz" in text


def test_effects_of_rules_are_reported(tmp_path):
    """Check a case that passed, too. Mutation: report the first rule only."""
    outcomes = (
        Outcome("storm", 9, 2, "fault 0x3: 12 more"),
        Outcome("drop-event", 9, 1, "fault 0x7: dropped"),
    )
    for renderer in (html.render, junit.render, ktap.render):
        one = record(1, device_report=replace(DEVICE_REPORT, rules=outcomes))
        text = renderer(stored(tmp_path / renderer.__module__, [one]))
        assert "fault 0x3: 12 more" in text and "fault 0x7: dropped" in text


def test_unknown_commands_are_reported_with_a_stub(render, tmp_path):
    """Sum them over the cases (JUnit has them by case). Mutation: do not sum."""
    text = render(stored(tmp_path, [tolerant(), failed()]))
    assert "QUERY_LAG" in text and "def query_lag(self" in text
    assert ("3 times" if render is junit.render else "6 times") in text


def test_counters_are_on_the_page(tmp_path):
    """Show those that are not 0. Mutation: drop the group."""
    page = html.render(stored(tmp_path, [tolerant()]))
    assert (
        "card: commands" in page
        and "CREATE_CQ" in page
        and "faults" not in page.split("card: commands")[1][:80]
    )


def test_many_findings_are_not_all_listed(tmp_path):
    """Mutation: list ten thousand."""
    many = replace(
        DEVICE_REPORT, findings=tuple(Finding("bad-value", f"uar {i}", "again") for i in range(500))
    )
    for renderer in (html.render, junit.render, ktap.render):
        text = renderer(stored(tmp_path / renderer.__module__, [record(1, device_report=many)]))
        assert text.count("again") <= 25 and "480 more" in text
