"""Conversation log and replay, with a small device."""

import gzip
import json
import os
import struct

import pytest

from harness.connectx.conversation.log import (
    Recorder,
    RecordingInterrupts,
    RecordingMemory,
    Writer,
    changes,
    entries,
)
from harness.connectx.conversation.replay import replay
from harness.connectx.transport.interrupts import EventInterrupts
from harness.tests.unit.connectx.rig import DOORBELL, PAGE, Rig, Toy


class Clocked(Toy):
    """Counts in a tick when it is set to, and shows its clock at 0x80."""

    def bar_read(self, bar, offset, size):
        if offset == 0x80:
            return struct.pack("<Q", int(self.clock() * 1000))
        return super().bar_read(bar, offset, size)

    def tick(self):
        if self.due:
            self.memory.write(self.due, b"ticked")
            self.interrupts.fire(1)
            self.due = None

    def reset(self):
        super().reset()
        self.due = 0x10800


@pytest.fixture
def recorded(tmp_path):
    path = tmp_path / "conversation.jsonl.gz"
    writer = Writer(path, model="toy")
    memory = RecordingMemory(writer)
    made = {}

    class Vectors:
        def fire(self, vector):
            made["rig"].events.fire(vector)

    interrupts = RecordingInterrupts(Vectors())
    rig = made["rig"] = Rig(
        device=lambda memory, vectors: Clocked(memory, vectors, writer_note(writer)),
        memory=memory,
        interrupts=interrupts,
        wrap=lambda rig: Recorder(rig.device, memory, interrupts, writer),
    )
    converse(rig)
    rig.close()
    writer.close()
    return path


def writer_note(writer):
    return lambda entry: writer({"k": "note", **entry})


def converse(rig):
    client = rig.client
    client.map(0xC0000, PAGE, None)
    client.map(rig.BASE, 4 * PAGE, rig.ram)
    client.listen(2)
    client.write(0, 0x10, b"register")
    assert client.read(0, 0x10, 8) == b"register"
    for text in (b"sixteen letters.", b"sixteen letters.", b"Sixteen letters."):
        os.pwrite(rig.ram, text, 0x200)
        client.write(0, DOORBELL, struct.pack("<Q", rig.BASE + 0x200))
    client.read(0, 0x80, 8)
    client.ask(13)
    client.read(0, 0x10, 8)
    client.unmap(rig.BASE, 4 * PAGE)
    client.map(rig.BASE, PAGE, rig.ram, offset=PAGE)
    os.pwrite(rig.ram, b"another page now", PAGE)
    client.write(0, DOORBELL, struct.pack("<Q", rig.BASE))


def build(memory, interrupts, note):
    return Clocked(memory, interrupts, lambda entry: note({"k": "note", **entry}))


def test_entries_of_the_log(recorded):
    """Mutation: write all bytes seen each time; forget the changes of a tick."""
    lines = list(entries(recorded))
    assert lines[0]["k"] == "open" and lines[0]["model"] == "toy" and lines[0]["format"] == 1
    rings = [line for line in lines if line["k"] == "write" and line["o"] == DOORBELL]
    address = Rig.BASE + 0x200
    assert rings[0]["saw"] == [[address, b"sixteen letters.".hex()]]
    assert rings[0]["did"] == [[address + 64, b".srettel neetxis".hex()]]
    assert rings[0]["irq"] == [0]
    assert "saw" not in rings[1] and "did" not in rings[1], "the log already has that"
    assert rings[2]["saw"] == [[address, b"S".hex()]]
    assert rings[3]["saw"] == [[Rig.BASE, b"another page now".hex()]]
    (tick,) = [line for line in lines if line["k"] == "tick"]
    assert tick["did"] == [[0x10800, b"ticked".hex()]] and tick["irq"] == [1]
    assert [line["k"] for line in lines if line["k"] in ("reset", "detach", "note")] == (
        ["note"] * 3 + ["reset", "note", "detach"]
    )
    assert all(line["t"] > 0 for line in lines)


def test_a_tick_that_acted_is_logged_without_effects_in_memory(tmp_path):
    """A card counts its retries. Mutation: write only ticks with effects: a replay never gives up."""
    path = tmp_path / "log.jsonl"
    writer = Writer(path)
    memory, interrupts = RecordingMemory(writer), RecordingInterrupts(EventInterrupts(1))

    class Counting(Clocked):
        acted = False

        def tick(self):
            self.acted = self.due is not None

    device = Recorder(Counting(memory, interrupts), memory, interrupts, writer)
    for device.device.due in (None, 5, None):
        device.tick()
    writer.close()
    assert [line["k"] for line in entries(path)] == ["open", "tick"]


def test_a_replay_is_the_same(recorded):
    """Mutation: load what was seen after the access instead of before."""
    outcome = replay(recorded, build)
    assert outcome.differences == []
    assert outcome.accesses == 11
    assert [note["doorbell"] for note in outcome.notes if "doorbell" in note] == [Rig.BASE + 0x200] * 3 + [
        Rig.BASE
    ]


