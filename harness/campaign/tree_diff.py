"""Find the source files that differ between two trees, and where."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.kernel.build import NAMES, SUFFIXES
from harness.kernel.subsystems import (
    HEADERS,
    Part,
)


@dataclass(frozen=True)
class TreeDiff:
    """A file by its path below the trees, its lines in both (none where it is missing), and the matcher of them."""

    path: Path
    before: Sequence[str]
    after: Sequence[str]
    matcher: difflib.SequenceMatcher[str]


def differing(stock: Path, tree: Path, parts: Sequence[Part]) -> Iterator[TreeDiff]:
    """Yield the differing files of the parts and of the kernel's headers, in the order of parts and names."""
    for folder in (*(part.folder for part in parts), HEADERS.rstrip("/")):
        paths = {path.relative_to(root) for root in (stock, tree) for path in _files(root / folder)}
        for path in sorted(paths):
            before, after = (_lines(root / path) for root in (stock, tree))
            if before != after:
                matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
                yield TreeDiff(path, before, after, matcher)


def _files(folder: Path) -> Iterator[Path]:
    every = (path for path in folder.rglob("*") if path.suffix in SUFFIXES or path.name in NAMES)
    return (path for path in every if path.is_file())


def _lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines() if path.is_file() else []
