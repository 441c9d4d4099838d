"""Huge pages reserved in the hugetlb pool. Ref: Linux 7.3 Documentation/admin-guide/mm/hugetlbpage.rst"""

from __future__ import annotations

from pathlib import Path

from harness.guest.errors import Unsupported

POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
BYTES = 2 << 20


class Reserved:
    """So many bytes more in the pool, until closed; Unsupported if the kernel cannot allocate them."""

    def __init__(self, size_bytes: int) -> None:
        self._pages = size_bytes // BYTES
        if not self._pages:
            return
        try:
            had = int(POOL.read_text())
            POOL.write_text(str(had + self._pages))
            added = int(POOL.read_text()) - had
        except OSError as error:
            raise Unsupported(f"no huge pages here: {error}") from error
        if added < self._pages:
            POOL.write_text(str(had))
            raise Unsupported(f"{added} of {self._pages} huge pages could be allocated")

    def close(self) -> None:
        """Shrink the pool again."""
        if self._pages:
            POOL.write_text(str(int(POOL.read_text()) - self._pages))
            self._pages = 0
