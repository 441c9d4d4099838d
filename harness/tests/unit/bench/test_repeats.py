"""Bands of repeated answers."""

from harness.bench.repeats import bands
from harness.values.answer import Answer, FaultRecord, Trace


def answer(operations, durations=()):
    faults = tuple(FaultRecord(0, duration, 0, 0, 1, 0) for duration in durations)
    return Answer("c", "done", trace=Trace(faults=faults), operations_ns=tuple(operations))


def test_a_band_is_the_spread_of_a_statistic():
    """Mutation: take the mean of a restore instead of its percentiles."""
    answers = [answer(range(100, 200), [50] * 9 + [last]) for last in (51, 60, 99)]
    by_name = {(band.stage, band.statistic): band for band in bands(answers)}
    assert set(by_name) == {
        (stage, statistic) for stage in ("operation", "fault") for statistic in ("p10", "p50")
    }
    assert by_name["operation", "p10"].median_ns == 109 and by_name["operation", "p50"].median_ns == 149
    assert all(band.spread_percent == 0 and band.equal == 3 for band in by_name.values())
    wider = list(bands([answer([1000]), answer([1010]), answer([1010])]))
    assert (wider[0].min_ns, wider[0].max_ns, wider[0].spread_percent, wider[0].equal) == (
        1000,
        1010,
        0.9901,
        2,
    )


def test_a_stage_missing_in_an_answer_has_no_band():
    """Mutation: look at the first answer only."""
    assert [band.stage for band in bands([answer([1], [2]), answer([1])])] == ["operation", "operation"]
