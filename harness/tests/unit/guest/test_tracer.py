"""Traces read from the kernel's counters and records."""

import re
from pathlib import Path

import pytest

from harness.guest.trace import stages, tracer
from harness.values import codec
from harness.values.answer import Answer, Reply, Trace
from harness.values.histogram import FINE_BITS


@pytest.mark.parametrize(
    ("name", "layout"), [("stage", tracer._Stage), ("state", tracer._State), ("record", tracer._Record)]
)
def test_structures_match_those_of_probes_c(name, layout):
    """Mutation: swap `pages` and `calls` in _Stage."""
    source = (Path(tracer.__file__).parent / "probes.c").read_text()
    body = re.search(rf"struct {name} {{(.*?)\n}};", source, re.DOTALL)
    assert body is not None
    members = re.findall(r"(\w+)(?:\[\w+\])?;", body.group(1))
    assert members == [field[0] for field in layout._fields_]
    buckets = re.search(r"#define FINE_BITS (\d+)\n#define BUCKETS \((\d+) << FINE_BITS\)", source)
    assert buckets is not None
    assert int(buckets.group(1)) == FINE_BITS and int(buckets.group(2)) << FINE_BITS == tracer._BUCKETS


def test_trace_is_read_from_the_counters():
    """Mutation: keep the empty tail of a histogram."""
    state = tracer._State(lost=2)
    faults = state.stages[stages.number("faults")]
    faults.calls[1], faults.pages[1], faults.failed = 3, 4, 1
    faults.total_ns, faults.minimum_ns, faults.maximum_ns = 30, 8, 12
    faults.buckets[8], faults.buckets[12] = 1, 2
    record = tracer._Record(1100, 8, 0x1000, 4096, pages=-14)
    seen = tracer.read_trace(state, [record], stages.RXE, ("invalidations",), 1000, 5)
    assert (seen.lost, seen.missed) == (2, 5)
    assert seen.counts["faults"] == seen.counts["faults_remote"] == 3
    assert seen.counts["faults_remote_pages"] == 4
    assert seen.counts["faults_failed"] == 1
    assert "invalidations_local" not in seen.counts
    assert [h.name for h in seen.histograms if h.samples] == ["faults"]
    by_name = {h.name: h for h in seen.histograms}
    assert by_name["faults"].counts == (0, 0, 0, 3) and by_name["faults"].fine == ((8, 1), (12, 2))
    assert by_name["snapshots"].minimum == 0 and "invalidations" not in by_name
    assert (seen.faults[0].start_ns, seen.faults[0].pages) == (100, -14)
    reply = Reply(1, True, answer=Answer("c", "done", trace=seen))
    assert codec.loads(Reply, codec.dumps(reply)) == reply


def test_fault_record_of_a_card_has_the_times_of_its_stages():
    """Mutation: list the whole fault among its own stages; give events a histogram."""
    state = tracer._State()
    for name, calls in (("events", 4), ("works", 3), ("resumes", 2)):
        state.stages[stages.number(name)].calls[2] = calls
    record = tracer._Record(1100, 90, 0x1000, 4096, 77, 30, pages=1)
    for name, at, spent in (("faults", 10, 20), ("resumes", 40, 50)):
        record.inner_at[stages.number(name)], record.inner_ns[stages.number(name)] = at, spent
    seen = tracer.read_trace(state, [record], stages.MLX5, (), 1000, 0)
    assert [seen.counts[name] for name in ("events", "works", "resumes")] == [4, 3, 2]
    assert seen.faults[0].inner_ns == {"faults": 20, "resumes": 50, "queues": 30}
    assert seen.faults[0].inner_at_ns == {"faults": 10, "resumes": 40, "queues": -30}
    assert (seen.whole, seen.faults[0].token) == ("works", 77)
    assert "events" not in [h.name for h in seen.histograms]


def test_empty_trace_survives_the_codec():
    reply = Reply(1, True, answer=Answer("c", "done", trace=Trace()))
    assert codec.loads(Reply, codec.dumps(reply)) == reply
