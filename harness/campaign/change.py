"""What is judged: a series of patches on the distribution's source, or a kernel tree of the user's."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.campaign.runs import copied
from harness.errors import UsageError
from harness.host import LocalHost, require
from harness.kernel import patches
from harness.kernel.build import sources_of
from harness.kernel.patches import Patch
from harness.kernel.source import MADE
from harness.kernel.source import PARTS as KEPT
from harness.kernel.subsystems import (
    HEADERS,
    PARTS,
    Part,
    touched,
)


@dataclass(frozen=True)
class Patched:
    """Patches, in their order."""

    series: tuple[Patch, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """What the patches are called."""
        return tuple(patch.name for patch in self.series)

    @property
    def diffs(self) -> tuple[str, ...]:
        """What the patches say."""
        return tuple(patch.diff for patch in self.series)

    def identity(self, host: LocalHost) -> str:
        """git's patch-id of them all."""
        return patches.patch_id(self.series, host)

    def reach(self, stock: Path) -> tuple[tuple[Part, ...], tuple[str, ...]]:
        """The parts that are touched, and what is touched besides."""
        return touched(file for patch in self.series for file in patch.files)

    def lay(self, stock: Path, parts: Sequence[Part], into: Path, host: LocalHost) -> tuple[str, ...]:
        """The parts' source as it is judged; returns what GNU patch said of offsets and fuzz, and which files are built
        into nothing here. UsageError: it changes files of a part that this kernel lacks.
        """
        copied(stock, parts, into)
        applied = patches.apply(self.series, into, host)
        lacking = [file for file in applied.outside if not file.startswith(HEADERS) and touched([file])[0]]
        if lacking:
            hint = "rebase it on this kernel, or --kernel the one that it was made for"
            raise UsageError("the patch changes files that this kernel does not have", lacking, hint)
        headers = (file for file in applied.outside if file.startswith(HEADERS))
        return (*applied.notes, *(f"not tested: {file}" for file in headers))


@dataclass(frozen=True)
class Tree:
    """A kernel tree: its files of our parts take the place of the distribution's."""

    folder: Path

    @property
    def names(self) -> tuple[str, ...]:
        """Where it is."""
        return (str(self.folder),)

    @property
    def diffs(self) -> tuple[str, ...]:
        """Nothing: a tree says nothing of what it changes."""
        return ()

    def identity(self, host: LocalHost) -> str:
        """The commit that is checked out, if it is git's."""
        done = host.run(["git", "-C", str(self.folder), "rev-parse", "HEAD"], check=False)
        return done.output.strip() if not done.status else ""

    def reach(self, stock: Path) -> tuple[tuple[Part, ...], tuple[str, ...]]:
        """The parts of which a source file differs from the distribution's."""
        self.check()
        headers = any(_differs(self.folder / name, stock / name) for name in _headers())
        reached = (part for part in PARTS if headers or _modules_differ(self.folder, stock, part))
        return tuple(reached), ()

    def check(self) -> None:
        """UsageError if it has none of our parts."""
        if not any((self.folder / part.folder).is_dir() for part in PARTS):
            raise UsageError(f"{self.folder} is no kernel tree", [f"it has no {PARTS[0].folder}"])

    def lay(self, stock: Path, parts: Sequence[Part], into: Path, host: LocalHost) -> tuple[str, ...]:
        """The distribution's source with the tree's files of the parts and of our headers over it."""
        copied(stock, parts, into)
        for name in (*(part.folder for part in parts), *_headers()):
            if (self.folder / name).is_dir():
                shutil.rmtree(into / name, ignore_errors=True)
                made = shutil.ignore_patterns(*MADE)
                shutil.copytree(self.folder / name, into / name, ignore=made)
        return ()


Subject = Patched | Tree


def before(tree: Path, commits: str, into: Path, host: LocalHost) -> Tree:
    """What a git tree had of our parts before a range `A..B` of its commits, laid out in `into`. UsageError with git's
    words.
    """
    first, _, last = commits.replace("...", "..").partition("..")
    git = [require("git"), "-C", str(tree)]
    found = host.run([*git, "merge-base", first or "HEAD", last or "HEAD"], check=False)
    if found.status:
        raise UsageError(f"{tree} has no commits {commits}", found.output.splitlines()[-3:])
    base = found.output.strip()
    have = host.run([*git, "ls-tree", "-d", "--full-tree", "--name-only", base, *KEPT]).output.split()
    if have:
        with host.ledger.scratch_file("tar") as archive:
            host.run(
                [
                    *git,
                    "archive",
                    "--format=tar",
                    f"--output={archive}",
                    base,
                    *(f":/{path}" for path in have),
                ]
            )
            host.run(["tar", "-xf", str(archive), "-C", str(into)])
    return Tree(into)


def _headers() -> tuple[str, ...]:
    return tuple(
        name for name in KEPT if name.startswith(("include/rdma", "include/linux", "include/uapi/rdma"))
    )


def _modules_differ(tree: Path, stock: Path, part: Part) -> bool:
    mine = tree / part.folder
    return mine.is_dir() and sources_of(mine) != sources_of(stock / part.folder)


def _differs(mine: Path, theirs: Path) -> bool:
    if not mine.is_dir():
        return False
    both = [{p.relative_to(f): p.read_bytes() for p in f.rglob("*.h")} for f in (mine, theirs)]
    return both[0] != both[1]
