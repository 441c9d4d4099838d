"""Every kind of ibv_advise_mr() on every kind of region: valid advice takes effect, invalid advice is refused.

The ioctl is issued directly: libibverbs passes advice on for some devices only (rdma-core 56: not for rxe).
Ref: rdma-core 56 libibverbs/man/ibv_advise_mr.3.md; Linux 7.3 include/uapi/rdma/ib_user_ioctl_verbs.h
"""

from __future__ import annotations

import ctypes
import fcntl
import struct
from contextlib import ExitStack
from typing import Callable, List, NamedTuple, Tuple

from harness.guest.errors import WorkFailed
from harness.guest.mm import pagemap
from harness.guest.mm.libc import PAGE_BYTES
from harness.guest.rdma.registration import Registration
from harness.guest.scenarios.pair import REMOTE, Pair
from harness.guest.scenarios.registry import scenario, timed_rounds
from harness.values.case import Case

# Ref: Linux 7.3 include/uapi/rdma/ib_user_ioctl_verbs.h: enum ib_uverbs_advise_mr_advice, ib_uverbs_advise_mr_flag,
# rdma_driver_id
WRITE, NO_FAULT = "PREFETCH_WRITE", "PREFETCH_NO_FAULT"
KINDS = {"PREFETCH": 0, WRITE: 1, NO_FAULT: 2}
FLUSH, LATER = "FLUSH", "LATER"
_FLAGS_OF = {FLUSH: 1, LATER: 0}
_DRIVERS = {"mlx": 1, "soft-roce": 14}
_UNKNOWN_ADVICE = 77

# Ref: Linux 7.3 include/uapi/rdma/rdma_user_ioctl_cmds.h: RDMA_VERBS_IOCTL, struct ib_uverbs_ioctl_hdr,
# ib_uverbs_attr; ib_user_ioctl_cmds.h: UVERBS_OBJECT_MR, UVERBS_METHOD_ADVISE_MR and its attributes
RDMA_VERBS_IOCTL = 0xC018_1B01
_HEADER = struct.Struct("=HHHHQII")
_ATTRIBUTE = struct.Struct("=HHHHQ")
_ELEMENT = struct.Struct("=QII")
_OBJECT_MR, _ADVISE_MR, _MANDATORY = 7, 2, 1
_PD_HANDLE, _ADVICE, _FLAGS, _SGE_LIST = range(4)

# A key of no region: its index is beyond what a device allocates in a test.
_BOGUS_KEY = 0x00F0_0D01
_ATTEMPTS = 3
_MAX_PROBLEMS = 4


Piece = Tuple[int, int, int]


class AdviceCheck(NamedTuple):
    """One call: its scatter/gather list (key, address, length), and which of FLUSH and LATER must fail.

    Asynchronous advice (LATER) may fail silently where an address is wrong; a wrong key must be refused at once.
    """

    text: str
    pieces: Tuple[Piece, ...]
    refused: Tuple[str, ...] = ()


def on_demand(pair: Pair) -> List[AdviceCheck]:
    """Return the checks for the remote region, which is registered on demand."""
    region, length = pair.registrations[REMOTE], pair.memories[REMOTE].region.length
    whole, half = (region.lkey, region.address, length), length // 2
    bogus = (_BOGUS_KEY, region.address, length)
    return [
        AdviceCheck("the whole region", (whole,)),
        AdviceCheck("one byte of the region", ((region.lkey, region.address + half, 1),)),
        AdviceCheck("two overlapping pieces", (whole, (region.lkey, region.address + half, length - half))),
        AdviceCheck("an invalid key", (bogus,), (FLUSH, LATER)),
        AdviceCheck("a valid key, then an invalid one", (whole, bogus), (FLUSH, LATER)),
        AdviceCheck(
            "beyond the region's end", ((region.lkey, region.address, length + 2 * PAGE_BYTES),), (FLUSH,)
        ),
    ]


def pinned(pair: Pair, registration: Registration) -> List[AdviceCheck]:
    """Return the checks for a region whose pages are pinned."""
    length = pair.memories[REMOTE].region.length
    piece = (registration.lkey, registration.address, length)
    return [AdviceCheck("a region without on-demand paging", (piece,), (FLUSH, LATER))]


@scenario("advise")
def advise(case: Case) -> List[int]:
    """Give every kind of advice on a region registered on demand, each followed by a checked write."""
    return _rounds(case, lambda pair, stack: on_demand(pair))


