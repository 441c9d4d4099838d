"""Boot once, restore always: save machines as snapshots and restore them.

A `booted` snapshot has its agent up, a `prepared` one has a device up and probes attached; a `compiled` one, with the
probes compiled, is between the two for machines that differ in a module only.

A snapshot is a RAM file, a state file and the facts that the agent reported. Its key is the content of all that shaped
it: QEMU, kernel, images, initial RAM disk (with the agent's code), shape, and the request that prepared it. After
each request one number is left free, to spin (see icount.py).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from harness.agent import checked
from harness.debian import Archive
from harness.errors import Hang, SetupError, Unsupported
from harness.kernel.packages import Kernel
from harness.machine import icount, payload_disk
from harness.machine.console import symptom_error
from harness.machine.image import Image, ImageSpec, build_image, initrd, kernel_disk
from harness.machine.qemu import Disks, MachineConfig, Qemu, Shape, kernel_command_line
from harness.machine.vm import Machine
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
    """A saved machine; `facts` are those that its agent reported, requests to it have numbers above `number`."""

    kind: str
    key: str
    folder: Path
    shape: Shape
    disks: Disks
    facts: dict[str, str]
    number: int

    @property
    def ram(self) -> Path:
        """RAM file; mapped privately, it never changes."""
        return self.folder / "ram"

    @property
    def state(self) -> Path:
        """State file: everything but the RAM."""
        return self.folder / "state"

    def config(self, request: Request) -> MachineConfig:
        """Configure a machine that is restored from here, its RAM mapped privately."""
        if request.number <= self.number:
            raise SetupError(f"request {request.number} is not newer than the snapshot's {self.number}")
        return MachineConfig(self.shape, self.disks, request, self.ram, self.state, shared=False)


class MachineFactory:
    """Makes snapshots of one userland, and restores machines from them. `say` takes a line of progress."""

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
        """Userland, built at first use."""
        if self._image is None:
            if not self._image_cached():
                self.say(f"building the image {self.spec.name} (about a minute)")
            self._image = build_image(self.spec, self.archive)
        return self._image

    def _image_cached(self) -> bool:
        return any(
            entry.name.startswith(self.spec.name) for entry in (self.store.root / "image").glob("[!.]*")
        )

    def disks(self, kernel: Kernel) -> tuple[Disks, list[object]]:
        """Return the files of a machine with this kernel, and what identifies them."""
        ram_disk, ram_disk_key = initrd(kernel, self.archive)
        kernel_files = kernel_disk(kernel, self.archive)
        disks = Disks(kernel.vmlinuz, ram_disk, self.image.disk, kernel_files, payload_disk.empty(self.store))
        return disks, [kernel.folder.name, self.image.key, self.image.digest, ram_disk_key]

    def shape(self, clock: str, accelerator: str = "tcg") -> Shape:
        """Return the shape of this userland's machines."""
        return Shape(self.spec.memory_mib, clock, "tcg" if clock != "real" else accelerator)

    def key(self, kernel: Kernel, shape: Shape) -> str:
        """Compute the cache key of the `booted` snapshot."""
        return self._key(shape, self.disks(kernel)[1])

    def _key(self, shape: Shape, identity: Sequence[object]) -> str:
        return digest(RECIPE, self.qemu.version, kernel_command_line(shape), asdict(shape), *identity)

    def booted(self, kernel: Kernel, shape: Shape) -> Snapshot:
        """Return a machine whose agent waits for its first request."""
        disks, identity = self.disks(kernel)

        def build(into: Path) -> None:
            self.say(f"booting {kernel.release} once ({shape.clock} time)")
            config = MachineConfig(shape, disks, Request(0, "wait"), into / "ram")
            with (
                self.host.ledger.scratch_folder("boot") as folder,
                Machine(self.host, self.qemu, folder, config) as machine,
            ):
                self._save(machine, into, machine.wait(BOOT_DEADLINE_S))
            self._spin(Snapshot("booted", "", into, shape, disks, {}, 0))

        return self._snapshot("booted", self._key(shape, identity), build, shape, disks, 1)

    def compiled(self, kernel: Kernel, shape: Shape, request: Request) -> Snapshot:
        """Return a machine with the probes for `request` compiled, before it has read a payload disk."""
        base = self.booted(kernel, shape)
        first = Request(COMPILE, "compile", request.device, probes=request.probes)
        return self._after(base, first, f"compiling probes on {kernel.release} for {request.device}")

    def prepared(
        self, kernel: Kernel, shape: Shape, request: Request, files: Mapping[str, Path] | None = None
    ) -> Snapshot:
        """Return a machine that has carried out `request` (a device up, probes attached) and waits for the next.

        `files` are on its payload disk (see payload_disk.py). Unsupported if the agent reports so; that is cached too.
        """
        say = f"preparing {kernel.release} for {request.device}"
        if files:
            # Many machines differ in their payload disks only.
            base = self.compiled(kernel, shape, request)
            payload = payload_disk.packed(files, self.store, self.host)
            base = replace(base, disks=replace(base.disks, payload=payload))
            snapshot = self._after(base, request, say, payload.parent.name)
        else:
            snapshot = self._after(self.booted(kernel, shape), request, say)
        if "unsupported" in snapshot.facts:
            raise Unsupported(snapshot.facts["unsupported"])
        return snapshot

    def _after(self, base: Snapshot, request: Request, say: str, *identity: str) -> Snapshot:
        """Return a machine that was restored from `base` and has carried out a request; `identity` adds to its key."""

        def build(into: Path) -> None:
            self.say(say)
            # Saving needs shared RAM, so this one works on a copy.
            self._copy(base.ram, into / "ram")
            self._carry_out(base, request, into)
            if request.verb == "prepare":
                self._spin(Snapshot(kind, "", into, base.shape, base.disks, {}, request.number))

        kind = _KINDS[request.verb]
        key = digest(RECIPE, base.key, asdict(request), *identity)
        return self._snapshot(kind, key, build, base.shape, base.disks, request.number + 1)

    def _carry_out(self, base: Snapshot, request: Request, into: Path) -> None:
        """Restore a machine on the RAM in `into`, let it carry out a request, and save it there."""
        config = replace(base.config(request), ram=into / "ram", shared=True)
        with (
            self.host.ledger.scratch_folder(request.verb) as folder,
            Machine(self.host, self.qemu, folder, config) as machine,
        ):
            reply = machine.wait(PREPARE_DEADLINE_S)
            # A kernel warns once: no case would ever see a symptom from before the snapshot.
            # (A Hang only means a slow host, since the reply came.)
            errors = map(symptom_error, machine.console.since())
            for error in (error for error in errors if not isinstance(error, Hang)):
                raise error
            self._save(machine, into, reply)

    def _spin(self, saved: Snapshot) -> None:
        """Run a machine in exact time on to an instruction count that QEMU can record, and save it again."""
        if saved.shape.clock != "exact" or not saved.state.is_file():
            return
        further = icount.to_spin(icount.counted(saved.state))
        if further:
            self.say(f"running {further / 1e9:.1f} G instructions, past what QEMU 11.1 cannot record")
            self._carry_out(saved, Request(saved.number + 1, "spin", spin_ns=further), saved.folder)

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
        """Restore a machine and give it a request; for `held`, `terminal` and `extra` see MachineConfig.

        If a device will be `plugged` into it, it is paused until `go_on`, on a copy of the RAM that the device's
        process can map too; otherwise it maps the snapshot's privately.
        """
        config = replace(snapshot.config(request), held=held, terminal=terminal, extra=extra)
        with contextlib.ExitStack() as stack:
            if plugged:
                size_bytes = snapshot.ram.stat().st_size
                ram = stack.enter_context(self.host.ledger.memory_file("ram", size_bytes))
                self._copy(snapshot.ram, ram)
                config = replace(config, ram=ram, shared=True, paused=True)
            yield stack.enter_context(Machine(self.host, self.qemu, folder, config))

    def _copy(self, ram: Path, into: Path) -> None:
        self.host.run(["cp", "--reflink=auto", "--sparse=always", str(ram), str(into)])

    def run(self, snapshot: Snapshot, request: Request, deadline_s: float) -> Reply:
        """Restore, wait for the reply, and end the machine; SetupError if the agent failed."""
        with (
            self.host.ledger.scratch_folder("machine") as folder,
            self.restore(snapshot, request, folder) as machine,
        ):
            return checked(machine.wait(deadline_s))

    def _save(self, machine: Machine, into: Path, reply: Reply) -> None:
        if not reply.ok and "unsupported" not in reply.facts:
            raise SetupError(f"the agent could not {machine.request.verb}", reply.problem.splitlines())
        file = into / "facts.json"
        facts = {**(json.loads(file.read_text()) if file.is_file() else {}), **reply.facts}
        if reply.ok:
            machine.save(into / "state.new")
            (into / "state.new").rename(into / "state")
            # Memory that the guest freed and zeroed takes no disk.
            self.host.run(["fallocate", "--dig-holes", str(into / "ram")], check=False)
        else:
            (into / "ram").unlink()
        file.write_text(json.dumps(facts, indent=1, sort_keys=True))

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
