"""The smaller pure parts: uverbs commands, the trace's form, leaks, swap header, memory on this host."""

import ctypes
import os
import re
import struct
import time
from pathlib import Path

import pytest

from harness.guest import (
    leaks,
    prepare,
)
from harness.guest.mm import libc
from harness.guest.mm.memory import (
    Memory,
    pattern,
)
from harness.guest.rdma import registration
from harness.guest.rdma.registration import (
    ACCESS_ALL,
    ACCESS_ON_DEMAND,
    ACCESS_REMOTE_READ,
)
from harness.guest.trace import stages, tracer
from harness.values import codec
from harness.values.answer import Answer, Leak, Reply, Trace
from harness.values.case import LOSSES, MAPPINGS, TRANSFERS, Region
from harness.values.histogram import FINE_BITS


def test_registering_is_forty_eight_bytes():
    """Mutation: leave the header out of the word count."""
    data = registration.reg_mr_command(0x1122, 0x7F00, 100, 0xF00, 5, registration.ACCESS_ALL)
    assert len(data) == 48
    assert struct.unpack("=IHHQQQQII", data) == (9, 12, 3, 0x1122, 0x7F00, 100, 0xF00, 5, 15)
    assert registration.dereg_mr_command(7) == struct.pack("=IHHI", 13, 3, 0, 7)


@pytest.mark.parametrize("kind", ["address", "shifted", "zero"])
def test_a_registered_address_keeps_its_place_in_the_page(kind):
    """The kernel refuses anything else. Mutation: return 0 for `zero`."""
    assert registration.iova_of(kind, 0x7F12_3456_7890) % 4096 == 0x890


@pytest.mark.parametrize(
    ("name", "layout"), [("stage", tracer._Stage), ("state", tracer._State), ("record", tracer._Record)]
)
def test_both_sides_have_the_same_structures(name, layout):
    """Mutation: swap `pages` and `calls` in _Stage."""
    source = (Path(tracer.__file__).parent / "probes.c").read_text()
    body = re.search(rf"struct {name} {{(.*?)\n}};", source, re.DOTALL)
    assert body is not None
    members = re.findall(r"(\w+)(?:\[\w+\])?;", body.group(1))
    assert members == [field[0] for field in layout._fields_]
    buckets = re.search(r"#define FINE_BITS (\d+)\n#define BUCKETS \((\d+) << FINE_BITS\)", source)
    assert buckets is not None
    assert int(buckets.group(1)) == FINE_BITS and int(buckets.group(2)) << FINE_BITS == tracer._BUCKETS


def test_a_trace_is_read_from_the_kernels_counters():
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


def test_a_cards_fault_says_what_it_spent_its_time_on():
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


def test_an_empty_trace_travels():
    reply = Reply(1, True, answer=Answer("c", "done", trace=Trace()))
    assert codec.loads(Reply, codec.dumps(reply)) == reply


def test_only_what_grew_leaks():
    """Mutation: compare with != instead of >."""
    before, after = {"QP": 1, "MR": 2}, {"QP": 2, "MR": 1, "PD": 1}
    assert leaks.compare(before, after) == (Leak("QP", 1, 2), Leak("PD", 0, 1))


