"""An answer: the results of a case as observed on the machine that ran it. The reply carries it back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, Optional, Tuple

from harness.values.histogram import Histogram
from harness.values.module import ModuleReport
from harness.values.upstream import UpstreamTest


@dataclass(frozen=True)
class Expectation:
    """A count that must be exact: `expected` by the rule `text`, `observed` by `source`."""

    name: str
    expected: int
    observed: int
    source: str
    text: str

    @property
    def holds(self) -> bool:
        """True if the observed count is the expected one."""
        return self.expected == self.observed


@dataclass(frozen=True)
class DataCheck:
    """Bytes compared after the rounds: those that had to change, and their neighbours that had not.

    `wrong` counts bytes that differ, `first` describes the first one (side, round, offset, expected, found).
    """

    bytes_checked: int = 0
    wrong: int = 0
    first: str = ""


@dataclass(frozen=True)
class FaultRecord:
    """One page fault as traced: its start in ns since the case began, its duration, its address range.

    `pages` is negative for a failed fault (-errno). `inner_ns` is the duration of each stage within it, and
    `inner_at_ns` the begin of its first call, from the fault's start; a stage before it (`queues`) has a
    negative one. `pid` is the process that owns the memory; `token` and `sub_type` are a card's.
    """

    start_ns: int
    duration_ns: int
    address: int
    length: int
    pages: int
    cpu: int
    inner_ns: Dict[str, int] = field(default_factory=dict)
    inner_at_ns: Dict[str, int] = field(default_factory=dict)
    pid: int = 0
    token: int = 0
    sub_type: int = 0


@dataclass(frozen=True)
class Trace:
    """Results of the probes: totals per event name, histograms per stage, and one record per fault.

    `lost` counts records that the stream dropped, `missed` probe hits that the kernel did not run; the
    histograms and counts are complete if `missed` is 0 even if records were lost. `whole` names the stage that
    is the whole fault: each of its calls has a record, or is in `lost`. The probes' programs ran `hits`
    times, for `cost_ns` in all, within `watched_ns`.
    """

    counts: Dict[str, int] = field(default_factory=dict)
    histograms: Tuple[Histogram, ...] = ()
    faults: Tuple[FaultRecord, ...] = ()
    lost: int = 0
    missed: int = 0
    whole: str = ""
    hits: int = 0
    cost_ns: int = 0
    watched_ns: int = 0


@dataclass(frozen=True)
class Leak:
    """A count of `resource` (QP, MR, module references, pinned pages) that grew over the case."""

    resource: str
    before: int
    after: int


@dataclass(frozen=True)
class Answer:
    """Results of one case.

    Status `done` means only that the workload ended; the plan judges expectations and data. `unsupported`: the
    machine lacks what `problem` names. `failed`: a work request or a call failed, with `problem` (work
    completion status, errno). Times are in guest nanoseconds of CLOCK_MONOTONIC; in exact time one of
    them is one instruction. `operations_ns` has one entry per round.
    """

    VERSION = 1

    case_id: str
    status: str
    problem: str = ""
    expectations: Tuple[Expectation, ...] = ()
    data: DataCheck = field(default_factory=DataCheck)
    trace: Trace = field(default_factory=Trace)
    leaks: Tuple[Leak, ...] = ()
    operations_ns: Tuple[int, ...] = ()
    elapsed_ns: int = 0
    notes: Tuple[str, ...] = ()
    module: Optional[ModuleReport] = None


@dataclass(frozen=True)
class Reply:
    """The agent's reply to a request: the same number, ok or the problem, and the results of the verb.

    One with a `test`, a `trace` or something `printed` is not the last: it reports one of upstream's tests, the faults
    traced so far (with the records since the one before), or the next piece of a command's output, while the request
    is carried out. `output` does not repeat those pieces.
    """

    VERSION = 1

    number: int
    ok: bool
    problem: str = ""
    answer: Optional[Answer] = None
    exit_status: int = 0
    output: str = ""
    facts: Dict[str, str] = field(default_factory=dict)
    test: Optional[UpstreamTest] = None
    trace: Optional[Trace] = None
    printed: str = ""

    @property
    def last(self) -> bool:
        """True if this ends the request."""
        return self.test is None and self.trace is None and not self.printed
