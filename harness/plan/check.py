"""Check keys and values of a plan file against the table of keys (plan/schema.py)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from harness.errors import UsageError
from harness.plan.schema import COUNTERS, RENAMED_VALUES, SCHEMA, Key, renamed
from harness.plan.source import Source

_TABLES = "|".join(table.removeprefix("expect.") for table in COUNTERS)
_COUNTER = re.compile(rf"expect\.({_TABLES})\.[a-z][a-z_]*(\.[A-Za-z0-9_ ]+)*$")
"""A counter of the card, of the kernel module or of the trace, by its dotted name."""

_LATENCY = re.compile(r"expect\.latency\.([a-z_]+)_(p50|p90|p99|max)(_exact|_real)?_ns$")
MAX_LISTED = 30
"""Maximum number of names that an error lists."""


def check(source: Source, key: str, value: Any, nth: int = 0) -> None:
    """Raise UsageError for a key that does not exist, or for a value that it cannot have."""
    for pattern, kind in ((_LATENCY, "a bound in nanoseconds"), (_COUNTER, "a count")):
        if pattern.match(key):
            if not isinstance(value, int) or isinstance(value, bool):
                raise source.error(key, f"{kind}, not {value!r}")
            return
    known = SCHEMA.get(key)
    if known is None:
        check_renamed(source, key, nth)
        siblings = {k.removeprefix(key.rpartition(".")[0] + ".").split(".")[0] for k in _siblings(key)}
        raise source.error(key, "unknown key", siblings, nth)
    if known.items:
        if not isinstance(value, list) or not value:
            raise source.error(key, f"a list of at least one, not {value!r}", nth=nth)
        for item in value:
            _check_value(source, key, key, known, item, nth)
    else:
        _check_value(source, key, key, known, value, nth)


def check_renamed(source: Source, key: str, nth: int = 0) -> None:
    """Raise UsageError with the present name of an older key."""
    present = renamed(key)
    if present:
        raise source.error(key, f"is called {present} now", nth=nth)


def check_entry(source: Source, table: str, keys: Mapping[str, Key], entry: Mapping[str, Any]) -> None:
    """Check a table that has keys of its own; "" is the file's first one."""
    for name, value in entry.items():
        key = f"{table}.{name}" if table else name
        if name not in keys:
            raise source.error(key, "unknown key", keys)
        _check_value(source, key, key, keys[name], value)


def check_axis(source: Source, key: str, target: str, values: Any) -> None:
    """Check a matrix axis: a list of values that `target` may have."""
    check_renamed(source, key)
    if not isinstance(values, list) or not values:
        raise source.error(key, f"a list of at least one, not {values!r}")
    if target not in SCHEMA or not target.startswith(("workload.", "page_loss.")):
        names = [name.split(".", 1)[1] for name in SCHEMA if name.startswith(("workload.", "page_loss."))]
        raise source.error(key, "no key of [workload] or [page_loss] to vary", names)
    for value in values:
        _check_value(source, key, target, SCHEMA[target], value)


def _check_value(source: Source, key: str, target: str, known: Key, value: Any, nth: int = 0) -> None:
    """Check one value; `target` is the key of the table, which a matrix axis calls `key`."""
    if not isinstance(value, known.kind) or (known.kind is int and isinstance(value, bool)):
        raise source.error(key, f"expected {known.kind.__name__}, not {value!r}", nth=nth)
    if known.names and value not in known.names:
        present = RENAMED_VALUES.get((target, str(value)))
        if present:
            raise source.error(key, f"{value!r} is called {present!r} now", nth=nth)
        raise _no_such_name(source, key, known, value, nth)
    if isinstance(value, int) and known.kind is int and not known.low <= value <= known.high:
        raise source.error(key, f"{value} is not in {known.low}..{known.high}", nth=nth)


def _no_such_name(source: Source, key: str, known: Key, value: Any, nth: int) -> UsageError:
    names = [str(name) for name in known.names]
    close = difflib.get_close_matches(str(value), names, 1, 0.4)
    listed = ", ".join(names[:MAX_LISTED])
    if len(names) > MAX_LISTED:
        listed = f"the {len(names)} names that `odp-harness plan-format` lists"
    error = source.error(key, f"{value!r} is none of {listed}", nth=nth)
    return UsageError(error.headline, error.evidence, f"{close[0]!r}?" if close else "")


def _siblings(key: str) -> list[str]:
    parent = key.rpartition(".")[0]
    return [name for name in SCHEMA if name.startswith(parent + ".") or not parent]