def test_a_swap_area_says_so_at_the_end_of_its_first_page():
    page = prepare.swap_header(64 << 20)
    assert len(page) == 4096
    assert page[-10:] == b"SWAPSPACE2"
    assert struct.unpack_from("=III", page, 1024) == (1, (64 << 20) // 4096 - 1, 0)


def test_a_rehearsal_does_everything_once():
    """Mutation: rehearse fewer losses: a case would read the disk for the first time."""
    kinds = prepare.rehearsals()
    assert {w.operation for w in kinds} == set(TRANSFERS) | set(prepare.REHEARSED)
    assert {w.loss.method for w in kinds} == set(LOSSES)
    assert {r.mapping for w in kinds for r in (w.local, w.remote)} == set(MAPPINGS)


# The pool of huge pages is the host's, and not ours to change.
@pytest.mark.parametrize("mapping", [mapping for mapping in MAPPINGS if mapping != "hugetlb"])
@pytest.mark.parametrize("advice", ["dontneed", "remap", "holes"])
def test_memory_holds_what_it_is_expected_to(mapping, advice):
    """Real mappings of this host. Mutation: let Memory.expect_fresh do nothing."""
    from harness.guest.mm import page_loss

    if mapping not in page_loss.LOSSES[advice].mappings:
        pytest.skip("no such loss of such memory")
    memory = Memory(Region(5000, 100, mapping), 1)
    try:
        assert memory.difference() == (0, "")
        memory.fill(1)
        page_loss.LOSSES[advice].act(memory)
        assert memory.difference() == (0, "")
        kept = mapping == "shared" and advice != "remap"
        same = memory.expected[4096:-4096] == pattern(1, 1, memory.size)[4096:-4096]
        assert same == kept
    finally:
        memory.close()


@pytest.mark.parametrize("mapping", ["anonymous", "shared", "file"])
@pytest.mark.parametrize("how", ["none", "dontneed", "remap", "protect", "peeked"])
def test_memory_that_may_only_be_read_is_so_after_all_that_is_done_to_it(mapping, how):
    """Mutations: leave it open after a fill; map it anew with all rights; let `protect` end with them."""
    from harness.guest.mm import page_loss

    memory = Memory(Region(5000, 100, mapping, prot="read"), 1)
    try:
        memory.fill(1)
        page_loss.LOSSES[how].act(memory)
        assert memory.difference() == (0, "")
        found = re.findall(r"^([0-9a-f]+)-[0-9a-f]+ (\S+)", Path("/proc/self/maps").read_text(), re.M)
        rights = {int(start, 16): allowed[:2] for start, allowed in found}
        assert rights[memory.pages_start] == "r-"
        ctypes.memset(memory.base, 0, 1)
        ctypes.memset(memory.pages_start + memory.pages_bytes, 0, 1)
    finally:
        memory.close()


@pytest.mark.parametrize(("prot", "rights"), [("write", ACCESS_ALL), ("read", ACCESS_REMOTE_READ)])
def test_memory_that_may_only_be_read_is_registered_without_rights_to_write(monkeypatch, prot, rights):
    """Mutation: leave one of them."""
    asked = []
    monkeypatch.setattr(
        registration, "register", lambda fd, pd, start, length, iova, access: asked.append(access)
    )
    registration.register_region(-1, 7, Region(8, prot=prot), 4096, ACCESS_ALL, odp=True)
    assert asked == [rights | ACCESS_ON_DEMAND]


def test_a_wrong_byte_is_named():
    """Mutation: call every wrong byte a region's."""
    memory = Memory(Region(100, 50), 1)
    try:
        memory.fill(3)
        ctypes.memset(memory.start + 99, 0xEE, 2)
        count, first = memory.difference()
        assert count == 2
        assert first.startswith("region byte 99: expected ")
        memory.fill(3)
        ctypes.memset(memory.start - 1, 0xEE, 1)
        assert memory.difference()[1].startswith("neighbour byte -1: ")
    finally:
        memory.close()


def test_a_hole_that_is_taken_is_an_error():
    """Mutation: map with MAP_FIXED again: whoever took the hole loses his memory."""
    memory = Memory(Region(4096), 1)
    try:
        with pytest.raises(FileExistsError):
            memory._map(memory.pages_start, 4096, 0)
        assert memory.size == 3 * libc.PAGE_BYTES
    finally:
        memory.close()


def test_draining_the_lists_needs_no_pages_and_no_rights():
    """Mutation: pass one page: its null list is an error."""
    libc.drain_lru()


def test_a_late_page_comes_when_it_is_missed():
    """Mutations: bring it at once; never; bring something else than zeros."""
    from harness.guest.mm import page_loss, userfaultfd

    memory = Memory(Region(2 * 4096), 1)
    try:
        memory.fill(1)
        try:
            page_loss.LOSSES["late"].act(memory)
        except OSError as error:
            pytest.skip(f"no userfaultfd here: {error}")
        began = time.monotonic()
        # A system call misses them: our own access would keep the thread that brings them from running.
        read, write = os.pipe()
        os.write(write, (ctypes.c_char * memory.pages_bytes).from_address(memory.pages_start))
        assert time.monotonic() - began > 1.5 * userfaultfd.DELAY_S
        assert os.read(read, memory.pages_bytes) == bytes(memory.pages_bytes)
        os.close(read)
        os.close(write)
        assert memory.difference() == (0, "")
    finally:
        memory.close()
