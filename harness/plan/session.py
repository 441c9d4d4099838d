"""All that running cases needs, opened once: cache, archive, QEMU, snapshots. From a planned case to its record."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from harness.debian import Archive
from harness.device import AttachedDevice
from harness.device.catalogue import DEVICES, find
from harness.errors import GuestError, Hang, HarnessError, SetupError, Unsupported, UsageError
from harness.host import LocalHost
from harness.kernel import config
from harness.kernel.packages import Kernel, Kernels
from harness.ledger import Ledger
from harness.machine.console import scan
from harness.machine.image import ImageSpec
from harness.machine.qemu import Qemu, find_qemu, probe_accelerator
from harness.machine.snapshot import MachineFactory, Snapshot
from harness.machine.vm import Machine
from harness.plan import environment, module
from harness.plan.answer_diff import first_difference
from harness.plan.block_coverage import BlockCoverage
from harness.plan.checkout import files_below, find_folder
from harness.plan.options import Logs, Options
from harness.plan.plan import Planned
from harness.plan.verdict import Evidence, judge
from harness.store import Store, default_root
from harness.values.answer import Answer, Reply
from harness.values.case import Request
from harness.values.module import ModuleUse
from harness.values.record import DeviceReport, Reason, Record

PREPARE, CASE = 4, 6


class Session:
    """A context manager; `say` takes a line of progress on long work."""

    def __init__(self, options: Options, say: Callable[[str], None] = lambda line: None) -> None:
        self.options = options
        self.say = say
        limit = {} if options.cache_limit_bytes is None else {"limit_bytes": options.cache_limit_bytes}
        self.store = Store(options.cache or default_root(), **limit)
        self.ledger = Ledger(self.store.root / "runs")
        self.store.sweep()
        self.host = LocalHost(self.ledger)
        self.archive = Archive(self.store, self.host, options.mirror)
        self.kernels = Kernels(self.archive)
        self._kernels: dict[str, Kernel] = {}
        self._failed: dict[tuple[str, str, str, ModuleUse | None], HarnessError] = {}
        self._studio: MachineFactory | None = None
        self._qemu: Qemu | None = None
        self._ran: BlockCoverage | None = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything that the session started."""
        self.ledger.close()
        self.store.close()

    @property
    def qemu(self) -> Qemu:
        """The QEMU to use, found or fetched at first use."""
        if self._qemu is None:
            self.say("looking for QEMU")
            self._qemu = find_qemu(self.archive)
        return self._qemu

    @property
    def studio(self) -> MachineFactory:
        """Snapshots of the chosen image."""
        if self._studio is None:
            spec = ImageSpec.load(
                find_folder("vm-images", self.options.images) / f"{self.options.image}.toml"
            )
            self._studio = MachineFactory(self.archive, self.qemu, spec, self.say)
        return self._studio

    @property
    def ran(self) -> BlockCoverage:
        """Which instructions of the modules `options.blocks` machines run."""
        self._ran = self._ran or BlockCoverage(self.studio, self.options.blocks)
        return self._ran

    def kernel(self, series: str, version: str = "") -> Kernel:
        """A kernel by series, release (then also of which package: Kernels.get) or tree, fetched at first use."""
        if series not in self._kernels:
            self.say(f"kernel {series}")
            self._kernels[series] = self.kernels.get(series, version)
        return self._kernels[series]

    def accelerator(self, kernel: Kernel) -> tuple[str, str]:
        """The accelerator that works here, and why."""
        return probe_accelerator(self.qemu, kernel.vmlinuz, self.host, self.store)

    def prepared(
        self, series: str, device: str, clock: str, use: ModuleUse | None = None
    ) -> tuple[Kernel, Snapshot]:
        """A machine with the device up and traced, ready to restore; with the kernel module in its parcel if used.

        What could not be prepared once is not tried again by this session: a boot that hangs takes minutes.
        """
        wanted = (series, device, clock, use)
        if wanted in self._failed:
            raise self._failed[wanted]
        try:
            return self._prepare(series, device, clock, use)
        except (GuestError, SetupError) as error:
            self._failed[wanted] = error
            raise

    def _prepare(
        self, series: str, device: str, clock: str, use: ModuleUse | None
    ) -> tuple[Kernel, Snapshot]:
        request = find(device).prepare(PREPARE)
        kernel = self.kernel(series)
        _check_options(kernel, request.device)
        accelerator = "tcg" if clock == "exact" else self.accelerator(kernel)[0]
        shape = self.studio.shape(clock, accelerator)
        files = files_below(self.options.parcel)
        if use is None:
            return kernel, self.studio.prepared(kernel, shape, request, files)
        return kernel, module.prepared(self.studio, kernel, shape, request, files, use)

    def run(self, planned: Planned, twice: bool = False, no_skip: bool = False) -> tuple[Record, Logs]:
        """Run one case; returns its record and what was said meanwhile."""
        began, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
        record = Record(planned.plan.name, planned.case, "error", started=started)
        logs = Logs()
        try:
            case = planned.case
            try:
                kernel, snapshot = self.prepared(planned.kernel, case.device, planned.clock, case.module)
            finally:
                record = dataclasses.replace(record, environment=self._begun(planned))
            told = environment.prepared(snapshot, self.qemu.version, self.studio.image.digest)
            record = dataclasses.replace(record, environment={**record.environment, **told})
            _check_needs(planned, snapshot)
            record = self._execute(record, planned, kernel, snapshot, twice, logs)
        except Unsupported as error:
            verdict = "fail" if no_skip else "skip"
            record = dataclasses.replace(record, verdict=verdict, reasons=(Reason("need", error.headline),))
        except UsageError:
            raise
        except GuestError as error:
            # Before any case, at boot or in preparation: the error holds what the console said.
            logs.console = "\n".join(error.evidence)
            record = dataclasses.replace(
                record, verdict="fail", reasons=(_reason(error),), symptoms=scan(error.evidence)
            )
        except SetupError as error:
            record = dataclasses.replace(record, reasons=(Reason("setup", error.render()),))
        return dataclasses.replace(record, wall_s=round(time.monotonic() - began, 3)), logs

    def _execute(
        self, record: Record, planned: Planned, kernel: Kernel, snapshot: Snapshot, twice: bool, logs: Logs
    ) -> Record:
        run = self._once(planned, kernel, snapshot, logs)
        if run.answer is not None and run.answer.status == "unsupported":
            raise Unsupported(run.answer.problem)
        failures = run.failures
        if twice and planned.clock == "exact" and run.answer is not None:
            difference = first_difference(run.answer, self._once(planned, kernel, snapshot, Logs()).answer)
            if difference:
                failures += (Reason("exact", f"a second run answered differently: {difference}"),)
        device = DEVICES[planned.case.device]
        lines = logs.console.splitlines()
        seen = Evidence(
            kernel.release,
            run.answer,
            scan(lines),
            run.device_report,
            failures,
            device.scheme(kernel),
            tuple(lines),
            device.firmware_odp(kernel) if planned.case.module else {},
        )
        verdict, reasons = judge(planned, seen)
        return dataclasses.replace(
            record,
            verdict=verdict,
            reasons=reasons,
            answer=seen.answer,
            symptoms=seen.symptoms,
            device_report=seen.device_report,
        )

    def _once(self, planned: Planned, kernel: Kernel, snapshot: Snapshot, logs: Logs) -> _Run:
        """One restore, one answer; a kernel that failed gives a reason instead. `logs` is filled in any case."""
        device = DEVICES[planned.case.device]
        request = case_order(planned, kernel)
        run = _Run()
        with self.ledger.scratch_folder("case") as folder:
            try:
                with device.around(self.host, kernel, folder) as presence:
                    try:
                        presence.arm(planned.case.rules)
                        reply = self.offer(snapshot, request, folder, presence, planned.deadline_s)
                        run.answer = _answer(reply)
                    except GuestError as error:
                        run.failures = (_reason(error),)
                    run.device_report = presence.report()
            finally:
                logs.console = _content(folder / "console").decode(errors="replace")
                logs.card = _content(folder / device.log) if device.log else b""
                logs.blocks = self.ran.read(snapshot, folder)
        return run

    def lend(
        self,
        kernel: Kernel,
        snapshot: Snapshot,
        request: Request,
        terminal: bool = False,
        look: Callable[[Machine], None] = lambda machine: None,
    ) -> Reply:
        """A machine with its device for as long as the order takes, perhaps on this terminal; `look` as in offer."""
        device = DEVICES[request.device]
        with (
            self.ledger.scratch_folder(request.verb) as folder,
            device.around(self.host, kernel, folder) as presence,
        ):
            return self.offer(snapshot, request, folder, presence, math.inf, terminal, look)

    def offer(
        self,
        snapshot: Snapshot,
        request: Request,
        folder: Path,
        presence: AttachedDevice,
        deadline_s: float,
        terminal: bool = False,
        look: Callable[[Machine], None] = lambda machine: None,
    ) -> Reply:
        """Restore a machine, put the device in, wait for the reply. A device that died first is the error.

        `look` is called with the machine all the time that it is waited for, and once at the reply.
        """
        plugged = DEVICES[request.device].plugged
        try:
            extra = self.ran.options(snapshot, folder)
            with self.studio.restore(
                snapshot, request, folder, plugged=plugged, terminal=terminal, extra=extra
            ) as machine:

                def tick() -> None:
                    presence.check()
                    look(machine)

                presence.plug(machine)
                reply = machine.wait(deadline_s, tick)
                presence.settle()
                return reply
        except SetupError:
            presence.check()
            raise

    def _begun(self, planned: Planned) -> dict[str, str]:
        kernel = self._kernels.get(planned.kernel)
        return environment.begun(kernel, planned, files_below(self.options.parcel)) if kernel else {}


