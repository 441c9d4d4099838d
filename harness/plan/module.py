"""The kernel module in plans: the table [module], the module in a machine's parcel, and what its report must say.

Module, driver and card see the same page faults from three places, so their accounts must agree; so must the
capability pages that the module asks for and what firmware and verbs state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.kernel.build import build
from harness.kernel.build_without_odp import without_paging
from harness.kernel.packages import Kernel
from harness.machine import payload_disk
from harness.machine.qemu import Shape
from harness.machine.snapshot import MachineFactory, Snapshot
from harness.plan.checkout import find_folder
from harness.plan.schema import Key, Source, check_entry
from harness.values.case import Request
from harness.values.module import (
    ACTIONS,
    ANSWERS,
    MODES,
    OWNERS,
    REGIONS,
    SELECTORS,
    ModulePolicy,
    ModuleReport,
    ModuleUse,
)
from harness.values.record import DeviceReport

FOLDER, FILE = "kmod", "mlx5_odp_test"

USE = {
    "mode": Key(str, MODES),
    "answer": Key(str, ANSWERS),
    "region": Key(str, REGIONS),
    "paging": Key(bool),
}
POLICY = {
    "action": Key(str, ACTIONS),
    "selector": Key(str, SELECTORS),
    "of": Key(str, OWNERS),
    "value": Key(int, high=(1 << 48) - 1),
    "delay_ms": Key(int, low=1, high=60_000),
}

RESUMED = ("resumed", "failed", "invented_resumed", "invented_failed", "resumes_lost")
REFUSED = ("unknown_resumes", "resumes_refused")
LOSSES = ("lost_memory", "overruns", "undecoded", "unknown")
"""Statistics that are 0 unless a plan expects otherwise."""


def parse(source: Source, table: Any) -> ModuleUse | None:
    """The table [module] with its list `policies`; None if there is none."""
    if table is None:
        return None
    if not isinstance(table, dict):
        raise source.error("module", "write it as [module]")
    given = dict(table)
    policies = given.pop("policies", [])
    check_entry(source, "module", USE, given)
    if not isinstance(policies, list) or not all(isinstance(entry, dict) for entry in policies):
        raise source.error("module.policies", "a list of tables")
    for entry in policies:
        check_entry(source, "module.policies", POLICY, entry)
        if "action" not in entry:
            raise source.error("module.policies", "one has no action", ACTIONS)
    return ModuleUse(policies=tuple(ModulePolicy(**entry) for entry in policies), **given)


def prepared(
    studio: MachineFactory,
    kernel: Kernel,
    shape: Shape,
    request: Request,
    files: Mapping[str, Path],
    use: ModuleUse,
) -> Snapshot:
    """A prepared machine with the module in its parcel, beside `files`; built if the cache has none."""
    archive = studio.archive
    ours = {f"{FILE}.ko": build(find_folder(FOLDER, None), kernel, archive).modules[FILE]}
    if not use.paging:
        name, path = without_paging(kernel, archive)
        ours[f"modules/{name}.ko"] = path
    if files or not use.paging:
        return studio.prepared(kernel, shape, request, {**files, **ours})
    # It is no module of the kernel's own, so a machine that was saved with an empty parcel may find it there.
    snapshot = studio.prepared(kernel, shape, request)
    given = payload_disk.packed(ours, studio.store, studio.host)
    return replace(snapshot, disks=replace(snapshot.disks, payload=given))


# -- what the report must say


def check(
    use: ModuleUse,
    expected: Mapping[str, int],
    refused: str,
    report: ModuleReport | None,
    device_report: DeviceReport,
    firmware: Mapping[str, Mapping[str, tuple[str, ...]]],
) -> Iterator[str]:
    """What is wrong: each a line. `expected` are counters of the plan, `refused` words of the module."""
    if report is None:
        yield "no report"
        return
    if refused not in report.refused or bool(refused) != bool(report.refused):
        yield f"mode {use.mode}: expected refusal {refused!r}, got {report.refused!r}"
    yield from _caps(report, firmware, use)
    card = {
        k.removeprefix("faults."): n for k, n in device_report.counters.items() if k.startswith("faults.")
    }
    if not report.refused:
        yield from _accounts(use, report, card, expected)
    if any(outcome.kind == "drawn-events" for outcome in device_report.rules) and report.drawn != card.get(
        "invented", 0
    ):
        yield f"events with random fields: {report.drawn} right, the card sent {card.get('invented', 0)}"
    counters = {**report.stats, **report.answers, "heard": report.heard, "drawn": report.drawn}
    for name, wanted in expected.items():
        counted = counters.get(name, 0)
        if counted != wanted:
            yield f"{name}: expected {wanted}, counted {counted}"
    if report.difference:
        yield f"an event is not what the card raised: {report.difference}"


def _accounts(
    use: ModuleUse, report: ModuleReport, card: Mapping[str, int], expected: Mapping[str, int]
) -> Iterator[str]:
    """Card and module count the same."""
    stats = report.stats

    def total(names: tuple[str, ...]) -> int:
        return sum(card.get(name, 0) for name in names)

    pairs = {
        "observe": (("observed", card.get("events", 0)), ("observed_resumes", total(RESUMED + REFUSED))),
        "own": (
            ("events", card.get("events", 0)),
            ("resumes", total(RESUMED)),
            ("resumes_refused", total(REFUSED)),
        ),
    }
    for name, told in pairs.get(use.mode, ()):
        if name not in expected and stats.get(name, 0) != told:
            yield f"{name}: {stats.get(name, 0)}, the card says {told}"
    for name in LOSSES:
        if name not in expected and stats.get(name, 0):
            yield f"{name}: {stats[name]}"


def _caps(
    report: ModuleReport, firmware: Mapping[str, Mapping[str, tuple[str, ...]]], use: ModuleUse
) -> Iterator[str]:
    """Pages, maximum and current, against firmware and mlx5_core's copies; the current one against verbs."""
    caps = report.caps
    for which in ("max", "cur"):
        if caps.get(f"{which}.driver") != "same":
            yield f"caps: mlx5_core's copy of the {which} page differs from the device's"
        for scheme in ("transport", "memory"):
            stated = firmware.get(scheme, {})
            rows = {row for row in stated if row != "general"}
            prefix = f"{which}.{scheme}."
            rows |= {name.removeprefix(prefix) for name in caps if name.startswith(prefix)}
            for row in sorted(rows):
                found, wanted = caps.get(prefix + row, ""), " ".join(stated.get(row, ()))
                if set(found.split()) != set(wanted.split()):
                    yield f"caps: {prefix}{row}: firmware states {wanted or 'nothing'}, the module found {found}"
    chosen = caps.get("cur.chosen", "")
    for row in ("rc", "uc", "ud", "xrc") if use.paging else ():
        module = {word.replace("receive", "recv") for word in caps.get(f"cur.{chosen}.{row}", "").split()}
        verbs = set(caps.get(f"verbs.{row}", "").split())
        if verbs - module or (row in ("rc", "ud") and module - verbs):
            yield f"caps: {row}: verbs say {' '.join(sorted(verbs))}, the module {' '.join(sorted(module))}"
