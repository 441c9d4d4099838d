"""Everything that a run opens once: cache, ledger, archive, kernels, QEMU, snapshots."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from harness.debian import Archive
from harness.device.catalogue import find
from harness.errors import GuestError, HarnessError, SetupError
from harness.host import LocalHost
from harness.kernel.packages import Kernel, Kernels
from harness.ledger import Ledger
from harness.machine.image import ImageSpec
from harness.machine.qemu import Qemu, find_qemu, probe_accelerator
from harness.machine.snapshot import MachineFactory, Snapshot
from harness.plan.block_coverage import BlockCoverage
from harness.plan.checkout import files_below, find_folder
from harness.plan.options import Options
from harness.plan.prepare import check_options, prepare
from harness.store import Store, default_root
from harness.values.module import ModuleUse

PREPARE, CASE = 4, 6
"""Numbers of requests: each is higher than those of the snapshot that it goes to."""


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
        self._machines: MachineFactory | None = None
        self._qemu: Qemu | None = None
        self._blocks: BlockCoverage | None = None

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
    def machines(self) -> MachineFactory:
        """Snapshots of the chosen image."""
        if self._machines is None:
            self._machines = MachineFactory(self.archive, self.qemu, self.spec(), self.say)
        return self._machines

    def spec(self) -> ImageSpec:
        """Return the chosen image; UsageError if there is none of that name."""
        return ImageSpec.load(find_folder("vm-images", self.options.images) / f"{self.options.image}.toml")

    @property
    def blocks(self) -> BlockCoverage:
        """Which instructions of the modules `options.blocks` machines execute."""
        self._blocks = self._blocks or BlockCoverage(self.machines, self.options.blocks)
        return self._blocks

    def kernel(self, series: str, version: str = "") -> Kernel:
        """Return a kernel by series, release (then also of which package: Kernels.get) or tree; fetch it once."""
        if series not in self._kernels:
            self.say(f"kernel {series}")
            self._kernels[series] = self.kernels.get(series, version)
        return self._kernels[series]

    def fetched(self, series: str) -> Kernel | None:
        """Return a kernel that this session has fetched already."""
        return self._kernels.get(series)

    def accelerator(self, kernel: Kernel) -> tuple[str, str]:
        """Return the accelerator that works here, and why."""
        return probe_accelerator(self.qemu, kernel.vmlinuz, self.host, self.store)

    def prepared(
        self, series: str, device: str, clock: str, use: ModuleUse | None = None
    ) -> tuple[Kernel, Snapshot]:
        """Return a machine with the device up and traced, ready to restore, and its kernel.

        With `use` its payload disk has the kernel module. A preparation that failed is not tried again by this
        session: a boot that hangs takes minutes.
        """
        key = (series, device, clock, use)
        if key in self._failed:
            raise self._failed[key]
        try:
            return self._prepare(series, device, clock, use)
        except (GuestError, SetupError) as error:
            self._failed[key] = error
            raise

    def _prepare(
        self, series: str, device: str, clock: str, use: ModuleUse | None
    ) -> tuple[Kernel, Snapshot]:
        request = find(device).prepare(PREPARE)
        kernel = self.kernel(series)
        check_options(kernel, request.device)
        accelerator = "tcg" if clock == "exact" else self.accelerator(kernel)[0]
        shape = self.machines.shape(clock, accelerator)
        files = files_below(self.options.payload)
        return kernel, prepare(self.machines, kernel, shape, request, files, use)