def case_order(planned: Planned, kernel: Kernel) -> Request:
    """What a prepared machine is told of a case."""
    case = dataclasses.replace(planned.case, scheme=DEVICES[planned.case.device].scheme(kernel))
    return Request(CASE, "case", case.device, case)


@dataclasses.dataclass
class _Run:
    """What one restore gave."""

    answer: Answer | None = None
    device_report: DeviceReport = dataclasses.field(default_factory=DeviceReport)
    failures: tuple[Reason, ...] = ()


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _answer(reply: Reply) -> Answer | None:
    if not reply.ok:
        raise SetupError(f"the agent failed: {reply.problem}", reply.output.splitlines()[-10:])
    return reply.answer


def _reason(error: GuestError) -> Reason:
    """A failed kernel as one line; its whole report is in the record's symptoms and in the console's log."""
    kind = "hang" if isinstance(error, Hang) else "console"
    return Reason(kind, error.line)


def _check_options(kernel: Kernel, device: str) -> None:
    """A tree's kernel need not have every driver."""
    lacks = config.lacking_for(device, config.read(kernel.configuration)) if kernel.tree else ()
    if lacks:
        hint = f"{config.commands(lacks)} in {kernel.tree}"
        raise Unsupported(f"{kernel.release} lacks {', '.join(map(str, lacks))}", (), hint)


def _check_needs(planned: Planned, snapshot: Snapshot) -> None:
    """Needs are dotted names: `odp.rc.write` asks that fact `odp.rc` lists `write`."""
    for need in planned.plan.needs:
        fact, _, word = need.rpartition(".")
        if DEVICES[planned.case.device].plugged:
            continue  # what a card can do is known to the machine only once it is plugged
        if word not in snapshot.facts.get(fact, "").split():
            has = snapshot.facts.get(fact, "nothing")
            raise Unsupported(f"needs {need}; {planned.case.device} on this kernel has {fact}: {has}")
