"""Folders of the checkout, files that a user names, and the harness's version."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

import harness
from harness.errors import UsageError


def files_below(folder: Path | None) -> dict[str, Path]:
    """Return all files of a folder by their path within it."""
    if folder is None:
        return {}
    return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}


def fault_plans() -> list[Path]:
    """Return the checkout's plans of page faults, without the soaks, which take minutes."""
    folder = find_folder("testplans", None)
    paths = (path for kind in ("odp", "mlx5") for path in folder.glob(f"{kind}-*.toml"))
    return sorted(path for path in paths if "-soak" not in path.stem)


def plan_files(paths: Iterable[Path]) -> list[Path]:
    """Return the plan files of files and folders, sorted in a folder; UsageError for one that does not exist."""
    paths = list(paths)
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist", hint="a plan file or a folder of them")
    return [file for path in paths for file in (sorted(path.glob("*.toml")) if path.is_dir() else [path])]


def find_folder(name: str, folder: Path | None) -> Path:
    """Return testplans/ or vm-images/: `folder` if set, else the one of this checkout; UsageError if there is none."""
    if folder is not None:
        if folder.is_dir():
            return folder
        raise UsageError(f"{folder} is no folder")
    checkout = Path(harness.__file__).resolve().parents[1] / name
    for candidate in (checkout, Path.cwd() / name):
        if candidate.is_dir():
            return candidate
    raise UsageError(f"no folder {name}/ here", hint="run in a checkout of odp-harness, or name another")


def version() -> str:
    """Return the harness's version, with the commit when it runs from a checkout."""
    try:
        commit = subprocess.run(
            ["git", "-C", str(Path(harness.__file__).parent), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return harness.__version__
    return f"{harness.__version__}+{commit}"
