"""A case: one immutable description of what a machine shall do, and the order that carries it there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, Optional, Tuple

from harness.values.module import ModuleUse
from harness.values.rule import Rule
from harness.values.upstream import Selection

TRANSFERS = ("send", "write", "read", "compare_swap", "fetch_add", "atomic_write", "flush")
# Besides transfers: the driver reloaded, objects made and destroyed, a random mixture of transfers; prefetch advice,
# registrations changed in place (each also where pages are pinned, or where that changes), processes killed; processes
# that become another program (which may keep the device's file), that fork; registrations given back under transfers,
# or while their pages go.
# Several queues at once on one region, all sets of access rights (at the far end, the near one, of a receive), a region
# far larger than what is touched of it
# (also where memory is in small pieces), a page lost while another is awaited, the device taken away.
OPERATIONS = (
    *TRANSFERS,
    *("reload", "objects", "soak"),
    *("advise", "advise_pinned", "rereg", "rereg_toggle", "killed"),
    *("exec", "exec_keeping", "forks", "dereg", "dereg_given_up", "dereg_first", "dereg_amid"),
    *("queues", "rights", "rights_local", "rights_receive", "sparse", "fragmented", "overtaken", "unbind"),
)
MAPPINGS = ("anonymous", "shared", "file", "thp", "hugetlb")
PROTS = ("write", "read")
IOVAS = ("address", "shifted", "zero", "implicit")
LOSSES = (
    "none",
    "untouched",
    "peeked",
    "dontneed",
    "late",
    "remap",
    "fork",
    "pageout",
    "holes",
    "migrate",
    "move",
    "protect",
    "split",
    "reclaim",
)
SIDES = ("local", "remote", "both")


@dataclass(frozen=True)
class Region:
    """A memory region to register.

    `length` bytes starting `offset` bytes into its first page (0 <= offset < 4096). `mapping` is the kind of
    memory behind it, one of MAPPINGS (`file`: a private mapping of a file in memory; `thp` and `hugetlb`: anonymous
    memory of whole pages of 2 MiB, the kernel's choice or from its pool). `iova` says which
    address the region is registered at, one of IOVAS: the address of its first byte, that address plus 2**40
    (same offset in the page), or zero-based; `implicit` registers the whole address space, for soaks only.
    `prot`, one of PROTS, says what the process may do with the pages: write them, too, or only `read`; they are
    filled before writing is forbidden, and registered without any right to write.
    """

    length: int
    offset: int = 0
    mapping: str = "anonymous"
    iova: str = "address"
    odp: bool = True
    prot: str = "write"


@dataclass(frozen=True)
class PageLoss:
    """How pages are lost before each round: one of LOSSES, on `side` (one of SIDES) of the transfer."""

    method: str = "none"
    side: str = "remote"


@dataclass(frozen=True)
class Workload:
    """`rounds` times one operation of OPERATIONS between two regions over one RC connection.

    Local is the side that posts the work request. Each round loses pages first and transfers the whole
    region (atomics: the first 8 bytes of every page). Regions have equal lengths. `mtu_bytes` is the path
    MTU: a message travels in packets of that size, and each packet finds its pages for itself. With `seconds` a
    soak goes on that long, whatever its rounds.
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
    """What one run on one machine does; answered once, by an `Answer` with the same id.

    `scheme` says how a card tells the driver of page faults (`transport`, `memory`); a device in software has none.

    `seed` shifts the start by that many turns of a counted loop; `timeout_s` bounds one work request in
    guest time; `trace` is False where the cost of watching is itself measured. `rules` are for an emulated card,
    which is armed with them before the case starts. With `module` the kernel module is loaded and used so.
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
    """How to trace a machine beside what it does: for `seconds` (0: until the command ends, or for ever).

    What was seen so far is told every `interval_s`. `driver` is a name of guest/trace/stages.py, or nothing: the one
    that is loaded.
    """

    seconds: float = 0.0
    interval_s: float = 1.0
    driver: str = ""


@dataclass(frozen=True)
class Request:
    """What is offered to the agent: a number, a verb, and what the verb needs.

    Verbs: `wait` (nothing yet), `compile` (the probes of `device`, for the `prepare` that follows), `prepare`
    (bring up `device`, compile if that is still to do, attach the probes, rehearse), `spin` (be busy for `spin_ns`),
    `case`, `capabilities` (what the device can do on demand, as facts), `exec` (run `argv`), `shell` (a shell on the
    machine's second serial line), `upstream` (upstream's own tests), `trace` (watch page faults while `argv` runs).
    An agent answers each number once, in a `Reply`; of upstream's tests, and of what was traced so far, it tells
    before. `probes`, of a `compile` or `prepare`, is one of PROBES: what watching costs is measured against a
    machine without them, and against one whose programs do nothing.
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
