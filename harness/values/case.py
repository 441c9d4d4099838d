"""A case: one immutable description of a test on a machine, and the request that carries it there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, Optional, Tuple

from harness.values.module import ModuleUse
from harness.values.rule import Rule
from harness.values.upstream import Selection

TRANSFERS: Dict[str, str] = {
    "send": "Send the whole region into a posted receive.",
    "write": "RDMA-write the whole region.",
    "read": "RDMA-read the whole region.",
    "compare_swap": "Compare-and-swap one word of each page; every other one swaps.",
    "fetch_add": "Fetch-and-add to one word of each page.",
    "atomic_write": "Atomic-write one word of each page.",
    "flush": "RDMA-flush the whole region.",
}
"""Operations of the data path, whose page faults and invalidations the page-state model predicts."""

OPERATIONS: Dict[str, str] = {
    **TRANSFERS,
    "reload": "Unload the driver and load it again; the device must come back with the same capabilities.",
    "objects": "Create and destroy one of each verbs object, and two queue pairs up to RTS.",
    "soak": "Run random transfers on several connections while another thread invalidates random pages.",
    "advise": "Call ibv_advise_mr() with every kind of advice, valid and invalid, on an on-demand region.",
    "advise_pinned": "Call ibv_advise_mr() on a region with pinned pages, which must be refused.",
    "rereg": "Change rights, memory and protection domain of a region with ibv_rereg_mr().",
    "rereg_toggle": "Switch on-demand paging of a region on and off with ibv_rereg_mr().",
    "kill": "Kill a process while the device faults on its memory.",
    "exec": "Call execve() while the device faults on the process's memory.",
    "exec_inherit": "Call execve() while the device faults, and let the new program inherit the device's file.",
    "fork_loop": "Call fork() in a loop while the device writes to the COW pages.",
    "dereg": "Call ibv_dereg_mr() while the device faults on the region.",
    "dereg_qp_error": "Move the queue pairs to the error state, then call ibv_dereg_mr() while the device faults.",
    "use_after_dereg": "Post a transfer that uses a deregistered region.",
    "dereg_race": "Race ibv_dereg_mr() against invalidation of the same pages.",
    "multi_qp": "Transfer by several queue pairs at once, to the same pages and to neighbouring ones.",
    "access_rights": "Try all sets of access flags of the remote region with one-sided operations.",
    "access_rights_local": "Try sets of access flags of the requester's own region.",
    "access_rights_receive": "Try sets of access flags of a receive's region.",
    "sparse": "Touch a few pages of a region far larger than the memory behind it.",
    "fragmented": "Run `sparse` while free memory is fragmented, so that the driver's large allocations fail.",
    "invalidate_while_faulting": "Invalidate a mapped page while the device is blocked on the next one.",
    "unbind": "Remove the device from under a process that transfers, and bring it back.",
}
"""Everything that a case can do, one sentence each; all but TRANSFERS are scenarios with a script of their own."""

MAPPINGS: Dict[str, str] = {
    "anonymous": "Private anonymous memory.",
    "shared": "Shared anonymous memory.",
    "file": "A private mapping of a file in memory (memfd).",
    "thp": "Private anonymous memory, aligned and advised for transparent huge pages.",
    "hugetlb": "Private memory of the hugetlb pool, in pages of 2 MiB.",
}
PROTS: Dict[str, str] = {
    "write": "Read and write.",
    "read": "Read only; the region is registered without write access.",
}
IOVAS: Dict[str, str] = {
    "address": "The address of its first byte.",
    "shifted": "That address plus 2**40, at the same offset in the page.",
    "zero": "Zero-based.",
    "implicit": "The whole address space, as one implicit region; for soaks only.",
}
PAGE_LOSSES: Dict[str, str] = {
    "none": "No page is made absent: pages that the CPU wrote before registration never fault.",
    "untouched": "A fresh mapping, registered before the CPU touches it.",
    "read_faulted": "A fresh mapping that the CPU only reads before registration: zero pages, or pages of the file.",
    "dontneed": "madvise(MADV_DONTNEED) of all pages at once.",
    "userfaultfd": "MADV_DONTNEED; userfaultfd(2) then delivers each page 100 ms after it is missed.",
    "remap": "munmap() of all pages at once, then mmap() at the same address.",
    "fork": "fork(): the device's write copies the page, the child keeps the old one.",
    "pageout": "madvise(MADV_PAGEOUT): pages go to swap.",
    "holes": "MADV_DONTNEED of every eighth page, then of the second half.",
    "migrate": "madvise(MADV_SOFT_OFFLINE): each page migrates to another frame.",
    "move": "move_pages(2): each page migrates to the other NUMA node.",
    "protect": "mprotect() to read-only and back: two invalidations.",
    "split": "mprotect() of one page in the middle, which splits its huge page.",
    "reclaim": "memory.reclaim of the control group: pages go to swap.",
}
SIDES: Dict[str, str] = {
    "local": "The side that posts the work request.",
    "remote": "The other side.",
    "both": "Both sides.",
}


@dataclass(frozen=True)
class Region:
    """A memory region to register.

    `length` bytes from `offset` bytes into its first page on (0 <= offset < 4096). `mapping` is the kind of memory
    behind it, one of MAPPINGS; `iova` the address that it is registered at, one of IOVAS; `prot` what the process may
    do with the pages once they are filled, one of PROTS.
    """

    length: int
    offset: int = 0
    mapping: str = "anonymous"
    iova: str = "address"
    odp: bool = True
    prot: str = "write"


@dataclass(frozen=True)
class PageLoss:
    """Method to make pages absent before each round: one of PAGE_LOSSES, on `side` (one of SIDES) of the transfer."""

    method: str = "none"
    side: str = "remote"


@dataclass(frozen=True)
class Workload:
    """`rounds` times one operation of OPERATIONS between two regions over one RC connection.

    Local is the side that posts the work request. Each round makes pages absent and then transfers the whole
    region (atomics: the first 8 bytes of every page). Regions have equal lengths. `mtu_bytes` is the path
    MTU: a message travels in packets of that size, and each packet looks its pages up. With `seconds` a soak takes
    that long, whatever its rounds.
    """

    operation: str
    rounds: int
    local: Region
    remote: Region
    loss: PageLoss = field(default_factory=PageLoss)
    mtu_bytes: int = 1024
    seconds: int = 0


@dataclass(frozen=True)
class Case:
    """One run on one machine; answered once, by an `Answer` with the same id.

    `scheme` is the form of the card's page-fault events (`transport`, `memory`); a software device has none. `seed`
    is the start offset in turns of a counted loop; `timeout_s` bounds one work request in guest time; `trace` is False
    where the cost of tracing is measured. An emulated card gets `rules` before the case starts. With `module` the
    kernel module is loaded and used.
    """

    VERSION = 1

    id: str
    device: str
    workload: Workload
    seed: int = 0
    timeout_s: float = 20.0
    trace: bool = True
    scheme: str = ""
    rules: Tuple[Rule, ...] = ()
    module: Optional[ModuleUse] = None


PROBES = ("all", "empty", "none")


@dataclass(frozen=True)
class Watch:
    """Live tracing of a machine for `seconds` (0: until the command ends, or without end).

    The trace so far is reported every `interval_s`. `driver` is a name of guest/trace/stages.py, or nothing for the
    one that is loaded.
    """

    seconds: float = 0.0
    interval_s: float = 1.0
    driver: str = ""


@dataclass(frozen=True)
class Request:
    """A request to the agent: a number, a verb, and what the verb needs.

    Verbs: `wait` (nothing yet), `compile` (the probes of `device`, for the `prepare` that follows), `prepare`
    (bring up `device`, compile if that is still to do, attach the probes, rehearse), `spin` (be busy for `spin_ns`),
    `case`, `capabilities` (the device's ODP capabilities, as facts), `exec` (run `argv`, once the driver has `device`
    if that is named), `shell` (a shell on the machine's second serial line, as `exec`), `upstream` (upstream's own
    tests), `trace` (watch page faults while `argv` runs).
    An agent answers each number once, in a `Reply`; upstream's tests, live traces and the output of `exec` send replies
    before that. `probes`, of a `compile` or `prepare`, is one of PROBES: the cost of tracing is measured against a
    machine without probes, and against one whose programs do nothing.
    """

    VERSION = 1

    number: int
    verb: str
    device: str = ""
    case: Optional[Case] = None
    argv: Tuple[str, ...] = ()
    upstream: Optional[Selection] = None
    watch: Optional[Watch] = None
    environment: Dict[str, str] = field(default_factory=dict)
    probes: str = "all"
    spin_ns: int = 0
