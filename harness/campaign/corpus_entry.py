"""Parse an entry of the corpus: a bug of the past, the edit that reintroduces it, and the plans that must catch it.

Keys: `title`, `fix` (the upstream commit that fixed it), `kernel`, `device`, `plans`, `select` (cases, as pytest -k),
and one or more [[edit]] with `file`, `old` and `new`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.device.catalogue import DEVICES
from harness.errors import UsageError
from harness.kernel.packages import SERIES
from harness.plan.check import check_entry
from harness.plan.schema import Key
from harness.plan.source import Source, read

_KEYS = {
    "title": Key(str),
    "fix": Key(str),
    "kernel": Key(str, tuple(SERIES)),
    "device": Key(str, tuple(DEVICES)),
    "plans": Key(list),
    "select": Key(str),
}
_EDIT_KEYS = {"file": Key(str), "old": Key(str), "new": Key(str)}
_NEEDED = ("title", "fix", "kernel", "device", "plans")


@dataclass(frozen=True)
class Edit:
    """Replace `old`, which is exactly once in a file of the kernel's source, by `new`."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Entry:
    """A bug: the upstream commit that fixed it (12 digits), the edits that revert the fix, and who must catch it.

    `plans` are names in testplans/; `select` narrows their cases, as pytest -k.
    """

    path: Path
    title: str
    fix: str
    kernel: str
    device: str
    plans: tuple[str, ...]
    edits: tuple[Edit, ...]
    select: str = ""

    @property
    def name(self) -> str:
        """Return the file's name without its suffix."""
        return self.path.stem

    @property
    def expression(self) -> str:
        """Return the expression for pytest -k that selects its cases."""
        return f"{self.device} and ({self.select})" if self.select else self.device


def load(path: Path) -> Entry:
    """Read and check an entry; UsageError with file, line and key."""
    source, table = read(path)
    edits = table.pop("edit", [])
    check_entry(source, "", _KEYS, table)
    for key in _NEEDED:
        if key not in table:
            raise source.error(key, "missing", _KEYS)
    plans = _plans(source, path.parent.parent, table["plans"])
    return Entry(
        path,
        table["title"],
        table["fix"],
        table["kernel"],
        table["device"],
        plans,
        _edits(source, edits),
        table.get("select", ""),
    )


def _plans(source: Source, folder: Path, names: list[Any]) -> tuple[str, ...]:
    for name in names:
        if not (folder / f"{name}.toml").is_file():
            raise source.error("plans", f"no plan {name!r} in {folder}")
    if not names:
        raise source.error("plans", "at least one")
    return tuple(names)


def _edits(source: Source, entries: Any) -> tuple[Edit, ...]:
    if not isinstance(entries, list) or not entries:
        raise source.error("edit", "write at least one [[edit]]")
    for entry in entries:
        check_entry(source, "edit", _EDIT_KEYS, entry)
        for key in _EDIT_KEYS:
            if key not in entry:
                raise source.error(f"edit.{key}", "missing")
    return tuple(Edit(**entry) for entry in entries)


def apply(entry: Entry, tree: Path) -> None:
    """Apply the edits to a tree; UsageError where one does not apply."""
    for edit in entry.edits:
        path = tree / edit.file
        if not path.is_file():
            raise UsageError(f"{entry.name}: this kernel has no {edit.file}")
        text = path.read_text()
        count = text.count(edit.old)
        if count != 1:
            line = edit.old.strip().splitlines()[0]
            raise UsageError(f"{entry.name}: {edit.file} has {line!r} {count} times, not once")
        path.write_text(text.replace(edit.old, edit.new))
