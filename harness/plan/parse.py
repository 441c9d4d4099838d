"""Turn the tables of a plan file into values; UsageError with file, line and key for what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.device.traits import TRAITS
from harness.kernel.packages import SERIES
from harness.plan.check import check, check_axis, check_entry
from harness.plan.expect import Expect, Known
from harness.plan.schema import COUNTERS, MODULE, PAGE_BYTES, POLICY, STOCK, of
from harness.plan.source import Source
from harness.values.case import PageLoss, Region, Workload
from harness.values.module import ACTIONS, ModulePolicy, ModuleUse
from harness.values.rule import KINDS, Rule, keys_of

# They register no memory.
WITHOUT_REGIONS = ("reload", "objects")

Settings = Mapping[str, Any]


def axes(source: Source, matrix: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Return the settings that vary: `method` and `side` are of [page_loss], all others of [workload]."""
    varied = {}
    for key, values in matrix.items():
        if key in ("kernel", "device"):
            check(source, f"matrix.{key}", values)
            continue
        target = f"page_loss.{key}" if key in ("method", "side") else f"workload.{key}"
        check_axis(source, f"matrix.{key}", target, values)
        varied[target] = tuple(values)
    return varied


def kernels(matrix: Mapping[str, Any], since: str | None) -> tuple[str, ...]:
    """Return the series of a plan: those it names, else all from `since` on."""
    return tuple(matrix.get("kernel") or list(SERIES)[_first(tuple(SERIES), since) :])


def devices(
    source: Source, matrix: Mapping[str, Any], needs: tuple[str, ...], implied: set[str]
) -> tuple[str, ...]:
    """Return the devices of a plan: those it names, which must meet `needs`; else all that meet all needs."""
    named = tuple(matrix.get("device", ()))
    for name in named:
        lacks = [need for need in needs if need not in TRAITS[name].meets]
        if lacks:
            raise source.error("matrix.device", f"{name} does not meet the need {lacks[0]}")
    able = tuple(name for name, traits in TRAITS.items() if traits.meets >= {*needs, *implied})
    if not named and not able:
        raise source.error("needs", f"no device meets {', '.join(sorted({*needs, *implied}))}")
    return named or able


def implied_needs(settings: Settings, varied: Settings, rules: bool, module: bool) -> set[str]:
    """Return the needs that a plan does not have to name: of its rules, its module, its regions on demand."""
    needs = {"rules"} if rules else set()
    needs |= {"mlx5"} if module else set()
    operations = varied.get("workload.operation") or (settings["workload.operation"],)
    if any(operation not in WITHOUT_REGIONS for operation in operations):
        both = {**settings, **varied}
        for side in ("local", "remote"):
            keys = (f"workload.{side}.odp", "workload.absent.odp")
            stated = [both[key] for key in keys if key in both] or [not module]
            if any(value is True or isinstance(value, tuple) and True in value for value in stated):
                needs.add("odp")
    return needs


def expect(flat: Settings) -> Expect:
    """Return the table [expect]."""
    entries = {k.removeprefix("expect."): v for k, v in flat.items() if k.startswith("expect.")}
    tables: dict[str, Any] = {
        table: {k.removeprefix(f"{table}."): v for k, v in entries.items() if k.startswith(f"{table}.")}
        for table in ("latency", *(name.removeprefix("expect.") for name in COUNTERS))
    }
    simple: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in entries.items() if "." not in k
    }
    return Expect(**simple, **tables)


def known(source: Source, entries: Any) -> tuple[Known, ...]:
    """Return the tables [[known]]."""
    if not isinstance(entries, list):
        raise source.error("known", "write it as [[known]]")
    for nth, entry in enumerate(entries, 1):
        for key, value in entry.items():
            check(source, f"known.{key}", value, nth)
        for key in ("kinds", "message", "text"):
            if key not in entry:
                raise source.error(f"known.{key}", "missing", nth=nth)
        if "kernel" in entry and "since" in entry:
            raise source.error("known.since", "contradicts known.kernel: give one of them", nth=nth)
    return tuple(
        Known(
            tuple(entry.get("kernel") or STOCK[_first(STOCK, entry.get("since")) :]),
            tuple(entry["kinds"]),
            entry["text"],
            tuple(entry.get("device", ())),
            entry.get("sometimes", False),
            tuple(entry["message"]),
        )
        for entry in entries
    )


def rules(source: Source, entries: Any) -> tuple[Rule, ...]:
    """Return the tables [[rules]], each with the keys of its kind only."""
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


def module(source: Source, table: Any) -> ModuleUse | None:
    """Return the table [module] with its list `policies`; None if there is none."""
    if table is None:
        return None
    if not isinstance(table, dict):
        raise source.error("module", "write it as [module]")
    entries = dict(table)
    policies = entries.pop("policies", [])
    check_entry(source, "module", MODULE, entries)
    if not isinstance(policies, list) or not all(isinstance(entry, dict) for entry in policies):
        raise source.error("module.policies", "a list of tables")
    for entry in policies:
        check_entry(source, "module.policies", POLICY, entry)
        if "action" not in entry:
            raise source.error("module.policies", "one has no action", ACTIONS)
    return ModuleUse(policies=tuple(ModulePolicy(**entry) for entry in policies), **entries)


def workload(settings: Settings, pinned: bool) -> Workload:
    """Return the workload of one case; its regions are `pinned` unless a setting says otherwise."""
    length = settings.get("workload.length", of(settings, "workload.pages") * PAGE_BYTES)
    loss = PageLoss(of(settings, "page_loss.method"), of(settings, "page_loss.side"))

    def region(side: str) -> Region:
        names = ["absent", side] if loss.side in (side, "both") else [side]
        keys = [(name, key) for name in names for key in ("offset", "mapping", "iova", "odp", "prot")]
        keywords = {
            key: settings[f"workload.{name}.{key}"]
            for name, key in keys
            if f"workload.{name}.{key}" in settings
        }
        return Region(length, **{"odp": not pinned, **keywords})

    return Workload(
        settings["workload.operation"],
        of(settings, "workload.rounds"),
        region("local"),
        region("remote"),
        loss,
        mtu_bytes=of(settings, "workload.mtu"),
        seconds=settings.get("workload.seconds", 0),
    )


def _first(series: tuple[str, ...], since: str | None) -> int:
    return series.index(since) if since else 0
