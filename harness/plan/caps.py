"""What a device can do on demand: as verbs report it in a restored machine, and as the card's firmware states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from harness.device.catalogue import find
from harness.errors import SetupError, Unsupported
from harness.plan.session import CASE, Session
from harness.values.case import Request
from harness.values.module import ModuleUse

DEADLINE_S = 180.0
ROWS = ("general", "rc", "uc", "ud", "xrc")


@dataclass(frozen=True)
class OdpCapabilities:
    """Words by row (`general` and the transports). `firmware` is by scheme and empty for a device without.

    `scheme` is the one the driver chose of those; `rdma_device` is what the machine calls the device. `module` is
    what the kernel module was told when it asked the device itself, by page (max, cur) and scheme; `no_module` says
    why it did not.
    """

    kernel: str
    device: str
    rdma_device: str
    verbs: dict[str, tuple[str, ...]]
    firmware: dict[str, dict[str, tuple[str, ...]]]
    scheme: str
    module: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    no_module: str = ""

    def plain(self) -> dict[str, object]:
        """For --json."""
        return asdict(self)


def ask(session: Session, series: str, name: str) -> OdpCapabilities:
    """Restore a machine, put the device in, and let verbs say what it can do."""
    device = find(name)
    use, no_module = (ModuleUse("off"), "") if device.plugged else (None, "only mlx5 cards have one")
    try:
        kernel, snapshot = session.prepared(series, name, device.clock, use)
    except (SetupError, Unsupported) as error:
        if use is None:
            raise
        # Where it cannot be built the rest can be said all the same.
        no_module = error.headline
        kernel, snapshot = session.prepared(series, name, device.clock)
    request = Request(CASE, "capabilities", name)
    with (
        session.ledger.scratch_folder("caps") as folder,
        device.around(session.host, kernel, folder) as presence,
    ):
        reply = session.offer(snapshot, request, folder, presence, DEADLINE_S)
        device_report = presence.report()
    if not reply.ok:
        raise SetupError(f"the agent failed: {reply.problem}", reply.output.splitlines()[-10:])
    verbs = {row: tuple(reply.facts.get(_fact(row), "").split()) for row in ROWS}
    firmware = device.firmware_odp(kernel)
    scheme = "memory" if device_report.counters.get("odp.memory_scheme") else next(iter(firmware), "")
    return OdpCapabilities(
        kernel.release,
        name,
        reply.facts.get("device", ""),
        verbs,
        firmware,
        scheme,
        _module(reply.facts),
        no_module,
    )


def _module(facts: Mapping[str, str]) -> dict[str, dict[str, tuple[str, ...]]]:
    """The rows of `module.max.transport.rc` and its like, by "max.transport" and so on."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for name, words in facts.items():
        parts = name.split(".")
        if parts[0] == "module" and len(parts) == 4:
            found.setdefault(".".join(parts[1:3]), {})[parts[3]] = tuple(words.split())
    return found


def _fact(row: str) -> str:
    return "odp" if row == "general" else f"odp.{row}"
