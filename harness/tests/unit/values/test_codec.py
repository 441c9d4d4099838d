import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.values import codec
from harness.values.answer import Answer, DataCheck, Expectation, FaultRecord, Reply, Trace
from harness.values.case import Case, PageLoss, Region, Request, Workload
from harness.values.histogram import Histogram, percentile

CASE = Case(
    "id",
    "soft-roce",
    Workload("write", 3, Region(4096), Region(4096, 100, "shared"), PageLoss("fork", "both")),
)
ANSWER = Answer(
    "id",
    "done",
    expectations=(Expectation("faults", 3, 3, "bcc", "one a page"),),
    data=DataCheck(10, 1, "x"),
    trace=Trace(
        {"faults": 3}, (Histogram("fault", "ns", (0, 1), 3, 3, 3),), (FaultRecord(1, 2, 3, 4, -14, 0),)
    ),
)


@pytest.mark.parametrize(
    "value", [CASE, Request(3, "case", case=CASE), ANSWER, Reply(1, True, answer=ANSWER)]
)
def test_a_decoded_message_equals_the_encoded_one(value):
    """Mutation: drop a field in to_plain, or turn tuples into lists."""
    assert codec.loads(type(value), codec.dumps(value)) == value


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"version": 2}, "case"),
        ({"seed": "1"}, "case.seed"),
        ({"seed": True}, "case.seed"),
        ({"extra": 1}, "case.extra"),
        ({"workload": None}, "case.workload"),
    ],
)
def test_wrong_messages_name_their_key(change, path):
    """Mutation: ignore unknown keys, accept a bool for a number."""
    plain = {**codec.to_plain(CASE), **change}
    with pytest.raises(codec.DecodeError) as caught:
        codec.from_plain(Case, plain)
    assert caught.value.path == path


@given(st.text() | st.binary().map(lambda b: b.decode("latin1")))
def test_any_text_decodes_or_raises_decode_error(text):
    """Mutation: let json's own errors through."""
    with pytest.raises(codec.DecodeError):
        codec.loads(Case, text)


def test_histograms_merge_and_percentiles_are_values():
    """Mutation: add only the common buckets."""
    one = Histogram("f", "ns", (1, 2), 5, 1, 3)
    two = Histogram("f", "ns", (0, 0, 4), 20, 4, 7)
    both = one.merged(two)
    assert both.counts == (1, 2, 4)
    assert (both.total, both.minimum, both.maximum, both.samples) == (25, 1, 7, 7)
    assert percentile((5, 1, 3, 2, 4), 0.5) == 3
    assert percentile((5, 1, 3, 2, 4), 1.0) == 5
    assert percentile((), 0.5) == 0
