"""A plan: what is needed, what varies, the workload, the faults, what is expected."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.device.catalogue import DEVICES
from harness.kernel import local_tree
from harness.plan import module
from harness.plan.schema import PAGE_BYTES, SCHEMA, Source, check, check_axis, flatten, read
from harness.values.case import Case, PageLoss, Region, Workload
from harness.values.module import ModuleUse
from harness.values.record import Reason
from harness.values.rule import KINDS, Rule, keys_of

FULL = "ODP_FULL"
"""The environment variable that makes plans as long as their table [full] says, on the last of their kernels."""


@dataclass(frozen=True)
class Expect:
    """What a case must show; `latency` bounds are {"fault_p99_ns": most}, of an operation, a whole fault or a stage.

    One that says `_exact_ns` or `_real_ns` binds in that clock only.

    `workload` says how its work requests end; those that are to fail do so with a text that has `problem` in it.
    `found` are kinds of findings, `log` texts on the console, that must be seen and are then no failures; `may_find`
    are kinds that need not, where a race decides. `card` are counters of the card that must have exactly these values,
    `card_most` those that may not be larger; `module` are counters of the kernel module, `refused` are its words where
    it must not take the mode that is asked for. `least` are counts of the trace that may not be smaller, where no law
    says how large they are.
    """

    laws: bool = True
    conservation: bool = True
    data: bool = True
    console: str = "clean"
    leaks: bool = True
    findings: bool = True
    faults: int | None = None
    workload: str = "done"
    problem: str = ""
    found: tuple[str, ...] = ()
    may_find: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    card: dict[str, int] = field(default_factory=dict)
    card_most: dict[str, int] = field(default_factory=dict)
    module: dict[str, int] = field(default_factory=dict)
    refused: str = ""
    least: dict[str, int] = field(default_factory=dict)
    latency: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Known:
    """A stock kernel's defect: on these series the case fails, for reasons of these kinds that have one of the texts
    `says` in them (any, without) and no other, and must.

    It is a driver's, so it counts on `devices` only (empty: all). One that shows only `sometimes` need not.
    """

    kernels: tuple[str, ...]
    kinds: tuple[str, ...]
    text: str
    devices: tuple[str, ...] = ()
    sometimes: bool = False
    says: tuple[str, ...] = ()

    def excuses(self, reason: Reason) -> bool:
        """Whether this is how the defect shows."""
        return reason.kind in self.kinds and (not self.says or any(text in reason.text for text in self.says))

    def applies(self, release: str, device: str) -> bool:
        """Whether a case on this release and device is to show it."""
        ours = release.startswith(tuple(f"{series}." for series in self.kernels))
        return ours and device in (self.devices or (device,))


@dataclass(frozen=True)
class Planned:
    """One case of a plan on one kernel (a series, a release, a tree) and device, not yet run."""

    plan: Plan
    kernel: str
    case: Case
    clock: str
    deadline_s: float


@dataclass(frozen=True)
class Plan:
    """A plan file, checked; `text` is what it said then. `longer`: settings of its long form, empty without FULL."""

    path: Path
    title: str
    needs: tuple[str, ...]
    kernels: tuple[str, ...]
    devices: tuple[str, ...]
    axes: dict[str, tuple[Any, ...]]
    settings: dict[str, Any]
    expect: Expect
    known: tuple[Known, ...]
    rules: tuple[Rule, ...] = ()
    module: ModuleUse | None = None
    text: str = ""
    longer: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.path.stem

    def cases(
        self, kernels: tuple[str, ...] = (), clock: str = "", devices: tuple[str, ...] = ()
    ) -> Iterator[Planned]:
        """All cases: the plan's own matrix, or just these kernels or devices of it; `clock` overrides."""
        names = list(self.axes)
        kernels = kernels or self.kernels
        for kernel, device in itertools.product(kernels, devices or self.devices):
            length = self.longer if kernel in _last(kernels) else {}
            for values in itertools.product(*self.axes.values()):
                settings = {**self.settings, **length, **dict(zip(names, values, strict=True))}
                label = "-".join(_label(name, value) for name, value in zip(names, values, strict=True))
                case_id = "/".join(
                    part for part in (self.name, local_tree.called(kernel), device, label) if part
                )
                yield Planned(
                    self,
                    kernel,
                    Case(
                        case_id,
                        device,
                        _workload(settings),
                        seed=settings.get("workload.seed", 0),
                        timeout_s=float(settings.get("workload.timeout_s", Case.timeout_s)),
                        # What the module has taken over mlx5_ib does not see.
                        trace=settings.get(
                            "workload.trace", self.module is None or self.module.mode != "own"
                        ),
                        rules=self.rules,
                        module=self.module,
                    ),
                    clock or settings.get("clock", DEVICES[device].clock),
                    settings.get("deadline_s", 120),
                )


def load(path: Path) -> Plan:
    """Read and check a plan file; UsageError with file, line and key."""
    source, table = read(path)
    known = table.pop("known", [])
    rules = table.pop("rules", [])
    used = module.parse(source, table.pop("module", None))
    matrix = table.pop("matrix", {})
    flat = flatten(table)
    for key, value in flat.items():
        check(source, key, value)
    longer = {key.removeprefix("full."): flat.pop(key) for key in list(flat) if key.startswith("full.")}
    axes = _axes(source, flatten(matrix))
    for key in ("title", "workload.operation", "faults.how"):
        if key not in flat and key not in axes:
            raise source.error(key, "missing", SCHEMA)
    plan = Plan(
        path,
        flat["title"],
        tuple(flat.get("needs", ())),
        tuple(matrix.get("kernel", ("newest",))),
        tuple(matrix.get("device", ("soft-roce",))),
        axes,
        {k: v for k, v in flat.items() if k.startswith(("workload.", "faults.", "clock", "deadline_s"))},
        _expect(flat),
        _known(source, known),
        _rules(source, rules),
        used,
        source.text,
        longer if os.environ.get(FULL) else {},
    )
    _contradictions(source, plan)
    return plan


