"""What a session is given, and what a case leaves besides its record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.machine.exec_log import Offsets


@dataclass(frozen=True)
class Options:
    """What the user may choose for a session; None is the default. `parcel` is a folder of files for each machine.

    `blocks` names modules of which it is kept which instructions ran (machine/exec_log.py).
    """

    cache: Path | None = None
    cache_limit_bytes: int | None = None
    mirror: str | None = None
    image: str = "trixie"
    images: Path | None = None
    parcel: Path | None = None
    blocks: tuple[str, ...] = ()


@dataclass
class Logs:
    """What was said while a case ran: the machine's console, and a card's conversation (gzip; empty if none).

    `blocks` is what ran of the modules that were asked for (plan/block_coverage.py).
    """

    console: str = ""
    card: bytes = b""
    blocks: Offsets | None = None

    def fill(self, other: Logs) -> None:
        """Take the content of other logs."""
        self.console, self.card, self.blocks = other.console, other.card, other.blocks
