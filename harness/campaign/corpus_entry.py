"""An entry of the corpus: a bug of the past, as the edit that brings it back, and the plans that must catch it."""

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
    "only": Key(str),
}
_EDIT_KEYS = {"file": Key(str), "old": Key(str), "new": Key(str)}
_NEEDED = ("title", "fix", "kernel", "device", "plans")


@dataclass(frozen=True)
class Edit:
    """`old`, there exactly once in a file of the kernel's source, becomes `new`."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Entry:
    """A bug: the upstream commit that mended it, the edits that undo the mending, and who must notice.

    `plans` are names in testplans/; `only` narrows their cases, as pytest -k.
    """

    path: Path
    title: str
    fix: str
    kernel: str
    device: str
    plans: tuple[str, ...]
    edits: tuple[Edit, ...]
    only: str = ""

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.path.stem

    @property
    def expression(self) -> str:
        """The cases that are run, as pytest -k."""
        return f"{self.device} and ({self.only})" if self.only else self.device


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
        table.get("only", ""),
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
    """Make the edits in a tree; UsageError where one does not fit."""
    for edit in entry.edits:
        path = tree / edit.file
        if not path.is_file():
            raise UsageError(f"{entry.name}: this kernel has no {edit.file}")
        text = path.read_text()
        found = text.count(edit.old)
        if found != 1:
            what = edit.old.strip().splitlines()[0]
            raise UsageError(f"{entry.name}: {edit.file} has {what!r} {found} times, not once")
        path.write_text(text.replace(edit.old, edit.new))