def _last(kernels: tuple[str, ...]) -> set[str]:
    """Where a plan is long: on `newest`, and on the last other (of a matrix: by age), which may be the same release."""
    return {"newest", *[kernel for kernel in kernels if kernel != "newest"][-1:]}


def _axes(source: Source, matrix: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Settings that vary: `how` and `side` are of [faults], all others of [workload]."""
    axes = {}
    for key, values in matrix.items():
        if key in ("kernel", "device"):
            check(source, f"matrix.{key}", values)
            continue
        target = f"faults.{key}" if f"faults.{key}" in SCHEMA else f"workload.{key}"
        check_axis(source, f"matrix.{key}", target, values)
        axes[target] = tuple(values)
    return axes


def _expect(flat: dict[str, Any]) -> Expect:
    given = {k.removeprefix("expect."): v for k, v in flat.items() if k.startswith("expect.")}
    tables: dict[str, Any] = {
        table: {k.removeprefix(f"{table}."): v for k, v in given.items() if k.startswith(f"{table}.")}
        for table in ("latency", "card", "card_most", "module", "least")
    }
    simple: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if "." not in k
    }
    return Expect(**simple, **tables)


def _known(source: Source, entries: Any) -> tuple[Known, ...]:
    if not isinstance(entries, list):
        raise source.error("known", "write it as [[known]]")
    for nth, entry in enumerate(entries, 1):
        for key, value in entry.items():
            check(source, f"known.{key}", value, nth)
        for key in ("kernel", "kinds", "says", "text"):
            if key not in entry:
                raise source.error(f"known.{key}", "missing", nth=nth)
    return tuple(
        Known(
            tuple(entry["kernel"]),
            tuple(entry["kinds"]),
            entry["text"],
            tuple(entry.get("device", ())),
            entry.get("sometimes", False),
            tuple(entry["says"]),
        )
        for entry in entries
    )


def _rules(source: Source, entries: Any) -> tuple[Rule, ...]:
    """The rules, each with the keys of its kind only."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise source.error("rules", "write it as [[rules]]")
    for nth, entry in enumerate(entries, 1):
        if "kind" not in entry:
            raise source.error("rules.kind", "missing", nth=nth)
        check(source, "rules.kind", entry["kind"], nth)
        allowed = keys_of(entry["kind"])
        for key, value in entry.items():
            check(source, f"rules.{key}", value, nth)
            if key not in allowed:
                raise source.error(f"rules.{key}", f"no key of {entry['kind']}", allowed, nth)
        if KINDS[entry["kind"]].on == "command" and "opcode" not in entry:
            raise source.error("rules.opcode", "missing: the name of a firmware command", nth=nth)
    return tuple(Rule(**entry) for entry in entries)


def _workload(settings: dict[str, Any]) -> Workload:
    length = settings.get("workload.length", settings.get("workload.pages", 1) * PAGE_BYTES)
    loss = PageLoss(settings["faults.how"], settings.get("faults.side", "remote"))

    def region(side: str) -> Region:
        names = ["lost", side] if loss.side in (side, "both") else [side]
        keys = [(name, key) for name in names for key in ("offset", "mapping", "iova", "odp", "prot")]
        given = {
            key: settings[f"workload.{name}.{key}"]
            for name, key in keys
            if f"workload.{name}.{key}" in settings
        }
        return Region(length, **given)

    return Workload(
        settings["workload.operation"],
        settings.get("workload.rounds", 1),
        region("local"),
        region("remote"),
        loss,
        mtu_bytes=settings.get("workload.mtu", 1024),
        seconds=settings.get("workload.seconds", 0),
    )


def _contradictions(source: Source, plan: Plan) -> None:
    """Refuse what each key allows but all together do not."""
    settings = {**plan.settings, **plan.axes}
    if "workload.pages" in settings and "workload.length" in settings:
        raise source.error("workload.length", "contradicts workload.pages: give one of them")
    expect = plan.expect
    if expect.workload == "fails" and not expect.problem:
        raise source.error("expect.workload", "say with which words it is to fail: expect.problem")
    software = [name for name in plan.devices if not DEVICES[name].plugged]
    if plan.rules and software:
        raise source.error("rules", f"only an emulated card takes rules, not {software[0]}", nth=1)
    if plan.module is not None and software:
        raise source.error("module", f"the kernel module is for mlx5 cards, not {software[0]}")
    for planned in plan.cases():
        work = planned.case.workload
        for side, region in (("local", work.local), ("remote", work.remote)):
            if work.loss.method != "none" and work.loss.side in (side, "both") and not region.odp:
                raise source.error("faults.side", f"loses pages of the {side} region, which is no ODP region")
            if work.operation in ("compare_swap", "fetch_add") and side == "remote" and region.offset % 8:
                raise source.error("workload.remote.offset", "atomics need a multiple of 8")


def _label(name: str, value: Any) -> str:
    short = name.removeprefix("workload.").removeprefix("faults.")
    return str(value) if short in ("operation", "how", "side") else f"{short}={value}"
