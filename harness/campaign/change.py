"""The change that is tested: a series of patches on the distribution's source, or a kernel tree of the user."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.campaign.builds import copy_sources
from harness.errors import UsageError
from harness.host import LocalHost, require
from harness.kernel import patches
from harness.kernel.build import sources_of
from harness.kernel.patches import Patch
from harness.kernel.source import MADE
from harness.kernel.source import PARTS as SOURCE_FOLDERS
from harness.kernel.subsystems import (
    HEADERS,
    PARTS,
    Part,
    touched,
)


@dataclass(frozen=True)
class Written:
    """Notes of GNU patch on offsets and fuzz, and changed files that are in no tested part."""

    notes: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()


@dataclass(frozen=True)
class PatchSeries:
    """Patches, in their order."""

    series: tuple[Patch, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the name of each patch: its subject or its file."""
        return tuple(patch.name for patch in self.series)

    @property
    def diffs(self) -> tuple[str, ...]:
        """Return the text of each patch."""
        return tuple(patch.diff for patch in self.series)

    def identity(self, host: LocalHost) -> str:
        """Return git's patch-id of the series."""
        return patches.patch_id(self.series, host)

    def parts(self, stock: Path) -> tuple[tuple[Part, ...], tuple[str, ...]]:
        """Return the parts that are changed, and the changed files that are in none."""
        return touched(file for patch in self.series for file in patch.files)

    def write(self, stock: Path, parts: Sequence[Part], into: Path, host: LocalHost) -> Written:
        """Write the parts' patched source. UsageError: the patch changes files of a part that this kernel lacks."""
        copy_sources(stock, parts, into)
        applied = patches.apply(self.series, into, host)
        lacking = [file for file in applied.outside if not file.startswith(HEADERS) and touched([file])[0]]
        if lacking:
            hint = "rebase it on this kernel, or name its own with --kernel"
            raise UsageError("the patch changes files that this kernel does not have", lacking, hint)
        headers = (file for file in applied.outside if file.startswith(HEADERS))
        return Written(tuple(applied.notes), tuple(headers))


@dataclass(frozen=True)
class KernelTree:
    """A kernel tree: its files of our parts replace the distribution's."""

    folder: Path

    @property
    def names(self) -> tuple[str, ...]:
        """Return its path."""
        return (str(self.folder),)

    @property
    def diffs(self) -> tuple[str, ...]:
        """Return nothing: a tree has no diff."""
        return ()

    def identity(self, host: LocalHost) -> str:
        """Return the commit that is checked out; empty if it is no git tree."""
        done = host.run(["git", "-C", str(self.folder), "rev-parse", "HEAD"], check=False)
        return done.output.strip() if not done.status else ""

    def parts(self, stock: Path) -> tuple[tuple[Part, ...], tuple[str, ...]]:
        """Return the parts of which a source file differs from the distribution's."""
        self.check()
        headers = any(_differs(self.folder / name, stock / name) for name in _headers())
        changed = (part for part in PARTS if headers or _modules_differ(self.folder, stock, part))
        return tuple(changed), ()

    def check(self) -> None:
        """Raise UsageError if the tree has none of our parts."""
        if not any((self.folder / part.folder).is_dir() for part in PARTS):
            raise UsageError(f"{self.folder} is no kernel tree", [f"it has no {PARTS[0].folder}"])

    def write(self, stock: Path, parts: Sequence[Part], into: Path, host: LocalHost) -> Written:
        """Write the distribution's source, with the tree's files of the parts and of our headers over it."""
        copy_sources(stock, parts, into)
        for name in (*(part.folder for part in parts), *_headers()):
            if (self.folder / name).is_dir():
                shutil.rmtree(into / name, ignore_errors=True)
                made = shutil.ignore_patterns(*MADE)
                shutil.copytree(self.folder / name, into / name, ignore=made)
        return Written()


SourceChange = PatchSeries | KernelTree


def merge_base(tree: Path, commits: str, into: Path, host: LocalHost) -> KernelTree:
    """Write the tested parts of a git tree at the merge base of its commits `A..B`. UsageError: git's message."""
    first, _, last = commits.replace("...", "..").partition("..")
    git = [require("git"), "-C", str(tree)]
    done = host.run([*git, "merge-base", first or "HEAD", last or "HEAD"], check=False)
    if done.status:
        raise UsageError(f"{tree} has no commits {commits}", done.output.splitlines()[-3:])
    base = done.output.strip()
    have = host.run(
        [*git, "ls-tree", "-d", "--full-tree", "--name-only", base, *SOURCE_FOLDERS]
    ).output.split()
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
    return KernelTree(into)


def _headers() -> tuple[str, ...]:
    return tuple(
        name
        for name in SOURCE_FOLDERS
        if name.startswith(("include/rdma", "include/linux", "include/uapi/rdma"))
    )


def _modules_differ(tree: Path, stock: Path, part: Part) -> bool:
    folder = tree / part.folder
    return folder.is_dir() and sources_of(folder) != sources_of(stock / part.folder)


def _differs(folder: Path, stock: Path) -> bool:
    if not folder.is_dir():
        return False
    both = [{p.relative_to(f): p.read_bytes() for p in f.rglob("*.h")} for f in (folder, stock)]
    return both[0] != both[1]
