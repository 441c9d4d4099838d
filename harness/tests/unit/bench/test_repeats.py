"""Bands of repeated answers."""

from harness.bench.repeats import bands
from harness.values.answer import Answer, FaultRecord, Trace


def answer(operations, durations=()):
    faults = tuple(FaultRecord(0, duration, 0, 0, 1, 0) for duration in durations)
    return Answer("c", "done", trace=Trace(faults=faults), operations_ns=tuple(operations))


def test_a_band_says_how_far_a_figure_repeats():
    """Mutation: take the mean of a restore instead of its percentiles."""
    answers = [answer(range(100, 200), [50] * 9 + [last]) for last in (51, 60, 99)]
    found = {(band.stage, band.figure): band for band in bands(answers)}
    assert set(found) == {(stage, figure) for stage in ("operation", "fault") for figure in ("p10", "p50")}
    assert found["operation", "p10"].median_ns == 109 and found["operation", "p50"].median_ns == 149
    assert all(band.spread_percent == 0 and band.equal == 3 for band in found.values())
    wider = list(bands([answer([1000]), answer([1010]), answer([1010])]))
    assert (wider[0].least_ns, wider[0].most_ns, wider[0].spread_percent, wider[0].equal) == (
        1000,
        1010,
        0.9901,
        2,
    )


def test_a_stage_that_an_answer_lacks_has_no_band():
    """Mutation: leave out the look at all answers."""
    assert [band.stage for band in bands([answer([1], [2]), answer([1])])] == ["operation", "operation"]
