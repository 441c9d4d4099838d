"""Read patches in any form that developers send, and apply them to a copy of the source.

A plain diff, a message or an mbox of a series (as b4 writes it), a folder of those, or a quilt folder with its
`series` file. GNU patch applies them; offsets and fuzz are reported.
"""

from __future__ import annotations

import difflib
import email
import email.policy
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unidiff.errors import UnidiffParseError
from unidiff.patch import PatchedFile, PatchSet

from harness.errors import UsageError
from harness.host import LocalHost, require

_DIFF = re.compile(r"^(diff --git |--- \S)", re.M)
_NUMBERED = re.compile(r"\[[^]]*?\b(\d+)/\d+\b[^]]*\]")
# As git splits an mbox: a message begins with a sender and a date; other lines with "From " do not.
_MESSAGE = re.compile(r"^From \S+ .*\b\d\d:\d\d.*\d{4}.*\n", re.M)
_FOLDER = (".patch", ".diff", ".mbox", ".mbx", ".eml")
# Top folders of a kernel tree; another first folder is a prefix, as a/, b/, linux-7.3/ and linux-7.3.orig/.
_TOP = re.compile(
    r"(drivers|include|arch|kernel|mm|net|lib|fs|block|security|tools|scripts|samples|Documentation)/"
)
MIN_NEAREST = 0.5


@dataclass(frozen=True)
class Patch:
    """One change: its name (subject or file name) and its diff. `files` are paths in the source tree."""

    name: str
    diff: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class Applied:
    """Result of applying a series: `notes` (offsets, fuzz), changed files, and files that the tree does not have."""

    notes: tuple[str, ...]
    changed: tuple[str, ...]
    outside: tuple[str, ...]


def read(path: Path) -> tuple[Patch, ...]:
    """Read the patches of a file or folder in order; UsageError if it has none."""
    if path.is_dir():
        series = path / "series"
        if series.is_file():
            lines = (line.split("#")[0].split() for line in series.read_text().splitlines())
            files = [path / words[0] for words in lines if words]
        else:
            files = sorted(file for file in path.iterdir() if file.suffix in _FOLDER)
        # A cover letter has none.
        patches = tuple(patch for file in files for patch in _read_file(file))
    elif path.is_file():
        patches = tuple(_read_file(path))
    else:
        raise UsageError(f"{path} does not exist", hint="a diff, an mbox or a folder of patches")
    if not patches:
        raise UsageError(
            f"{path} holds no patch", hint="a unified diff, as `git format-patch` or `b4 am` write it"
        )
    return patches


def read_range(tree: Path, commits: str, host: LocalHost) -> tuple[Patch, ...]:
    """Read the patches of commits `A..B` of a git tree; UsageError with git's message."""
    command = [require("git"), "-C", str(tree), "format-patch", "--stdout", "--no-signature", commits]
    done = host.run(command, check=False)
    if done.status:
        raise UsageError(f"{tree} has no commits {commits}", done.output.splitlines()[-3:])
    with host.ledger.scratch_file("range") as path:
        path.write_text(done.output, encoding="utf-8", errors="surrogateescape")
        patches = tuple(_read_file(path))
    if not patches:
        raise UsageError(f"{commits} in {tree}: no commit that changes anything")
    return patches


def check_range(tree: Path, commits: str, host: LocalHost) -> None:
    """Check that a git tree has a range of commits; UsageError with git's message."""
    done = host.run([require("git"), "-C", str(tree), "rev-list", "-1", commits, "--"], check=False)
    if done.status:
        raise UsageError(f"{tree} has no commits {commits}", done.output.splitlines()[-3:])


def patch_id(patches: Sequence[Patch], host: LocalHost) -> str:
    """Compute git's patch-id, which ignores line numbers and commit: 40 hex digits, empty for no change."""
    with host.ledger.scratch_file("patch-id") as path:
        text = "".join(_headed(file) for patch in patches for file in PatchSet(patch.diff))
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        done = host.run(["sh", "-c", f"{require('git')} patch-id --stable <{shlex.quote(str(path))}"])
    return done.output.split(" ")[0].strip()


def _headed(file: PatchedFile) -> str:
    """Write a file's diff with git's header, which patch-id needs."""
    text = str(file)
    return text if text.startswith("diff ") else f"diff --git a/{file.path} b/{file.path}\n{text}"


def _read_file(path: Path) -> Iterable[Patch]:
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    if _MESSAGE.match(text):
        parts = [_message(each, path) for each in _MESSAGE.split(text)[1:]]
        parts.sort(key=lambda part: _position(part[0]))
    elif re.match(r"[\w-]+: ", text) and "\n\n" in text:
        parts = [_message(text, path)]
    else:
        parts = [(path.name, text)]
    for name, body in parts:
        start = _DIFF.search(body)
        if start:
            yield _patch(" ".join(name.split()), body[start.start() :], path)


def _message(text: str, path: Path) -> tuple[str, str]:
    """Return the subject of a message (or the file's name) and its text."""
    message = email.message_from_bytes(text.encode("utf-8", "surrogateescape"), policy=email.policy.default)
    part = message.get_body(("plain",)) or message
    content = part.get_content()
    body = content if isinstance(content, str) else content.decode("utf-8", "surrogateescape")
    return str(message["Subject"] or path.name), body.replace("\r\n", "\n")


