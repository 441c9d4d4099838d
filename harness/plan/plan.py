"""A plan: needs, matrix, workload, page-loss method, expectations."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.device.traits import TRAITS
from harness.kernel import local_tree
from harness.plan import parse
from harness.plan.check import check
from harness.plan.expect import Expect, Known
from harness.plan.schema import SCHEMA, of
from harness.plan.source import Source, flatten, read
from harness.values.case import Case
from harness.values.module import ModuleUse
from harness.values.rule import Rule

__all__ = ["FULL", "Expect", "Known", "Plan", "Planned", "load"]

FULL = "ODP_FULL"
"""The environment variable that applies the table [full] of each plan, on the last of their kernels."""


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
    """A plan file, checked; `text` is its content then. `longer`: settings of its long form, empty without FULL."""

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
        """Yield all cases: of the plan's own matrix, or just of these kernels or devices; `clock` overrides."""
        names = list(self.axes)
        kernels = kernels or self.kernels
        for kernel, device in itertools.product(kernels, devices or self.devices):
            length = self.longer if kernel in _last(kernels) else {}
            for values in itertools.product(*self.axes.values()):
                settings = {**self.settings, **length, **dict(zip(names, values, strict=True))}
                label = "-".join(_label(name, value) for name, value in zip(names, values, strict=True))
                parts = (self.name, local_tree.called(kernel), device, label)
                yield Planned(
                    self,
                    kernel,
                    self._case("/".join(filter(None, parts)), device, settings),
                    clock or settings.get("clock", TRAITS[device].clock),
                    of(settings, "deadline_s"),
                )

    def _case(self, case_id: str, device: str, settings: dict[str, Any]) -> Case:
        return Case(
            case_id,
            device,
            parse.workload(settings, pinned=self.module is not None),
            seed=of(settings, "workload.seed"),
            timeout_s=float(of(settings, "workload.timeout_s")),
            # mlx5_ib does not see the faults that the module owns.
            trace=settings.get("workload.trace", self.module is None or self.module.mode != "own"),
            rules=self.rules,
            module=self.module,
        )


def load(path: Path) -> Plan:
    """Read and check a plan file; UsageError with file, line and key."""
    source, table = read(path)
    known = table.pop("known", [])
    rules = parse.rules(source, table.pop("rules", []))
    module = parse.module(source, table.pop("module", None))
    matrix = table.pop("matrix", {})
    flat = flatten(table)
    for key, value in flat.items():
        check(source, key, value)
    longer = {key.removeprefix("full."): flat.pop(key) for key in list(flat) if key.startswith("full.")}
    axes = parse.axes(source, flatten(matrix))
    for key in ("title", "workload.operation"):
        if key not in flat and key not in axes:
            raise source.error(key, "missing", SCHEMA)
    needs = tuple(flat.get("needs", ()))
    plan = Plan(
        path,
        flat["title"],
        needs,
        parse.kernels(matrix, flat.get("since")),
        parse.devices(
            source, matrix, needs, parse.implied_needs(flat, axes, bool(rules), module is not None)
        ),
        axes,
        {k: v for k, v in flat.items() if k.startswith(("workload.", "page_loss.", "clock", "deadline_s"))},
        parse.expect(flat),
        parse.known(source, known),
        rules,
        module,
        source.text,
        longer if os.environ.get(FULL) else {},
    )
    _contradictions(source, plan)
    if "since" in flat and "kernel" in matrix:
        raise source.error("since", "contradicts matrix.kernel: give one of them")
    return plan


def _last(kernels: tuple[str, ...]) -> set[str]:
    """Return where a plan is long: on `newest`, and on the last other (by age), which may be the same release."""
    return {"newest", *[kernel for kernel in kernels if kernel != "newest"][-1:]}


def _contradictions(source: Source, plan: Plan) -> None:
    """Refuse what each key allows but all together do not."""
    settings = {**plan.settings, **plan.axes}
    if "workload.pages" in settings and "workload.length" in settings:
        raise source.error("workload.length", "contradicts workload.pages: give one of them")
    expect = plan.expect
    if expect.workload == "fails" and not expect.problem:
        raise source.error("expect.workload", "needs the text of the error: expect.problem")
    software = [name for name in plan.devices if not TRAITS[name].plugged]
    if plan.rules and software:
        raise source.error("rules", f"only an emulated card takes rules, not {software[0]}", nth=1)
    if plan.module is not None and software:
        raise source.error("module", f"the kernel module is for mlx5 cards, not {software[0]}")
    for planned in plan.cases():
        work = planned.case.workload
        for side, region in (("local", work.local), ("remote", work.remote)):
            if work.loss.method != "none" and work.loss.side in (side, "both") and not region.odp:
                raise source.error(
                    "page_loss.side", f"the {side} region is pinned: its pages cannot be absent"
                )
            if work.operation in ("compare_swap", "fetch_add") and side == "remote" and region.offset % 8:
                raise source.error("workload.remote.offset", "atomics need a multiple of 8")


def _label(name: str, value: Any) -> str:
    short = name.removeprefix("workload.").removeprefix("page_loss.")
    return str(value) if short in ("operation", "method", "side") else f"{short}={value}"
