"""Delayed page faults: a thread of this process resolves each one after DELAY_S, by userfaultfd(2).

From Linux 7.3 on a device's fault waits for that as a CPU's does; before, it fails.
Ref: Linux 7.3 Documentation/admin-guide/mm/userfaultfd.rst, include/uapi/linux/userfaultfd.h
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import struct
import threading
import time

from harness.guest.mm import libc
from harness.guest.mm.libc import PAGE_BYTES

DELAY_S = 0.1

_API, _MISSING = 0xAA, 1
_UFFDIO_API = 0xC018_AA3F
_UFFDIO_REGISTER = 0xC020_AA00
_UFFDIO_COPY = 0xC028_AA03
_EVENT_PAGEFAULT = 0x12
_MESSAGE = struct.Struct("=B7xQQ8x")
_NAP_MS = 50


class DelayedFaults:
    """Resolve faults on `length` bytes from `start` on DELAY_S late, with zeroed pages."""

    def __init__(self, start: int, length: int) -> None:
        self._zeros = ctypes.create_string_buffer(2 * PAGE_BYTES)
        self._fd = libc.userfaultfd(os.O_CLOEXEC | os.O_NONBLOCK)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="delayed faults", daemon=True)
        try:
            fcntl.ioctl(self._fd, _UFFDIO_API, struct.pack("=QQQ", _API, 0, 0))
            fcntl.ioctl(self._fd, _UFFDIO_REGISTER, struct.pack("=QQQQ", start, length, _MISSING, 0))
        except OSError:
            os.close(self._fd)
            raise
        self._thread.start()

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        while not self._stop.is_set():
            if not poll.poll(_NAP_MS):
                continue
            try:
                event, _, address = _MESSAGE.unpack(os.read(self._fd, _MESSAGE.size))
            except BlockingIOError:
                continue
            if event == _EVENT_PAGEFAULT:
                time.sleep(DELAY_S)
                self._resolve(address & -PAGE_BYTES)

    def _resolve(self, address: int) -> None:
        source = -(-ctypes.addressof(self._zeros) // PAGE_BYTES) * PAGE_BYTES
        try:
            fcntl.ioctl(self._fd, _UFFDIO_COPY, struct.pack("=QQQQQ", address, source, PAGE_BYTES, 0, 0))
        except FileExistsError:
            return

    def close(self) -> None:
        """Wake all waiters for a page; later faults are resolved by the kernel again."""
        self._stop.set()
        self._thread.join()
        os.close(self._fd)
