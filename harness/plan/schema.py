"""What a plan file may say: a table of keys with their types, ranges and defaults, and errors with a line."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.device.catalogue import DEVICES
from harness.errors import UsageError
from harness.kernel.packages import SERIES
from harness.values.case import IOVAS, LOSSES, MAPPINGS, OPERATIONS, PROTS, SIDES
from harness.values.rule import EVENT_SIDES, KINDS, LISTS, OBJECTS, REGION_SIDES, SINCE

PAGE_BYTES = 4096
MAX_BYTES = 256 << 20
# Of a region of which little is touched.
MAX_SPARSE_BYTES = 64 << 30


@dataclass(frozen=True)
class Key:
    """One key of a plan: its type, and the values it may have (names, or an inclusive range of numbers)."""

    kind: type
    names: tuple[str | int, ...] = ()
    low: int = 0
    high: int = 1 << 62
    items: bool = False


# `lost`: whichever of the two loses pages.
REGIONS = ("local", "remote", "lost")
REASONS = ("law", "data", "console", "leak", "latency", "workload", "hang", "finding", "rule")
ENDS = ("done", "fails", "any")

_REGION = {
    "offset": Key(int, high=PAGE_BYTES - 1),
    "mapping": Key(str, MAPPINGS),
    "iova": Key(str, IOVAS),
    "odp": Key(bool),
    "prot": Key(str, PROTS),
}

_RULE = {
    "kind": Key(str, tuple(KINDS)),
    "nth": Key(int, low=1, high=1 << 20),
    "every": Key(int, low=1, high=1 << 20),
    "count": Key(int, high=1 << 20),
    "percent": Key(int, low=1, high=100),
    "seed": Key(int, high=1 << 30),
    "side": Key(str, EVENT_SIDES[1:]),
    "region": Key(str, REGION_SIDES[1:]),
    "page": Key(int, high=MAX_BYTES // PAGE_BYTES),
    "pages": Key(int, low=1, high=MAX_BYTES // PAGE_BYTES),
    "umr": Key(str, LISTS[1:]),
    "opcode": Key(str),
    "object": Key(str, OBJECTS[1:]),
    "since": Key(str, SINCE),
    "delay_ms": Key(int, low=1, high=120_000),
    "events": Key(int, low=1, high=4096),
    "status": Key(int, low=1, high=255),
    "syndrome": Key(int, high=(1 << 32) - 1),
    "pre": Key(int, high=(1 << 16) - 1),
    "post": Key(int, high=(1 << 16) - 1),
    "optional": Key(bool),
}

SCHEMA: dict[str, Key] = {
    "title": Key(str),
    "needs": Key(str, items=True),
    "clock": Key(str, ("exact", "real")),
    "deadline_s": Key(int, low=1, high=90_000),
    "matrix.kernel": Key(str, tuple(SERIES), items=True),
    "matrix.device": Key(str, tuple(DEVICES), items=True),
    "workload.operation": Key(str, tuple(OPERATIONS)),
    "workload.rounds": Key(int, low=1, high=100_000),
    "workload.pages": Key(int, low=1, high=MAX_BYTES // PAGE_BYTES),
    "workload.length": Key(int, low=1, high=MAX_SPARSE_BYTES),
    "workload.mtu": Key(int, (256, 512, 1024, 2048, 4096)),
    "workload.seconds": Key(int, low=1, high=86_400),
    "workload.seed": Key(int, high=1 << 20),
    "workload.timeout_s": Key(int, low=1, high=600),
    "workload.trace": Key(bool),
    **{f"workload.{side}.{key}": value for side in REGIONS for key, value in _REGION.items()},
    "faults.how": Key(str, LOSSES),
    "faults.side": Key(str, SIDES),
    "expect.laws": Key(bool),
    "expect.conservation": Key(bool),
    "expect.data": Key(bool),
    "expect.console": Key(str, ("clean", "any")),
    "expect.leaks": Key(bool),
    "expect.findings": Key(bool),
    "expect.faults": Key(int),
    "expect.workload": Key(str, ENDS),
    "expect.problem": Key(str),
    "expect.refused": Key(str),
    "expect.found": Key(str, items=True),
    "expect.may_find": Key(str, items=True),
    "expect.log": Key(str, items=True),
    "known.kernel": Key(str, tuple(name for name in SERIES if name != "newest"), items=True),
    "known.device": Key(str, tuple(DEVICES), items=True),
    "known.kinds": Key(str, REASONS, items=True),
    "known.says": Key(str, items=True),
    "known.text": Key(str),
    "known.sometimes": Key(bool),
    **{f"rules.{key}": value for key, value in _RULE.items()},
}

SCHEMA.update({f"full.{key}": SCHEMA[key] for key in ("workload.rounds", "workload.seconds", "deadline_s")})

_CARD = re.compile(r"expect\.(card|card_most|module|least)\.[a-z][a-z_]*(\.[A-Za-z0-9_ ]+)*$")
"""A counter of the card, of the kernel module or of the trace, by its dotted name."""

_LATENCY = re.compile(r"expect\.latency\.([a-z_]+)_(p50|p90|p99|max)(_exact|_real)?_ns$")


@dataclass(frozen=True)
class Source:
    """A plan file's text, for errors that point into it."""

    path: Path
    text: str

    def error(self, key: str, problem: str, candidates: Iterable[str] = (), nth: int = 0) -> UsageError:
        """An error at the line of `key`, with the nearest of the candidates; `nth` counts tables [[of]] one name."""
        near = difflib.get_close_matches(key.rsplit(".", 1)[-1], list(candidates), 1, 0.5)
        line = self.line(key, nth)
        excerpt = self.text.splitlines()[line - 1].strip() if line else ""
        return UsageError(
            f"{self.path}:{line or 1}: {key}: {problem}",
            [excerpt] if excerpt else [],
            f"{near[0]!r}?" if near else "",
        )

    def line(self, key: str, nth: int = 0) -> int:
        """The line that sets a dotted key (or opens its table), 0 if none does.

        `nth` (from 1) says in which of several tables [[of the key's first name]].
        """
        table, best, seen = "", 0, 0
        for number, line in enumerate(self.text.splitlines(), 1):
            header = re.match(r"\s*\[\[?\s*([^\]]+?)\s*\]\]?", line)
            if header:
                table = header.group(1).replace('"', "") + "."
                opens = key.startswith(table) or key + "." == table
                seen += opens
                if nth and seen != nth:
                    table = "another table."
                elif opens:
                    best = number
                continue
            assigned = re.match(r"\s*([\w.\"-]+)\s*=", line)
            if assigned and table + assigned.group(1).replace('"', "") == key:
                return number
        return best