def _position(subject: str) -> int:
    match = _NUMBERED.search(subject)
    return int(match.group(1)) if match else 0


def _patch(name: str, diff: str, path: Path) -> Patch:
    try:
        parsed = PatchSet(diff)
    except UnidiffParseError as error:
        raise UsageError(f"{path}: not a unified diff: {error}", [name]) from error
    for file in parsed:
        if file.path.startswith("/") or ".." in Path(file.path).parts:
            raise UsageError(f"{path}: a patch may not leave the source tree", [file.path])
    if any(_prefixed(file) for file in parsed):
        diff = str(parsed)
    return Patch(name, diff, tuple(dict.fromkeys(file.path for file in parsed)))


def _prefixed(file: PatchedFile) -> bool:
    """Set the prefixes of the file's paths to a/ and b/; return whether they changed."""
    before = file.source_file, file.target_file
    for side, prefix in (("source_file", "a/"), ("target_file", "b/")):
        name = getattr(file, side)
        if name != "/dev/null":
            plain = name if _TOP.match(name) else name.partition("/")[2]
            if _TOP.match(plain):
                setattr(file, side, prefix + plain)
    return before != (file.source_file, file.target_file)


def apply(patches: Sequence[Patch], tree: Path, host: LocalHost) -> Applied:
    """Apply a series to `tree` (a copy of the source that may be written).

    Files that the tree does not have are left out and named. UsageError with the first hunk that does not apply and
    the nearest place for it.
    """
    notes: list[str] = []
    changed: dict[str, None] = {}
    outside: dict[str, None] = {}
    for number, patch in enumerate(patches, 1):
        inside = PatchSet("")
        for file in PatchSet(patch.diff):
            old = tree / re.sub("^a/", "", file.source_file)
            holds = old.exists() or (file.is_added_file and (tree / file.path).parent.is_dir())
            if holds:
                inside.append(file)
            (changed if holds else outside)[file.path] = None
        if inside:
            notes += _run_patch(patch, str(inside), tree, host, number)
    return Applied(tuple(notes), tuple(changed), tuple(outside))


def _run_patch(patch: Patch, diff: str, tree: Path, host: LocalHost, number: int) -> list[str]:
    with host.ledger.scratch_folder("patch") as folder:
        file, rejects = folder / "diff", folder / "rejects"
        file.write_text(diff, encoding="utf-8", errors="surrogateescape")
        command = [
            "patch",
            "-p1",
            "--forward",
            "--batch",
            "--no-backup-if-mismatch",
            f"--reject-file={rejects}",
        ]
        done = host.run([*command, f"--directory={tree}", f"--input={file}"], check=False)
        lines = done.output.splitlines()
        if done.status:
            raise _refused(patch, number, lines, rejects, tree)
    noted = [line for line in lines if "offset" in line or "fuzz" in line]
    return [f"{patch.name}: {line}" for line in noted]


def _refused(patch: Patch, number: int, lines: Sequence[str], rejects: Path, tree: Path) -> UsageError:
    """Make the error of a patch that does not apply: its first rejected hunk and the nearest place for it."""
    evidence = [line for line in lines if "FAILED" in line or "previously applied" in line or "can't" in line]
    if rejects.is_file():
        rejected = rejects.read_text(encoding="utf-8", errors="replace")
        hunk = rejected.split("\n@@", 2)
        if len(hunk) > 1:
            evidence += [
                "first rejected hunk:",
                *("  " + line for line in ("@@" + hunk[1]).splitlines()[:20]),
            ]
        file = re.search(r"^--- (\S+)", rejected, re.M)
        if file and len(hunk) > 1:
            evidence += nearest(tree / re.sub(r"^[ab]/", "", file.group(1)), hunk[1].splitlines()[1:])
    return UsageError(
        f"patch {number} does not apply: {patch.name}",
        evidence,
        "rebase it on this kernel, or --kernel the one that it was made for",
    )


def nearest(file: Path, hunk: Sequence[str]) -> list[str]:
    """Find where the old lines of a hunk (with their marks) fit best in `file`: a headline and those lines."""
    old = [line[1:] for line in hunk if line[:1] in (" ", "-")]
    if not old or not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    matcher = difflib.SequenceMatcher(autojunk=False)
    stripped = [line.strip() for line in old]
    matcher.set_seq2(stripped)
    known = set(stripped)
    best, where = 0.0, 0
    for start in range(max(len(lines) - len(old), 0) + 1):
        window = [line.strip() for line in lines[start : start + len(old)]]
        if sum(line in known for line in window) <= best * len(old) / 2:
            continue
        matcher.set_seq1(window)
        ratio = matcher.ratio()
        if ratio > best:
            best, where = ratio, start
    if best < MIN_NEAREST:
        return [f"nothing like it is in {file.name}"]
    shown = lines[where : where + len(old)]
    return [f"nearest, {best:.0%} alike, {file.name}:{where + 1}:", *("  " + line for line in shown[:20])]
