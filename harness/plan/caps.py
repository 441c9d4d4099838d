"""On-demand paging capabilities: as verbs report them in a restored machine, and as the card's firmware states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from harness.agent import checked
from harness.device.catalogue import find
from harness.errors import SetupError, Unsupported
from harness.plan.session import CASE, Session
from harness.plan.target import VmTarget
from harness.values.case import Request
from harness.values.module import ModuleUse

DEADLINE_S = 180.0
ROWS = ("general", "rc", "uc", "ud", "xrc")


@dataclass(frozen=True)
class OdpCapabilities:
    """Capability words by row (`general` and the transports).

    `firmware` is by scheme, and empty for a device without firmware; `scheme` is the one that the driver chose.
    `rdma_device` is the device's name in the machine. `module` has the words that the kernel module read from the
    device itself, by page (max, cur) and scheme; `no_module` is the reason why it could not.
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
    """Restore a machine, plug the device in, and query its capabilities."""
    device = find(name)
    use, no_module = (ModuleUse("off"), "") if device.plugged else (None, "only mlx5 cards have one")
    try:
        kernel, snapshot = session.prepared(series, name, device.clock, use)
    except (SetupError, Unsupported) as error:
        if use is None:
            raise
        # The other columns do not need it.
        no_module = error.headline
        kernel, snapshot = session.prepared(series, name, device.clock)
    request = Request(CASE, "capabilities", name)
    with VmTarget(session, kernel, snapshot, name, "caps") as target:
        reply = target.offer(request, DEADLINE_S)
        device_report = target.report()
    checked(reply)
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
    """Return the facts `module.max.transport.rc` and the like, by "max.transport" and so on."""
    rows: dict[str, dict[str, tuple[str, ...]]] = {}
    for name, words in facts.items():
        parts = name.split(".")
        if parts[0] == "module" and len(parts) == 4:
            rows.setdefault(".".join(parts[1:3]), {})[parts[3]] = tuple(words.split())
    return rows


def _fact(row: str) -> str:
    return "odp" if row == "general" else f"odp.{row}"
