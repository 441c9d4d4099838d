"""The text of a plan file: read as TOML, and searched for the line of a key."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UsageError


@dataclass(frozen=True)
class Source:
    """A plan file's text, for errors that point into it."""

    path: Path
    text: str

    def error(self, key: str, problem: str, candidates: Iterable[str] = (), nth: int = 0) -> UsageError:
        """Return an error at the line of `key`, with the nearest candidate as the hint.

        `nth` (from 1) counts tables [[of]] one name.
        """
        close = difflib.get_close_matches(key.rsplit(".", 1)[-1], list(candidates), 1, 0.5)
        line = self.line(key, nth)
        excerpt = self.text.splitlines()[line - 1].strip() if line else ""
        return UsageError(
            f"{self.path}:{line or 1}: {key}: {problem}",
            [excerpt] if excerpt else [],
            f"{close[0]!r}?" if close else "",
        )

    def line(self, key: str, nth: int = 0) -> int:
        """Return the line that sets a dotted key or opens its table, 0 if none does.

        `nth` (from 1) chooses one of several tables [[of the key's first name]].
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
        position = re.search(r"line (\d+)", str(error))
        raise UsageError(f"{path}:{position.group(1) if position else 1}: not TOML: {error}") from error


def flatten(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as dotted keys; lists stay."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        key = prefix + name
        if isinstance(value, dict):
            flat.update(flatten(value, key + "."))
        else:
            flat[key] = value
    return flat
