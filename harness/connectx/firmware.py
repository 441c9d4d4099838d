"""Firmware: init segment, doorbells, command queue, execution of commands.

`Card` is what a vfio-user server serves: every access is answered inside the call, and whatever a guest
writes, no exception leaves it.
"""

from __future__ import annotations

import struct
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from harness.connectx import card
from harness.connectx.commands import mailbox
from harness.connectx.commands.queue import CommandQueue
from harness.connectx.commands.registry import Entry, stub
from harness.connectx.device import GuestMemory, Interrupts, Log
from harness.connectx.hca import Hca
from harness.connectx.status import FirmwareError, Status
from harness.connectx.transport.memory import DmaError
from harness.wire.ifc import Layouts, ShortBuffer, View

FW_REV, CMDIF_REV, CMDQ_HIGH, CMDQ_LOW, DOORBELL = 0x00, 0x04, 0x10, 0x14, 0x18
INITIALIZING, HEALTH, TIMER_HIGH, TIMER_LOW, HEALTH_COUNTER = 0x1FC, 0x200, 0x1000, 0x1004, 0x1010
"""Registers. Ref: Linux 7.2 include/linux/mlx5/device.h, struct mlx5_init_seg."""

CMDIF = 5
"""Revision of the command interface. Ref: Linux 7.2 core/cmd.c, CMD_IF_REV."""

BLUEFLAME_REST = 0xF8
"""Offset bits in a BlueFlame register: a WQE may be written as a whole, only its first 8 bytes ring."""

UAR_CQ_ARM, UAR_EQ_ARM, UAR_EQ_UPDATE, UAR_SEND, UAR_SEND_END = 0x20, 0x40, 0x48, 0x800, 0x1000
"""Doorbells in a UAR page. Ref: Linux 7.2 include/linux/mlx5/cq.h MLX5_CQ_DOORBELL, core/lib/eq.h,
MLX5_BF_OFFSET."""