@pytest.mark.parametrize("what", ["g", "did", "irq", "exception"])
def test_a_replay_finds_differences(recorded, what):
    """Mutation: compare one of these with itself."""

    class Other(Clocked):
        def bar_read(self, bar, offset, size):
            data = super().bar_read(bar, offset, size)
            return data[::-1] if what == "g" else data

        def bar_write(self, bar, offset, data):
            if offset == DOORBELL and what == "exception":
                raise ValueError("broken")
            super().bar_write(bar, offset, data)
            if offset == DOORBELL and what == "did":
                self.memory.write(struct.unpack("<Q", data)[0] + 0x400, b"stray")
            if offset == DOORBELL and what == "irq":
                self.interrupts.fire(0)

    outcome = replay(recorded, lambda memory, interrupts, note: Other(memory, interrupts))
    assert {difference.what for difference in outcome.differences} >= {what}
    assert all(str(difference) for difference in outcome.differences)


def test_the_clock_of_the_recording(recorded):
    """The register at 0x80 shows it. Mutation: use the current clock; let it advance during an access."""
    (reading,) = [line for line in entries(recorded) if line["k"] == "read" and line["o"] == 0x80]
    assert struct.unpack("<Q", bytes.fromhex(reading["g"]))[0] == reading["t"] // 1000
    assert replay(recorded, build).differences == []


def test_the_same_bytes_in_other_runs_are_no_difference(recorded):
    """A model may be rewritten. Mutation: compare the lists of runs."""

    class Bytewise(Clocked):
        def bar_write(self, bar, offset, data):
            if offset != DOORBELL:
                super().bar_write(bar, offset, data)
                return
            (address,) = struct.unpack("<Q", data)
            text = self.memory.read(address, 16)
            for index in range(16):
                self.memory.write(address + 64 + index, text[15 - index : 16 - index])
            self.interrupts.fire(0)

    outcome = replay(recorded, lambda memory, interrupts, note: Bytewise(memory, interrupts))
    assert outcome.differences == []


class Carrier(Clocked):
    """A device that copies 16 bytes to where a doorbell points, then reads them there."""

    def bar_write(self, bar, offset, data):
        (address,) = struct.unpack("<Q", data)
        self.memory.copy(address - 0x100, address, 16)
        super().bar_write(bar, offset, data)


def test_copies_within_guest_memory_are_not_logged(tmp_path):
    """They are when the card reads them. Mutation: record the ranges of a copy, or copy again in a replay."""
    path = tmp_path / "log.jsonl"
    writer = Writer(path)
    memory = RecordingMemory(writer)
    interrupts = RecordingInterrupts(EventInterrupts(1))
    memory.lend(Rig.BASE, memoryview(bytearray(PAGE)))
    device = Recorder(Carrier(memory, interrupts), memory, interrupts, writer)
    for text in (b"sixteen letters.", b"sixteen numbers."):
        memory.overwrite(Rig.BASE + 0x100, text)
        device.bar_write(0, DOORBELL, struct.pack("<Q", Rig.BASE + 0x200))
    writer.close()
    first, second = (line for line in entries(path) if line["k"] == "write")
    assert first["saw"] == [[Rig.BASE + 0x200, b"sixteen letters.".hex()]]
    assert second["saw"] == [[Rig.BASE + 0x208, b"numb".hex()]]
    outcome = replay(path, lambda memory, interrupts, note: Carrier(memory, interrupts))
    assert (outcome.accesses, outcome.differences) == (2, [])


def test_ranges_that_are_only_read_are_not_compared_again():
    """A card that reads much would compare it all at each change; later changes there are the guest's.

    Mutation: treat a read as a view in RecordingMemory._pieces.
    """
    memory = RecordingMemory(lambda entry: None)
    memory.lend(Rig.BASE, memoryview(bytearray(PAGE)))
    memory.begin()
    memory.read(Rig.BASE, 16)
    memory.write(Rig.BASE + 0x100, b"card")
    memory.overwrite(Rig.BASE, b"guest")
    assert memory.finish() == {"did": [(Rig.BASE + 0x100, b"card".hex())]}


def test_a_truncated_log_is_read_as_far_as_it_goes(recorded, tmp_path):
    """The card was killed. Mutation: let EOFError out."""
    whole = list(entries(recorded))
    data = recorded.read_bytes()
    cut = tmp_path / "cut.gz"
    cut.write_bytes(data[:-20])
    assert list(entries(cut)) == whole[: len(list(entries(cut)))]
    plain = tmp_path / "cut.jsonl"
    plain.write_text(gzip.decompress(data).decode()[:-9])
    assert list(entries(plain)) == whole[:-1]


def test_changes_are_trimmed_and_joined():
    """Mutation: do not trim; step over a line that follows a changed one."""
    before = bytes(320)
    after = bytearray(before)
    after[70:74] = b"abcd"
    after[127:130] = b"efg"
    after[319:] = b"z"
    assert changes(0x1000, before, bytes(after)) == [
        (0x1046, (b"abcd" + bytes(53) + b"efg").hex()),
        (0x113F, b"z".hex()),
    ]
    assert changes(0, before, before) == []


def test_bytes_in_notes(tmp_path):
    """Mutation: leave bytes to json."""
    writer = Writer(tmp_path / "log.jsonl")
    writer({"k": "note", "data": memoryview(b"\x01\x02"), "path": tmp_path})
    writer.close()
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[1])["data"] == "0102"
