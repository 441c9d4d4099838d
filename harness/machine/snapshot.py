"""Boot once, restore always: machines saved after their start (`booted`), with a device up (`prepared`), and, for those
that differ in a module only, between the two (`compiled`).

A snapshot is a RAM file, a state file and what the agent said. Its key is the content of all that shaped it:
QEMU, kernel, images, initial RAM disk (with the agent's own code), shape, and the order that prepared it. The
numbers of orders leave room for one more after each, to spin (see icount.py).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from harness.debian import Archive
from harness.errors import Hang, SetupError, Unsupported
from harness.kernel.packages import Kernel
from harness.machine import icount, payload_disk
from harness.machine.console import symptom_error
from harness.machine.image import Image, ImageSpec, build_image, initrd, kernel_disk
from harness.machine.qemu import Qemu, Shape, kernel_command_line
from harness.machine.vm import Disks, Machine
from harness.store import digest
from harness.values.answer import Reply
from harness.values.case import Request

RECIPE = 7
BOOT_DEADLINE_S = 240.0
PREPARE_DEADLINE_S = 400.0
COMPILE = 2
_KINDS = {"compile": "compiled", "prepare": "prepared"}


@dataclass(frozen=True)
class Snapshot:
    """A saved machine: what to restore it from, and what was known when it was saved."""

    kind: str
    key: str
    folder: Path
    shape: Shape
    disks: Disks
    facts: dict[str, str]
    number: int

    @property
    def ram(self) -> Path:
        """The RAM file; mapped privately, it never changes."""
        return self.folder / "ram"

    @property
    def state(self) -> Path:
        """Everything but the RAM."""
        return self.folder / "state"


class MachineFactory:
    """Makes snapshots of one userland, and machines from them. `say` takes a line of progress."""

    def __init__(self, archive: Archive, qemu: Qemu, spec: ImageSpec, say: Callable[[str], None]) -> None:
        self.archive = archive
        self.store = archive.store
        self.host = archive.host
        self.qemu = qemu
        self.spec = spec
        self.say = say
        self._image: Image | None = None

    @property
    def image(self) -> Image:
        """The userland, built at first use."""
        if self._image is None:
            key_known = self._image_cached()
            if not key_known:
                self.say(f"building the image {self.spec.name} (about a minute)")
            self._image = build_image(self.spec, self.archive)
        return self._image

    def _image_cached(self) -> bool:
        return any(
            entry.name.startswith(self.spec.name) for entry in (self.store.root / "image").glob("[!.]*")
        )

    def disks(self, kernel: Kernel) -> tuple[Disks, list[object]]:
        """Files of a machine with this kernel, and what identifies them."""
        ram_disk, ram_disk_key = initrd(kernel, self.archive)
        kernel_files = kernel_disk(kernel, self.archive)
        disks = Disks(kernel.vmlinuz, ram_disk, self.image.disk, kernel_files, payload_disk.empty(self.store))
        return disks, [kernel.folder.name, self.image.key, self.image.digest, ram_disk_key]

    def shape(self, clock: str, accelerator: str = "tcg") -> Shape:
        """The shape of this userland's machines."""
        return Shape(self.spec.memory_mib, clock, "tcg" if clock != "real" else accelerator)

    def key(self, kernel: Kernel, shape: Shape) -> str:
        """What everything about a machine that has just booted comes to."""
        return self._key(shape, self.disks(kernel)[1])

    def _key(self, shape: Shape, identity: Sequence[object]) -> str:
        return digest(RECIPE, self.qemu.version, kernel_command_line(shape), asdict(shape), *identity)

    def booted(self, kernel: Kernel, shape: Shape) -> Snapshot:
        """A machine whose agent waits for its first order."""
        disks, identity = self.disks(kernel)

        def build(into: Path) -> None:
            self.say(f"booting {kernel.release} once ({shape.clock} time)")
            request = Request(0, "wait")
            with (
                self.host.ledger.scratch_folder("boot") as folder,
                Machine(
                    self.host, self.qemu, shape, disks, folder, request=request, ram=into / "ram"
                ) as machine,
            ):
                self._save(machine, into, machine.wait(BOOT_DEADLINE_S))
            self._spin(Snapshot("booted", "", into, shape, disks, {}, 0))

        return self._snapshot("booted", self._key(shape, identity), build, shape, disks, 1)

    def compiled(self, kernel: Kernel, shape: Shape, request: Request) -> Snapshot:
        """A machine that has compiled the probes for `order`, a preparation, before it knows any module of a parcel."""
        base = self.booted(kernel, shape)
        first = Request(COMPILE, "compile", request.device, probes=request.probes)
        return self._after(base, first, f"compiling probes on {kernel.release} for {request.device}")

    def prepared(
        self, kernel: Kernel, shape: Shape, request: Request, files: Mapping[str, Path] | None = None
    ) -> Snapshot:
        """A machine that has carried out `order` (a device up, probes attached) and waits for the next.

        `files` are in its parcel (see parcel.py). Unsupported if the machine said that it cannot; that answer
        is kept too.
        """
        say = f"preparing {kernel.release} for {request.device}"
        if files:
            # Many machines will differ in their parcels alone.
            base = self.compiled(kernel, shape, request)
            given = payload_disk.packed(files, self.store, self.host)
            base = replace(base, disks=replace(base.disks, parcel=given))
            snapshot = self._after(base, request, say, given.parent.name)
        else:
            snapshot = self._after(self.booted(kernel, shape), request, say)
        if "unsupported" in snapshot.facts:
            raise Unsupported(snapshot.facts["unsupported"])
        return snapshot

    def _after(self, base: Snapshot, request: Request, say: str, *given: str) -> Snapshot:
        """A machine that went on from `base` and has carried out an order; `given` is what else shaped it."""

        def build(into: Path) -> None:
            self.say(say)
            # Saving needs shared RAM, so this one works on a copy.
            self._copy(base.ram, into / "ram")
            self._go_on(base, request, into)
            if request.verb == "prepare":
                self._spin(Snapshot(kind, "", into, base.shape, base.disks, {}, request.number))

        kind = _KINDS[request.verb]
        key = digest(RECIPE, base.key, asdict(request), *given)
        return self._snapshot(kind, key, build, base.shape, base.disks, request.number + 1)

    def _go_on(self, base: Snapshot, request: Request, into: Path) -> None:
        """Restore a machine on the RAM in `into`, let it carry out an order, and save it there."""
        with (
            self.host.ledger.scratch_folder(request.verb) as folder,
            self._restored(base, request, folder, ram=into / "ram", shared=True) as machine,
        ):
            reply = machine.wait(PREPARE_DEADLINE_S)
            # A kernel warns once: of what it said before it is saved, no case would ever hear.
            # (That it was slow is the host's matter as long as it answers.)
            said = map(symptom_error, machine.console.since())
            for error in (error for error in said if not isinstance(error, Hang)):
                raise error
            self._save(machine, into, reply)

    def _spin(self, saved: Snapshot) -> None:
        """Let a machine that was just saved go on to where QEMU can record it, if it will be recorded."""
        if saved.shape.clock != "exact" or not saved.state.is_file():
            return
        further = icount.to_spin(icount.counted(saved.state))
        if further:
            self.say(f"running {further / 1e9:.1f} G instructions, past what QEMU 11.1 cannot record")
            self._go_on(saved, Request(saved.number + 1, "spin", spin_ns=further), saved.folder)

    @contextlib.contextmanager
    def restore(
        self,
        snapshot: Snapshot,
        request: Request,
        folder: Path,
        *,
        plugged: bool = False,
        held: bool = False,
        terminal: bool = False,
        extra: tuple[str, ...] = (),
    ) -> Iterator[Machine]:
        """A machine that goes on from a snapshot with a new order.

        Its RAM is the snapshot's, mapped privately. A machine that a device will be `plugged` into stands
        still until `go_on`, and has a copy that the device's process can map too. One that is `held` stands still for
        whoever debugs it.
        """
        with contextlib.ExitStack() as stack:
            ram = snapshot.ram
            if plugged:
                size_bytes = snapshot.ram.stat().st_size
                ram = stack.enter_context(self.host.ledger.memory_file("ram", size_bytes))
                self._copy(snapshot.ram, ram)
            yield stack.enter_context(
                self._restored(
                    snapshot,
                    request,
                    folder,
                    ram=ram,
                    shared=plugged,
                    paused=plugged,
                    held=held,
                    terminal=terminal,
                    extra=extra,
                )
            )

    def _copy(self, ram: Path, into: Path) -> None:
        self.host.run(["cp", "--reflink=auto", "--sparse=always", str(ram), str(into)])

    def run(self, snapshot: Snapshot, request: Request, deadline_s: float) -> Reply:
        """Restore, wait for the reply, and end the machine."""
        with (
            self.host.ledger.scratch_folder("machine") as folder,
            self.restore(snapshot, request, folder) as machine,
        ):
            return machine.wait(deadline_s)

    def _restored(
        self,
        snapshot: Snapshot,
        request: Request,
        folder: Path,
        *,
        ram: Path,
        shared: bool,
        paused: bool = False,
        held: bool = False,
        terminal: bool = False,
        extra: tuple[str, ...] = (),
    ) -> Machine:
        if request.number <= snapshot.number:
            raise SetupError(f"order {request.number} is not newer than the snapshot's {snapshot.number}")
        return Machine(
            self.host,
            self.qemu,
            snapshot.shape,
            snapshot.disks,
            folder,
            request=request,
            ram=ram,
            incoming=snapshot.state,
            shared=shared,
            paused=paused,
            held=held,
            terminal=terminal,
            extra=extra,
        )

    def _save(self, machine: Machine, into: Path, reply: Reply) -> None:
        if not reply.ok and "unsupported" not in reply.facts:
            raise SetupError(f"the agent could not {machine.request.verb}", reply.problem.splitlines())
        told = into / "facts.json"
        facts = {**(json.loads(told.read_text()) if told.is_file() else {}), **reply.facts}
        if reply.ok:
            machine.save(into / "state.new")
            (into / "state.new").rename(into / "state")
            # Free memory that the guest zeroed takes no disk.
            self.host.run(["fallocate", "--dig-holes", str(into / "ram")], check=False)
        else:
            (into / "ram").unlink()
        told.write_text(json.dumps(facts, indent=1, sort_keys=True))

    def _snapshot(
        self, kind: str, key: str, build: Callable[[Path], None], shape: Shape, disks: Disks, number: int
    ) -> Snapshot:
        folder = self.store.built(kind, key, build)
        try:
            facts = json.loads((folder / "facts.json").read_text())
            whole = "unsupported" in facts or (folder / "state").stat().st_size > 0
        except (OSError, ValueError):
            whole = False
        if not whole:
            self.say(f"the snapshot {kind}/{key} is broken: making it again")
            self.store.discard(kind, key)
            folder = self.store.built(kind, key, build)
            facts = json.loads((folder / "facts.json").read_text())
        return Snapshot(kind, key, folder, shape, disks, facts, number)
