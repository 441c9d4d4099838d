"""Rows of statistics, and exports for other programs."""

import csv
import io
import json

from hypothesis import given
from hypothesis import strategies as st

from harness.results.exports import as_csv, as_folded, as_timeline
from harness.results.latency import cost, of_faults, rows, seen_together, sparkline
from harness.values.answer import FaultRecord, Trace
from harness.values.histogram import Histogram, bounds, bucket_of, of_values


def fault(start, pid=7, **spent):
    at, inner = 5, {}
    for name in spent:
        inner[name], at = at, at + spent[name]
    inner["queues"] = -spent.get("queues", 0)
    return FaultRecord(start, 100, 0x1000, 4096, 1, 0, spent, inner, pid, 0xABC, 1)


def two():
    faults = (fault(0, queues=10, faults=40, hmm=30, resumes=20), fault(60, 8, faults=50, hmm=10))
    names = {"works": (100, 100), "faults": (40, 50), "hmm": (30, 10), "resumes": (20,), "queues": (10,)}
    histograms = tuple(of_values(name, "ns", values) for name, values in names.items())
    return Trace({"works": 2}, (*histograms, Histogram("zaps", "ns")), faults, 0, 0, "works", 10, 20, 400)


@given(st.integers(0, 1 << 39))
def test_a_value_lies_in_its_bucket(value):
    """Mutation: shift by one power too many."""
    low, above = bounds(bucket_of(value))
    assert low <= value < above and above - low <= max(1, value // 16)


@given(st.lists(st.integers(0, 1 << 30), min_size=1, max_size=50), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_quantiles_are_right_to_a_sixteenth(values, share):
    """Mutation: take the bottom of the bucket; count from the wrong end."""
    from harness.values.histogram import percentile

    got, exact = of_values("x", "ns", tuple(values)).quantile(share), percentile(tuple(values), share)
    assert exact <= got <= exact + max(1, exact // 16)


@given(st.lists(st.integers(0, 1 << 30), max_size=20), st.lists(st.integers(0, 1 << 30), max_size=20))
def test_histograms_merge_to_that_of_all_values(ours, theirs):
    """Mutation: forget the fine buckets of one."""
    merged = of_values("x", "ns", tuple(ours)).merged(of_values("x", "ns", tuple(theirs)))
    assert merged == of_values("x", "ns", tuple(ours + theirs))


def test_rows_have_the_share_of_each_stage():
    """Mutation: count the wait in the queue, which comes before the fault, as a part of it."""
    by_stage = {row.stage: row for row in rows(two())}
    assert list(by_stage) == ["works", "faults", "hmm", "resumes", "queues"]
    assert (by_stage["works"].share, by_stage["faults"].share, by_stage["resumes"].share) == (1.0, 0.45, 0.1)
    assert by_stage["queues"].share is None
    assert by_stage["hmm"].samples == 2 and by_stage["hmm"].maximum_ns == 30


def test_the_faults_of_one_process_or_the_slow_ones():
    """Mutation: keep the histograms of all faults."""
    one = of_faults(two(), pid=8)
    assert one.counts == {"works": 1} and [f.pid for f in one.faults] == [8]
    assert {h.name: h.samples for h in one.histograms} == {"works": 1, "faults": 1, "hmm": 1}
    assert of_faults(two(), min_ns=101).histograms == ()
    assert of_faults(two()) == two()


def test_news_add_records_and_replace_counts():
    """Mutation: add counts that are already sums."""
    both = seen_together(two(), two())
    assert len(both.faults) == 4 and both.counts == {"works": 2}


def test_a_sparkline_is_as_tall_as_its_counts():
    """Mutation: draw the empty buckets before the first one."""
    assert sparkline(Histogram("x", "ns", (0, 0, 1, 0, 8))) == "▂ █"
    assert sparkline(Histogram("x", "ns")) == ""
    assert len(sparkline(Histogram("x", "ns", tuple(range(1, 41))))) <= 16


def test_the_cost_of_the_probes_is_reported():
    """Mutation: divide by the time of the faults."""
    assert cost(two()) == "the probes' programs ran 10 times and took 20 ns of the 400 ns watched, 5.0 %"
    assert cost(Trace()) == ""


def test_csv_has_a_line_a_fault():
    """Mutation: a column too few for a stage that the first fault has not."""
    lines = list(csv.DictReader(io.StringIO(as_csv({"a, b": two()}))))
    assert [line["case"] for line in lines] == ["a, b", "a, b"]
    assert [line["resumes_ns"] for line in lines] == ["20", ""]
    assert lines[0]["duration_ns"] == "100" and lines[0]["token"] == str(0xABC)


def test_folded_stacks_are_the_whole_time():
    """Mutation: count a stage's time in what it lies within as well."""
    lines = dict(line.rsplit(" ", 1) for line in as_folded({"c;d": two()}).splitlines())
    assert lines["c,d;works;faults;hmm"] == "40" and lines["c,d;works;faults"] == "50"
    assert lines["c,d;queues"] == "10"
    inside = sum(int(ns) for path, ns in lines.items() if path.startswith("c,d;works"))
    assert inside == 200


def test_a_timeline_conforms_to_its_format():
    """Check that events have the keys of their kind and that nothing overlaps on a track.

    Mutation: put overlapping faults on one track; give times in ns.
    """
    parsed = json.loads(as_timeline({"case": two()}))
    tracks: dict[int, list[tuple[float, float]]] = {}
    names = {}
    for event in parsed["traceEvents"]:
        assert event["ph"] in ("X", "M") and isinstance(event["pid"], int) and isinstance(event["tid"], int)
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name") and event["args"]["name"]
            names[event["tid"]] = event["args"]["name"]
        else:
            assert event["dur"] >= 0 and event["name"] in names[event["tid"]]
            tracks.setdefault(event["tid"], []).append((event["ts"], event["ts"] + event["dur"]))
    for calls in tracks.values():
        calls.sort()
        assert all(first[1] <= second[0] for first, second in zip(calls, calls[1:], strict=False))
    whole = [event for event in parsed["traceEvents"] if event["name"] == "works"]
    assert [(event["ts"], event["dur"]) for event in whole] == [(0.0, 0.1), (0.06, 0.1)]
    assert whole[0]["args"]["token"] == "0xabc"
    assert {"works", "works (2)", "queues", "faults"} <= set(names.values())
    queue = next(event for event in parsed["traceEvents"] if event["name"] == "queues")
    assert queue["ts"] == -0.01
