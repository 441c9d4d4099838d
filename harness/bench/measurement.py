"""The result of a benchmark."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Measurement:
    """The base of every benchmark's result."""

    def plain(self) -> dict[str, object]:
        """Return JSON values for --json, in the order of the fields; the main ones may be at the top."""
        return asdict(self)


class Stopped(KeyboardInterrupt):
    """Ctrl-C stopped a long benchmark; `measurement` is of the part that was done."""

    def __init__(self, measurement: Measurement) -> None:
        super().__init__()
        self.measurement = measurement
