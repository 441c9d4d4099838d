"""What a measurement gives."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Figures:
    """The base of every measurement's figures."""

    def plain(self) -> dict[str, object]:
        """For --json, in the order of the fields; what is asked for most may stand at the top."""
        return asdict(self)


class Stopped(KeyboardInterrupt):
    """Ctrl-C came in the midst of a long measurement; `figures` are of what was done."""

    def __init__(self, figures: Figures) -> None:
        super().__init__()
        self.figures = figures