class Card:
    """One emulated ConnectX. `model` is a name of `card.MODELS`, `layouts` are those of the driver's kernel.

    `log` receives dicts with a "what": command, event, umr, refused, finding, unknown, error. `acted`: the last
    tick did something.
    """

    def __init__(
        self,
        model: str,
        layouts: Layouts,
        memory: GuestMemory,
        interrupts: Interrupts,
        log: Log,
    ) -> None:
        self.model = card.model(model)
        self.hca = Hca(self.model, layouts, memory, interrupts, log)
        self._device = self.hca.device
        self.unknown: Counter[str] = Counter()
        self.commands_run: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.acted = False
        self._entries = self._commands(layouts)
        self._handlers: dict[int, Callable[[bytes], None]] = {
            UAR_CQ_ARM: self._arm_cq,
            UAR_EQ_ARM: lambda data: self.hca.events.doorbell(int.from_bytes(data[:4], "big"), arm=True),
            UAR_EQ_UPDATE: lambda data: self.hca.events.doorbell(int.from_bytes(data[:4], "big"), arm=False),
        }
        self._half: dict[int, bytes] = {}
        self._slots = CommandQueue(self._device, self.hca.events, self.hca.rules, self.name, self.execute)
        self._registers = bytearray(0x2000)
        self._health = 0
        self._power_on()

    def _commands(self, layouts: Layouts) -> dict[int, Entry]:
        """Return the commands that this kernel knows, by opcode."""
        numbers = {name: number for number, name in layouts.opcodes().items()}
        return {numbers[entry.name]: entry for entry in self.hca.commands() if entry.name in numbers}

    def _power_on(self) -> None:
        major, minor, sub = self.model.firmware
        self._registers[:] = bytes(len(self._registers))
        struct.pack_into(">II", self._registers, FW_REV, minor << 16 | major, CMDIF << 16 | sub)
        struct.pack_into(">I", self._registers, CMDQ_LOW, mailbox.LOG_SLOTS << 4 | mailbox.LOG_STRIDE)
        struct.pack_into(">I", self._registers, HEALTH + 0x30, major << 24 | minor << 16 | sub)
        self._half.clear()

    @property
    def clock(self) -> Callable[[], float]:
        """Clock in seconds, monotonic; a recorder or a replay sets its own."""
        return self._device.clock

    @clock.setter
    def clock(self, clock: Callable[[], float]) -> None:
        self._device.clock = clock

    def arm(self, rules: Sequence[Any]) -> None:
        """Replace the rules, each a `values.rule.Rule` or what its codec makes of one; UsageError for nonsense."""
        self.hca.rules.arm(rules)
        self._device.log({"what": "rules", "rules": self.outcomes()})

    def outcomes(self) -> list[dict[str, Any]]:
        """Return the outcome of each rule so far."""
        return self.hca.rules.outcomes()

    def findings(self) -> list[dict[str, str]]:
        """Return the findings so far."""
        return [finding.to_json() for finding in self._device.findings.reported]

    def counters(self) -> dict[str, Any]:
        """Return counters: commands by name and status, unknown ones with a stub, current objects and pages."""
        return {
            "commands": dict(self.commands_run),
            "failed": dict(self.failed),
            "unknown": {name: {"count": count, "stub": stub(name)} for name, count in self.unknown.items()},
            "objects": self._device.objects.census(),
            "pages": len(self.hca.pages.held),
            "faults": self.hca.faults.counters(),
            "work": self.hca.requester.counters(),
            "events": self.hca.events.posted,
            "keys": self.hca.keys.created,
            "odp": {"memory_scheme": self.hca.capabilities.memory_scheme},
        }

    # -- called by the server

    def bar_read(self, bar: int, offset: int, size: int) -> bytes:
        """Read registers; zeros where there are none."""
        if bar != 0 or offset + size > len(self._registers):
            return bytes(size)
        if TIMER_HIGH <= offset <= TIMER_LOW:
            struct.pack_into(">Q", self._registers, TIMER_HIGH, self._device.ticks())
        elif offset == HEALTH_COUNTER:
            self._health = self._health + 1 & 0xFFFFFF
            struct.pack_into(">I", self._registers, HEALTH_COUNTER, self._health)
        return bytes(self._registers[offset : offset + size])

    def bar_write(self, bar: int, offset: int, data: bytes) -> None:
        """Write a register or a doorbell, and do all that follows from it, long queues a time slice at a time."""
        if bar != 0:
            return
        try:
            if offset < card.FIRST_UAR * card.UAR_SIZE:
                self._write_register(offset, data)
            else:
                self._write_uar(offset // card.UAR_SIZE, offset % card.UAR_SIZE, data)
            self.hca.requester.run()
            self.hca.pages.adjust()
        except DmaError as problem:
            self._device.findings.report(
                "bad-address", f"{problem.address:#x}", f"{problem.size} bytes: {problem}"
            )
        except FirmwareError as problem:
            self._device.log({"what": "error", "why": str(problem)})
        except Exception:  # a broken driver is normal here; QEMU dies with the card
            self._broken(f"write of {len(data)} bytes at {offset:#x}")

    def reset(self) -> None:
        """Reset (function level or bus): as after power-on."""
        self.hca.reset()
        self._power_on()

    def detach(self) -> None:
        """Reset when QEMU is gone: nothing of the guest may be touched any more."""
        self.reset()

    def tick(self) -> float | None:
        """Run what is due; return seconds until the next timer, or None. An error of one timer stops nothing else."""
        self.acted = self.hca.requester.waiting or self._device.timers.next_s() == 0.0
        for due in (self._device.timers.run, self.hca.requester.go_on):
            try:
                due()
            except DmaError as problem:
                self._device.findings.report(
                    "bad-address", f"{problem.address:#x}", f"{problem.size} bytes: {problem}"
                )
            except Exception:  # as above
                self._broken("timer")
        return 0.0 if self.hca.requester.waiting else self._device.timers.next_s()

    # -- registers and doorbells

    def _write_register(self, offset: int, data: bytes) -> None:
        if offset == DOORBELL:
            self._slots.run(self._command_queue(), int.from_bytes(data[:4], "big"))
        elif offset == CMDQ_HIGH:
            self._registers[CMDQ_HIGH : CMDQ_HIGH + len(data)] = data
        elif offset == CMDQ_LOW:
            value = int.from_bytes(data[:4], "big") & ~0xFF | mailbox.LOG_SLOTS << 4 | mailbox.LOG_STRIDE
            struct.pack_into(">I", self._registers, CMDQ_LOW, value)

    def _write_uar(self, page: int, offset: int, data: bytes) -> None:
        """Ring a doorbell of 4 or 8 bytes; a 64-bit one may come in two halves."""
        if page not in self._device.objects.table("uar"):
            self._device.objects.missing("uar", page, "doorbell")
            return
        if UAR_SEND <= offset < UAR_SEND_END:
            data = self._joined(page * card.UAR_SIZE + (offset & ~7), offset & 7, data)
            if len(data) >= 8 and not offset & BLUEFLAME_REST:
                self.hca.requester.doorbell(int.from_bytes(data[4:7], "big"))
            return
        if offset & ~7 == UAR_CQ_ARM:
            data = self._joined(page * card.UAR_SIZE + UAR_CQ_ARM, offset & 7, data)
            offset = UAR_CQ_ARM
        handler = self._handlers.get(offset)
        if handler is not None:
            handler(data)
        else:
            self._device.findings.report(
                "bad-value", f"uar {page:#x}", f"write of {len(data)} bytes at {offset:#x}"
            )

    def _joined(self, address: int, half: int, data: bytes) -> bytes:
        """Return both halves of a 64-bit doorbell once they are here, b"" before."""
        if len(data) >= 8:
            return data
        if half == 0:
            self._half[address] = data
            return b""
        return self._half.pop(address, bytes(4)) + data

    def _arm_cq(self, data: bytes) -> None:
        if len(data) >= 8:
            word, number = struct.unpack_from(">II", data)
            self.hca.completions.doorbell(word, number)

    # -- commands

    def _command_queue(self) -> int:
        """Return the address of the first slot."""
        high, low = struct.unpack_from(">II", self._registers, CMDQ_HIGH)
        return int(high << 32 | low & ~0xFFF)

    def name(self, request: bytearray) -> str:
        """Return the command's name without `MLX5_CMD_OP_`, its number if it is unknown."""
        opcode = int.from_bytes(request[:2], "big")
        entry = self._entries.get(opcode)
        return entry.name if entry else self._device.layouts.opcodes().get(opcode, f"{opcode:#x}")

    def execute(self, request: bytearray, out_length: int, refused: FirmwareError | None = None) -> bytearray:
        """Execute one command: the request's bytes in, the reply's out. A rule's answer `refused` replaces it."""
        started = time.perf_counter_ns()
        reply = bytearray(max(out_length, 8))
        opcode = int.from_bytes(request[:2], "big")
        entry = self._entries.get(opcode)
        status, syndrome = Status.BAD_OP, 0
        if refused is not None:
            status, syndrome = refused.status, refused.syndrome
        elif entry is None:
            self._unknown(opcode)
        else:
            status, syndrome = self._call(entry, request, reply)
        if status:
            reply[:] = bytes(len(reply))
            struct.pack_into(">B3xI", reply, 0, status, syndrome)
        name = self.name(request)
        self.commands_run[name] += 1
        if status:
            self.failed[f"{name} {status.name}"] += 1
        self._device.log(
            {
                "what": "command",
                "op": name,
                "status": status.name,
                "in": request.hex(),
                "out": reply[:out_length].hex(),
                "ns": time.perf_counter_ns() - started,
            }
        )
        return reply[:out_length]

    def _call(self, entry: Entry, request: bytearray, reply: bytearray) -> tuple[Status, int]:
        try:
            entry.run(self._view(f"{entry.layout}_in", request), self._view(f"{entry.layout}_out", reply))
        except FirmwareError as problem:
            return problem.status, problem.syndrome
        except ShortBuffer as problem:
            inward = f"{entry.layout}_in" in problem.headline or "_out" not in problem.headline
            return (Status.BAD_INPUT_LENGTH if inward else Status.BAD_OUTPUT_LENGTH), 0
        except DmaError as problem:
            self._device.findings.report("bad-address", f"{problem.address:#x}", f"{entry.name}: {problem}")
            return Status.BAD_PARAM, 0
        except Exception:  # the card answers, whatever came
            self._broken(entry.name)
            return Status.INTERNAL, 0
        return Status.OK, 0

    def _view(self, name: str, data: bytearray) -> View:
        """View a structure; one that this kernel does not describe still has the common head."""
        layouts = self._device.layouts
        if name not in layouts:
            name = "nop_in" if name.endswith("_in") else "nop_out"
        return layouts[name].view(data)

    def _unknown(self, opcode: int) -> None:
        name = self._device.layouts.opcodes().get(opcode, f"OP_{opcode:#x}")
        self.unknown[name] += 1
        if self.unknown[name] == 1:
            self._device.log({"what": "unknown", "op": name, "stub": stub(name)})

    def _broken(self, what: str) -> None:
        """Report a defect of the model, with its trace, and go on."""
        self._device.log({"what": "error", "why": what, "trace": traceback.format_exc(limit=-4)})
        self._device.findings.report("model-error", what, traceback.format_exc(limit=-1))
