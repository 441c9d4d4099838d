"""Make read-only disk images from folders."""

from __future__ import annotations

from pathlib import Path

from harness.host import LocalHost, require


def pack(host: LocalHost, folder: Path, image: Path, *, compressed: bool = True) -> None:
    """Write a folder as an EROFS image, owned by root and without times: the same files give the same bytes."""
    method = ["-zlz4"] if compressed else []
    host.run([require("mkfs.erofs"), "--quiet", *method, "--all-root", "-T0", str(image), str(folder)])
