"""Every kind of prefetch advice on every kind of region: what must be done is done, what must not be is refused.

The kernel is asked directly: libibverbs passes advice on for some devices only (rdma-core 56: not for rxe).
Ref: rdma-core 56 libibverbs/man/ibv_advise_mr.3.md; Linux 7.3 include/uapi/rdma/ib_user_ioctl_verbs.h
"""

from __future__ import annotations

import ctypes
import fcntl
import struct
import time
from contextlib import ExitStack
from typing import Callable, List, NamedTuple, Tuple

from harness.guest.errors import WorkFailed
from harness.guest.mm import pagemap
from harness.guest.mm.libc import PAGE_BYTES
from harness.guest.rdma.registration import Registration
from harness.guest.scenarios.pair import (
    REMOTE,
    Pair,
)
from harness.values.case import Case

# Ref: Linux 7.3 include/uapi/rdma/ib_user_ioctl_verbs.h: enum ib_uverbs_advise_mr_advice, ib_uverbs_advise_mr_flag,
# rdma_driver_id
WRITE, NO_FAULT = "PREFETCH_WRITE", "PREFETCH_NO_FAULT"
KINDS = {"PREFETCH": 0, WRITE: 1, NO_FAULT: 2}
FLUSH, LATER = "FLUSH", "LATER"
_FLAGS_OF = {FLUSH: 1, LATER: 0}
_DRIVERS = {"mlx": 1, "soft-roce": 14}
_UNKNOWN_KIND = 77

# Ref: Linux 7.3 include/uapi/rdma/rdma_user_ioctl_cmds.h: RDMA_VERBS_IOCTL, struct ib_uverbs_ioctl_hdr,
# ib_uverbs_attr; ib_user_ioctl_cmds.h: UVERBS_OBJECT_MR, UVERBS_METHOD_ADVISE_MR and its attributes
RDMA_VERBS_IOCTL = 0xC018_1B01
_HEADER = struct.Struct("=HHHHQII")
_ATTRIBUTE = struct.Struct("=HHHHQ")
_ELEMENT = struct.Struct("=QII")
_OBJECT_MR, _ADVISE_MR, _MANDATORY = 7, 2, 1
_PD_HANDLE, _ADVICE, _FLAGS, _SGE_LIST = range(4)

# A key that nobody has: its index is beyond what a device gives out in a test.
_BOGUS_KEY = 0x00F0_0D01
_ATTEMPTS = 3
_MAX_PROBLEMS = 4


Piece = Tuple[int, int, int]


class AccessCheck(NamedTuple):
    """One call: which pieces of memory (key, address, length) are advised, and which of FLUSH and LATER must fail.

    Advice that is followed later may fail in silence where its pieces are wrong; a wrong key is seen at once.
    """

    text: str
    pieces: Tuple[Piece, ...]
    refused: Tuple[str, ...] = ()


def on_demand(pair: Pair) -> List[AccessCheck]:
    """Trials on the remote region, which is one for on-demand paging."""
    region, length = pair.registrations[REMOTE], pair.memories[REMOTE].region.length
    whole, half = (region.lkey, region.address, length), length // 2
    bogus = (_BOGUS_KEY, region.address, length)
    return [
        AccessCheck("the whole region", (whole,)),
        AccessCheck("one byte of it", ((region.lkey, region.address + half, 1),)),
        AccessCheck("two pieces that overlap", (whole, (region.lkey, region.address + half, length - half))),
        AccessCheck("a key that nobody has", (bogus,), (FLUSH, LATER)),
        AccessCheck("a good key, then one that nobody has", (whole, bogus), (FLUSH, LATER)),
        AccessCheck("beyond its end", ((region.lkey, region.address, length + 2 * PAGE_BYTES),), (FLUSH,)),
    ]


def pinned(pair: Pair, registration: Registration) -> List[AccessCheck]:
    """Trials on a region whose pages are pinned: there is nothing to fetch."""
    length = pair.memories[REMOTE].region.length
    piece = (registration.lkey, registration.address, length)
    return [AccessCheck("a region without on-demand paging", (piece,), (FLUSH, LATER))]


def advise(case: Case) -> List[int]:
    """Rounds of every kind of advice on a region for on-demand paging, a checked write behind each."""
    return _rounds(case, lambda pair, stack: on_demand(pair))


def advise_pinned(case: Case) -> List[int]:
    """The same on a region whose pages are pinned."""

    def trials(pair: Pair, stack: ExitStack) -> List[AccessCheck]:
        registration = pair.register(pair.memories[REMOTE], odp=False)
        stack.callback(pair.deregister, registration)
        return pinned(pair, registration)

    return _rounds(case, trials)


