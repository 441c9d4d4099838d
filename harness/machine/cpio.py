"""Write a cpio archive of the `newc` format, which the kernel unpacks as an initial RAM disk.

Written here because no package of PyPI or of a minimal Debian writes one without the files on disk being owned
by root. Ref: Linux Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

S_IFDIR = 0o040000
S_IFREG = 0o100000


def archive(files: dict[str, bytes], executable: set[str] | None = None) -> bytes:
    """Pack {path: content}, with the folders they need, owned by root; `executable` paths get mode 755."""
    runnable = executable or set()
    folders = sorted({"/".join(p.split("/")[:i]) for p in files for i in range(1, p.count("/") + 1)})
    out = bytearray()
    inode = 1
    for folder in folders:
        out += _entry(inode, folder, S_IFDIR | 0o755, b"")
        inode += 1
    for path, content in files.items():
        out += _entry(inode, path, S_IFREG | (0o755 if path in runnable else 0o644), content)
        inode += 1
    out += _entry(0, "TRAILER!!!", 0, b"")
    return bytes(out)


def _entry(inode: int, path: str, mode: int, content: bytes) -> bytes:
    name = path.encode() + b"\0"
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)
