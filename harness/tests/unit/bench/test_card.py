"""The benchmark of the card without a machine: times of a recorded conversation, metrics that repeat."""

from harness.bench.card import _compared, command_times, summary
from harness.tests.unit.connectx.driver import DATA, layouts
from harness.values.answer import Answer


def test_every_command_of_a_conversation_is_timed():
    """Mutation: time only doorbells that nothing follows."""
    times = command_times(DATA / "probe-7.3.jsonl.gz", layouts("7.3"), "connectx-5", rounds=2)
    result = summary(times)
    assert result["command_count"] > 500
    assert {"CREATE_QP", "QUERY_HCA_CAP", "TEARDOWN_HCA"} <= set(result["opcodes"])
    assert 0 < result["command_p50_us"] <= result["command_p99_us"]


def test_metrics_that_repeat_are_named():
    """Mutation: compare the first two only."""
    answers = [Answer("x", "done", operations_ns=(5, 7, 9), elapsed_ns=elapsed) for elapsed in (30, 30, 31)]
    result = _compared(answers)
    assert result["elapsed_ns"] == [30, 30, 31]
    assert result["exact"] == ["round_min_ns", "round_p10_ns", "round_p50_ns", "round_max_ns"]