def _rounds(case: Case, trials_of: Callable[[Pair, ExitStack], List[AccessCheck]]) -> List[int]:
    times: List[int] = []
    problems: List[str] = []
    with ExitStack() as stack:
        pair = Pair(case, stack)
        for turn in range(1, case.workload.rounds + 1):
            began = time.monotonic_ns()
            with ExitStack() as of_round:
                for trial in trials_of(pair, of_round):
                    problems += _try(pair, trial, turn)
            problems += _refused_kind(pair)
            # Advice that is still being followed holds the region: this waits for it, and hangs if one is lost.
            pair.register_anew(REMOTE, odp=True)
            times.append(time.monotonic_ns() - began)
    if problems:
        more = f" (and {len(problems) - _MAX_PROBLEMS} more)" if len(problems) > _MAX_PROBLEMS else ""
        raise WorkFailed("; ".join(problems[:_MAX_PROBLEMS]) + more)
    return times


def _try(pair: Pair, trial: AccessCheck, turn: int) -> List[str]:
    """One trial with every kind of advice, each followed at once and later; the data must be right after each.

    No page is fetched to be written for a region that has no right to write.
    """
    problems = []
    read_only = pair.memories[REMOTE].region.prot == "read"
    for kind, code in KINDS.items():
        for when in (FLUSH, LATER):
            told = f"{kind} {when} of {trial.text}"
            refused = (FLUSH, LATER) if read_only and kind == WRITE else trial.refused
            # What was to be followed later, before, may be followed only now: what is wrong each time is wrong.
            for _ in range(_ATTEMPTS if when == FLUSH and not refused else 1):
                pair.lose(REMOTE)
                status = _call(pair, code, _FLAGS_OF[when], trial.pieces)
                undone = [] if status or refused or when == LATER else _not_done(pair, kind, trial.pieces)
                if not undone:
                    break
            if when in refused and not status:
                problems.append(f"{told}: was to be refused and was not")
            elif not refused and status:
                problems.append(f"{told}: errno {status}")
            problems += [f"{told}: {said}" for said in undone]
            if read_only:
                pair.read(turn)
            else:
                pair.write(turn, lost=False)
    return problems


def _not_done(pair: Pair, kind: str, pieces: Tuple[Piece, ...]) -> List[str]:
    """What advice that was followed at once has not done: its pages are there, or none where none may be fetched.

    Of a file or of shared memory the kernel maps pages around those that are asked for, too, and huge ones whole.
    """
    memory, region = pair.memories[REMOTE], pair.registrations[REMOTE]
    come = pagemap.present(memory.pages_start, memory.pages)
    places = [(memory.start + address - region.address, length) for _, address, length in pieces]
    advised = {
        page for at, length in places for page in range(at // PAGE_BYTES, (at + length - 1) // PAGE_BYTES + 1)
    }
    if kind == NO_FAULT:
        return [f"{come} pages came"] if come else []
    right = come == len(advised) if memory.region.mapping == "anonymous" else come >= len(advised)
    return [] if right else [f"{come} pages came, {len(advised)} were advised"]


def _refused_kind(pair: Pair) -> List[str]:
    region = pair.registrations[REMOTE]
    piece = (region.lkey, region.address, 1)
    return [] if _call(pair, _UNKNOWN_KIND, 0, (piece,)) else ["advice of no known kind: was not refused"]


def _call(pair: Pair, kind: int, flags: int, pieces: Tuple[Piece, ...]) -> int:
    """Advise; returns the errno, 0 if it did not fail."""
    elements = ctypes.create_string_buffer(
        b"".join(_ELEMENT.pack(address, length, key) for key, address, length in pieces)
    )
    request = bytearray(
        advise_request(
            _DRIVERS[pair.connection.context.name.rstrip("0123456789_-")],
            pair.connection.pd.handle,
            kind,
            flags,
            (ctypes.addressof(elements), len(pieces)),
        )
    )
    try:
        fcntl.ioctl(pair.connection.context.cmd_fd, RDMA_VERBS_IOCTL, request)
    except OSError as error:
        return error.errno or -1
    return 0


def advise_request(driver: int, pd: int, kind: int, flags: int, elements: Tuple[int, int]) -> bytes:
    """The bytes of UVERBS_METHOD_ADVISE_MR; `elements` are the address and number of its scatter/gather entries."""
    attributes = (
        (_PD_HANDLE, 0, pd),
        (_ADVICE, 8, kind),
        (_FLAGS, 4, flags),
        (_SGE_LIST, elements[1] * _ELEMENT.size, elements[0]),
    )
    length = _HEADER.size + len(attributes) * _ATTRIBUTE.size
    header = _HEADER.pack(length, _OBJECT_MR, _ADVISE_MR, len(attributes), 0, driver, 0)
    return header + b"".join(_ATTRIBUTE.pack(at, size, _MANDATORY, 0, data) for at, size, data in attributes)