@scenario("advise_pinned")
def advise_pinned(case: Case) -> List[int]:
    """Give every kind of advice on a region whose pages are pinned."""

    def checks(pair: Pair, stack: ExitStack) -> List[AdviceCheck]:
        registration = pair.register(pair.memories[REMOTE], odp=False)
        stack.callback(pair.deregister, registration)
        return pinned(pair, registration)

    return _rounds(case, checks)


def _rounds(case: Case, checks_of: Callable[[Pair, ExitStack], List[AdviceCheck]]) -> List[int]:
    problems: List[str] = []
    with ExitStack() as stack:
        pair = Pair(case, stack)

        def one_round(number: int) -> None:
            with ExitStack() as of_round:
                for check in checks_of(pair, of_round):
                    problems.extend(_try(pair, check, number))
            problems.extend(_unknown_advice(pair))
            # Advice in progress holds the region: this waits for it, and hangs if one is lost.
            pair.register_again(REMOTE, odp=True)

        times = timed_rounds(case, one_round)
    if problems:
        more = f" (and {len(problems) - _MAX_PROBLEMS} more)" if len(problems) > _MAX_PROBLEMS else ""
        raise WorkFailed("; ".join(problems[:_MAX_PROBLEMS]) + more)
    return times


def _try(pair: Pair, check: AdviceCheck, number: int) -> List[str]:
    """Give every kind of advice, each with FLUSH and LATER, and check the data after each; return the problems.

    A region without any right to write must refuse PREFETCH_WRITE.
    """
    problems = []
    read_only = pair.memories[REMOTE].region.prot == "read"
    for kind, code in KINDS.items():
        for when in (FLUSH, LATER):
            text = f"{kind} {when} of {check.text}"
            refused = (FLUSH, LATER) if read_only and kind == WRITE else check.refused
            # Earlier asynchronous advice may take effect only now: what is wrong in every attempt is wrong.
            for _ in range(_ATTEMPTS if when == FLUSH and not refused else 1):
                pair.invalidate(REMOTE)
                status = _call(pair, code, _FLAGS_OF[when], check.pieces)
                undone = [] if status or refused or when == LATER else _not_done(pair, kind, check.pieces)
                if not undone:
                    break
            if when in refused and not status:
                problems.append(f"{text}: was to be refused and was not")
            elif not refused and status:
                problems.append(f"{text}: errno {status}")
            problems += [f"{text}: {problem}" for problem in undone]
            if read_only:
                pair.read(number)
            else:
                pair.write(number, absent=False)
    return problems


def _not_done(pair: Pair, kind: str, pieces: Tuple[Piece, ...]) -> List[str]:
    """Return what synchronous advice failed to do: fault in the advised pages, or none with PREFETCH_NO_FAULT.

    Of a file or of shared memory the kernel maps pages around the advised ones, too, and huge pages whole.
    """
    memory, region = pair.memories[REMOTE], pair.registrations[REMOTE]
    present = pagemap.present(memory.pages_start, memory.pages)
    ranges = [(memory.start + address - region.address, length) for _, address, length in pieces]
    advised = {
        page for at, length in ranges for page in range(at // PAGE_BYTES, (at + length - 1) // PAGE_BYTES + 1)
    }
    if kind == NO_FAULT:
        return [f"{present} pages are present"] if present else []
    exact = memory.region.mapping == "anonymous"
    right = present == len(advised) if exact else present >= len(advised)
    return [] if right else [f"{present} pages are present, {len(advised)} were advised"]


def _unknown_advice(pair: Pair) -> List[str]:
    region = pair.registrations[REMOTE]
    piece = (region.lkey, region.address, 1)
    return (
        [] if _call(pair, _UNKNOWN_ADVICE, 0, (piece,)) else ["unknown advice: was to be refused and was not"]
    )


def _call(pair: Pair, kind: int, flags: int, pieces: Tuple[Piece, ...]) -> int:
    """Call UVERBS_METHOD_ADVISE_MR; return the errno, 0 on success."""
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
    """Encode UVERBS_METHOD_ADVISE_MR; `elements` are address and number of its scatter/gather entries."""
    attributes = (
        (_PD_HANDLE, 0, pd),
        (_ADVICE, 8, kind),
        (_FLAGS, 4, flags),
        (_SGE_LIST, elements[1] * _ELEMENT.size, elements[0]),
    )
    length = _HEADER.size + len(attributes) * _ATTRIBUTE.size
    header = _HEADER.pack(length, _OBJECT_MR, _ADVISE_MR, len(attributes), 0, driver, 0)
    return header + b"".join(_ATTRIBUTE.pack(at, size, _MANDATORY, 0, data) for at, size, data in attributes)
