"""The options of a run, as one table for both faces: `odp-harness run` and pytest; and what they give a session."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.errors import UsageError
from harness.machine.exec_log import Offsets
from harness.store import parse_size

KERNEL = "a series, an exact release, or the folder of a kernel tree that is built"
RESUME = "go on with what was stopped, in its folder of results; the rest of the command as it was"


def size_bytes(text: str) -> int:
    """Parse a size for argparse, as 30G."""
    try:
        return parse_size(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(f"{error.headline}: {error.hint}") from error


@dataclass(frozen=True)
class Option:
    """One option: a flag, one value, or a list (given any number of times). `parse` makes a value of its text."""

    name: str
    help: str
    kind: Literal["flag", "value", "list"] = "value"
    metavar: str | None = None
    parse: Callable[[str], Any] = str
    choices: Sequence[str] | None = None
    default: Any = None

    @property
    def key(self) -> str:
        """The attribute that holds it."""
        return self.name.removeprefix("--").replace("-", "_")

    def add(self, add: Callable[..., object]) -> None:
        """Declare it: to `add_argument` of argparse or to `addoption` of pytest."""
        if self.kind == "flag":
            add(self.name, action="store_true", help=self.help)
            return
        keywords: dict[str, Any] = {"help": self.help, "type": self.parse, "metavar": self.metavar}
        keywords["default"] = [] if self.kind == "list" else self.default
        if self.kind == "list":
            keywords["action"] = "append"
        if self.choices:
            keywords["choices"] = self.choices
        add(self.name, **keywords)

    def arguments(self, value: Any) -> list[str]:
        """Return the arguments that give it this value; none for its default."""
        if self.kind == "flag":
            return [self.name] if value else []
        values = value or [] if self.kind == "list" else [value]
        return [f"{self.name}={one}" for one in values if one is not None]


SESSION_OPTIONS = (
    Option(
        "--cache",
        "cache folder (default: $ODP_HARNESS_CACHE, else ~/.cache/odp-harness)",
        metavar="DIR",
        parse=Path,
    ),
    Option("--cache-limit", "size of the cache (default: 30G)", metavar="SIZE", parse=size_bytes),
    Option("--mirror", "Debian archive (default: what the host's apt uses)", metavar="URL"),
    Option(
        "--vm-images",
        "folder of the userlands (default: vm-images/ of the checkout)",
        metavar="DIR",
        parse=Path,
    ),
    Option("--image", "userland: a file of vm-images/, without .toml", metavar="NAME", default="trixie"),
)
"""Where everything comes from and is kept; every verb has them."""

RESULTS_OPTIONS = (
    Option("--results", "folder of the records (default: odp-results/TIME)", metavar="DIR", parse=Path),
    Option("--resume", RESUME, metavar="DIR", parse=Path),
)
"""One or the other."""

RUN_OPTIONS = (
    Option(
        "--kernel", f"{KERNEL} (default newest); `all`: the series of each plan", "list", metavar="KERNEL"
    ),
    Option("--device", "run on these devices only", "list", metavar="DEVICE"),
    Option(
        "--time", "clock of the machines (default: the plan's, else the device's)", choices=("exact", "real")
    ),
    Option("--icount", "machines with a card count instructions, and wait in real time", "flag"),
    Option("--twice", "run each exact case twice; the answers must be equal to the nanosecond", "flag"),
    Option(
        "--cut",
        "only N cases of each plan, kernel and device, far apart in the matrix",
        metavar="N",
        parse=int,
        default=0,
    ),
    Option(
        "--seeds", "run each case N times, its start shifted by a seed", metavar="N", parse=int, default=0
    ),
    Option("--ruled-once", "with --seeds: one run only of each case with injection rules", "flag"),
    Option(
        "--payload",
        "modules/NAME.ko there replaces the kernel's own, in each machine",
        metavar="DIR",
        parse=Path,
    ),
    Option("--blocks", "keep beside each record which instructions of MODULE ran", "list", metavar="MODULE"),
    Option("--no-skip", "a missing need is a failure, not a skip", "flag"),
)
"""Which cases run, and how."""

OPTIONS = (*RUN_OPTIONS, *RESULTS_OPTIONS, *SESSION_OPTIONS)
"""All options of `odp-harness run` that are not pytest's own, and all options of the pytest plugin."""


def arguments(values: Mapping[str, Any]) -> list[str]:
    """Return the arguments that give options their values; KeyError for a value that is of no option."""
    unknown = set(values) - {option.key for option in OPTIONS}
    if unknown:
        raise KeyError(f"no option {', '.join(sorted(unknown))}")
    return [word for option in OPTIONS for word in option.arguments(values.get(option.key))]


@dataclass(frozen=True)
class Options:
    """The choices of a session; None is the default. `payload` is a folder of files for each machine.

    `blocks` names modules whose executed instructions are kept (machine/exec_log.py).
    """

    cache: Path | None = None
    cache_limit_bytes: int | None = None
    mirror: str | None = None
    image: str = "trixie"
    images: Path | None = None
    payload: Path | None = None
    blocks: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: Any) -> Options:
        """Return the choices of parsed SESSION_OPTIONS, of argparse or of pytest."""
        return cls(values.cache, values.cache_limit, values.mirror, values.image, values.vm_images)


@dataclass
class Logs:
    """The logs of a case: the machine's console, and a card's conversation (gzip; empty if none).

    `blocks` are the executed instructions of the requested modules (plan/block_coverage.py).
    """

    console: str = ""
    card: bytes = b""
    blocks: Offsets | None = None

    def fill(self, other: Logs) -> None:
        """Take the content of other logs."""
        self.console, self.card, self.blocks = other.console, other.card, other.blocks