def read(path: Path) -> tuple[Source, dict[str, Any]]:
    """Parse a plan file; UsageError with the line if it cannot be read or is not TOML."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from error
    try:
        return Source(path, text), tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        raise UsageError(f"{path}:{found.group(1) if found else 1}: not TOML: {error}") from error


def flatten(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys; lists stay."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        key = prefix + name
        if isinstance(value, dict):
            flat.update(flatten(value, key + "."))
        else:
            flat[key] = value
    return flat


def check(source: Source, key: str, value: Any, nth: int = 0) -> None:
    """Raise the error of a key that does not exist or of a value that it cannot have."""
    for pattern, what in ((_LATENCY, "a bound in nanoseconds"), (_CARD, "a count")):
        if pattern.match(key):
            if not isinstance(value, int) or isinstance(value, bool):
                raise source.error(key, f"{what}, not {value!r}")
            return
    known = SCHEMA.get(key)
    if known is None:
        siblings = {k.removeprefix(key.rpartition(".")[0] + ".").split(".")[0] for k in _siblings(key)}
        raise source.error(key, "unknown key", siblings, nth)
    if known.items:
        if not isinstance(value, list) or not value:
            raise source.error(key, f"a list of at least one, not {value!r}", nth=nth)
        for item in value:
            _check_one(source, key, known, item, nth)
    else:
        _check_one(source, key, known, value, nth)


def check_entry(source: Source, table: str, keys: Mapping[str, Key], entry: Mapping[str, Any]) -> None:
    """Check a table that has keys of its own; "" is the file's first one."""
    for name, value in entry.items():
        key = f"{table}.{name}" if table else name
        if name not in keys:
            raise source.error(key, "unknown key", keys)
        _check_one(source, key, keys[name], value)


def check_axis(source: Source, key: str, target: str, values: Any) -> None:
    """Check a matrix axis: a list of values that `target` may have."""
    if not isinstance(values, list) or not values:
        raise source.error(key, f"a list of at least one, not {values!r}")
    if target not in SCHEMA or not target.startswith(("workload.", "faults.")):
        names = [name.split(".", 1)[1] for name in SCHEMA if name.startswith(("workload.", "faults."))]
        raise source.error(key, "no key of [workload] or [faults] to vary", names)
    for value in values:
        _check_one(source, key, SCHEMA[target], value)


def _check_one(source: Source, key: str, known: Key, value: Any, nth: int = 0) -> None:
    if not isinstance(value, known.kind) or (known.kind is int and isinstance(value, bool)):
        raise source.error(key, f"expected {known.kind.__name__}, not {value!r}", nth=nth)
    if known.names and value not in known.names:
        near = difflib.get_close_matches(str(value), map(str, known.names), 1, 0.4)
        error = source.error(key, f"{value!r} is none of {', '.join(map(str, known.names))}", nth=nth)
        raise UsageError(error.headline, error.evidence, f"{near[0]!r}?" if near else "")
    if isinstance(value, int) and known.kind is int and not known.low <= value <= known.high:
        raise source.error(key, f"{value} is not in {known.low}..{known.high}", nth=nth)


def _siblings(key: str) -> list[str]:
    parent = key.rpartition(".")[0]
    return [name for name in SCHEMA if name.startswith(parent + ".") or not parent]
