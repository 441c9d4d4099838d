"""The expectations of a plan on a case, and the known failures of stock kernels."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.values.record import Reason


@dataclass(frozen=True)
class Expect:
    """The table [expect] of a plan; plan/schema.py has the meaning of each key.

    `latency` bounds are {"fault_p99_ns": maximum}.
    """

    counts: bool = True
    conservation: bool = True
    data: bool = True
    console: str = "clean"
    leaks: bool = True
    findings: bool = True
    faults: int | None = None
    workload: str = "done"
    problem: str = ""
    found: tuple[str, ...] = ()
    may_find: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    card: dict[str, int] = field(default_factory=dict)
    card_max: dict[str, int] = field(default_factory=dict)
    module: dict[str, int] = field(default_factory=dict)
    refused: str = ""
    at_least: dict[str, int] = field(default_factory=dict)
    latency: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Known:
    """A defect of stock kernels: on these series the case fails, for reasons of these kinds only, and must.

    Each reason has one of the texts `message` in it (any, without). The defect is a driver's, so it counts on
    `devices` only (empty: all). One that shows only `sometimes` need not.
    """

    kernels: tuple[str, ...]
    kinds: tuple[str, ...]
    text: str
    devices: tuple[str, ...] = ()
    sometimes: bool = False
    message: tuple[str, ...] = ()

    def excuses(self, reason: Reason) -> bool:
        """Return whether the defect shows as this reason."""
        return reason.kind in self.kinds and (
            not self.message or any(text in reason.text for text in self.message)
        )

    def applies(self, release: str, device: str) -> bool:
        """Return whether a case on this release and device is to show it."""
        ours = release.startswith(tuple(f"{series}." for series in self.kernels))
        return ours and device in (self.devices or (device,))
