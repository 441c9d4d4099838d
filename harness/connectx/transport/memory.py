"""Guest memory by DMA address: the ranges that QEMU granted."""

from __future__ import annotations

import bisect
import errno
import mmap
import os
import stat
from dataclasses import dataclass

READ = 1
WRITE = 2
_LAST_ADDRESS = 1 << 64
_NORESERVE = 0x4000  # MAP_NORESERVE, which Python 3.11 does not name. Ref: mmap(2)


class DmaError(Exception):
    """The card touched memory that was not granted, or has no descriptor; becomes a command status."""

    def __init__(self, address: int, size: int, why: str = "not granted") -> None:
        super().__init__(f"DMA to {address:#x}, {size} bytes: {why}")
        self.address = address
        self.size = size
        self.why = why


class MapError(Exception):
    """A map request that cannot be granted; `number` is the errno for the answer."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(why)
        self.number = number


@dataclass(frozen=True, slots=True)
class Map:
    """One granted range. `view` is None where no descriptor came: the card does not reach such memory."""

    address: int
    size: int
    flags: int
    view: memoryview | None

    @property
    def end(self) -> int:
        """First address after the range."""
        return self.address + self.size


def anonymous(size: int) -> memoryview:
    """Map zeros in this process; pages that are never written cost nothing."""
    return memoryview(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE))


def map_file(descriptor: int, offset: int, size: int, writable: bool) -> memoryview:
    """Map `size` bytes of a file at any offset, shared; MapError when the file is shorter.

    An access beyond the end of a file is a SIGBUS, which no handler survives: Python's mmap compares with the
    size of regular files, so nothing else is taken.
    """
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise MapError(errno.EINVAL, "the descriptor is not memory")
    lead = offset % mmap.ALLOCATIONGRANULARITY
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    try:
        area = mmap.mmap(descriptor, size + lead, mmap.MAP_SHARED, protection, offset=offset - lead)
    except (OSError, ValueError, OverflowError) as problem:
        raise MapError(errno.EINVAL, f"mmap: {problem}") from problem
    return memoryview(area)[lead : lead + size]


class Memory:
    """Guest memory by DMA address.

    A view is good until the access (one BAR access, one tick) that requested it ends: QEMU maps and unmaps
    between accesses, and the conversation log looks at views when the access is over. A view kept longer
    stays safe to touch (it holds its mapping alive) but may be memory the guest no longer grants.
    """

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._maps: list[Map] = []
        self._last = Map(0, 0, 0, None)

    @property
    def maps(self) -> tuple[Map, ...]:
        """Ranges granted now, by address."""
        return tuple(self._maps)

    def grant(self, address: int, size: int, flags: int, descriptor: int | None, offset: int = 0) -> Map:
        """Add a range; the descriptor stays the caller's. MapError when empty, wrapping or overlapping."""
        self._check(address, size, offset)
        view = None
        if descriptor is not None:
            view = map_file(descriptor, offset, size, bool(flags & WRITE))
        return self._insert(Map(address, size, flags, view))

    def lend(self, address: int, view: memoryview, flags: int = READ | WRITE) -> Map:
        """Add a range that is memory of this process: for replays, tests and the bench."""
        self._check(address, len(view))
        return self._insert(Map(address, len(view), flags, view))

    def _check(self, address: int, size: int, offset: int = 0) -> None:
        if size <= 0 or address < 0 or offset < 0 or address + size > _LAST_ADDRESS:
            raise MapError(errno.EINVAL, f"no such range: {address:#x}+{size:#x}")
        index = bisect.bisect_right(self._starts, address)
        if index and self._maps[index - 1].end > address:
            raise MapError(errno.EEXIST, f"{address:#x} is mapped")
        if index < len(self._maps) and self._maps[index].address < address + size:
            raise MapError(errno.EEXIST, f"{self._maps[index].address:#x} is mapped")

    def _insert(self, granted: Map) -> Map:
        index = bisect.bisect_right(self._starts, granted.address)
        self._starts.insert(index, granted.address)
        self._maps.insert(index, granted)
        return granted

    def revoke(self, address: int, size: int) -> int:
        """Remove every map inside the range, return how many; MapError when it would split one."""
        first = bisect.bisect_left(self._starts, address)
        last = bisect.bisect_left(self._starts, address + size)
        if (
            first
            and self._maps[first - 1].end > address
            or (last > first and self._maps[last - 1].end > address + size)
        ):
            raise MapError(errno.EINVAL, "would split a map")
        del self._starts[first:last]
        del self._maps[first:last]
        self._last = Map(0, 0, 0, None)
        return last - first

    def clear(self) -> None:
        """Remove all maps."""
        self.revoke(0, _LAST_ADDRESS)

    def _find(self, address: int, size: int) -> Map:
        """Return the map with the first byte."""
        last = self._last
        if last.address <= address < last.address + last.size:
            return last
        index = bisect.bisect_right(self._starts, address) - 1
        if index < 0 or address >= self._maps[index].end:
            raise DmaError(address, size)
        self._last = self._maps[index]
        return self._last

    def view(self, address: int, size: int) -> memoryview:
        """Return the bytes themselves, writable, contiguous in one map; DmaError otherwise."""
        mapping = self._find(address, size)
        start = address - mapping.address
        if size < 0 or start + size > mapping.size:
            raise DmaError(address, size)
        if mapping.view is None:
            raise DmaError(address, size, "memory without a descriptor")
        if not mapping.flags & WRITE:
            raise DmaError(address, size, "read-only")
        return mapping.view[start : start + size]

    def read(self, address: int, size: int) -> bytes:
        """Return a copy; may span maps. DmaError before anything is read if a byte of it is not granted."""
        return b"".join(self._pieces(address, size, READ))

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Store the bytes; may span maps. DmaError before anything is written if a byte is not granted."""
        done = 0
        for piece in self._pieces(address, len(data), WRITE):
            piece[:] = data[done : done + len(piece)]
            done += len(piece)

    def copy(self, source: int, destination: int, size: int) -> None:
        """Move bytes within guest memory; may span maps, may overlap. DmaError before anything is moved.

        For bytes that the card does not look at: they are not logged.
        """
        sources = Memory._pieces(self, source, size, READ)
        at = 0
        for piece in Memory._pieces(self, destination, size, WRITE):
            done = 0
            while done < len(piece):
                part = sources[0][at : at + len(piece) - done]
                piece[done : done + len(part)] = part
                done, at = done + len(part), at + len(part)
                if at == len(sources[0]):
                    at = 0
                    del sources[0]

    def overwrite(self, address: int, data: bytes) -> None:
        """Store as the guest itself would: into read-only maps, too, and not logged."""
        done = 0
        while done < len(data):
            mapping = self._find(address + done, len(data) - done)
            if mapping.view is None:
                raise DmaError(address + done, len(data) - done, "memory without a descriptor")
            piece = mapping.view[address + done - mapping.address :][: len(data) - done]
            piece[:] = data[done : done + len(piece)]
            done += len(piece)

    def _pieces(self, address: int, size: int, flag: int) -> list[memoryview]:
        if size < 0:
            raise DmaError(address, size)
        pieces = []
        at, left = address, size
        while left:
            mapping = self._find(at, left)
            if not mapping.flags & flag:
                raise DmaError(at, left, "read-only" if flag == WRITE else "not readable")
            if mapping.view is None:
                raise DmaError(at, left, "memory without a descriptor")
            start = at - mapping.address
            piece = mapping.view[start : start + left]
            pieces.append(piece)
            at += len(piece)
            left -= len(piece)
        return pieces
