"""The folder of a run's results: new, or of a run that is resumed."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.plan.checkout import files_below, plan_files, version
from harness.plan.plan import FULL
from harness.results.record import RunStore
from harness.store import digest


def default_results() -> Path:
    """Return odp-results/TIME in the current folder, or in the user's state folder if that is read-only."""
    name = time.strftime("%Y%m%d-%H%M%S") + f"-{os.getpid()}"
    here = Path.cwd()
    if os.access(here, os.W_OK):
        return here / "odp-results" / name
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    return state / "odp-harness" / "results" / name


def open_results(config: pytest.Config, expected: int = 0) -> RunStore:
    """Open the results of a run: new ones, or with `resume` those of a run that did not end.

    pytest.UsageError if the folder has other results, if another harness, other plans or other options made
    those, or if two plans have one name.
    """
    option = config.option
    plans = plan_files(Path(argument.split("::")[0]) for argument in config.args)
    about = {
        "harness": version(),
        "options": _options(option),
        "plans": digest(*(plan.read_bytes() for plan in plans)),
    }
    try:
        _check_names(plans)
        if option.resume:
            if option.results and option.results != option.resume:
                raise UsageError("--results and --resume name two folders", hint="give one of them")
            return RunStore.reopen(option.resume, about)
        return RunStore.create(option.results or default_results(), about, expected)
    except UsageError as error:
        raise pytest.UsageError(error.render()) from error


def _check_names(plans: Sequence[Path]) -> None:
    """Refuse two plans of one name: cases, and copies of plans beside their records, are named for it."""
    known: dict[str, Path] = {}
    for plan in plans:
        other = known.setdefault(plan.stem, plan)
        if other.read_bytes() != plan.read_bytes():
            raise UsageError(
                f"two plans are called {plan.stem}", [str(other), str(plan)], "rename one of them"
            )


def _options(option: Any) -> str:
    """Return the options that a record depends on and that are not in the name of its case."""
    flags = [name for name in ("icount", "twice", "no_skip") if getattr(option, name)]
    flags += ["full"] if os.environ.get(FULL) else []
    settings = [f"time={option.time or 'default'}", f"image={option.image}"]
    payload = files_below(option.payload)
    if payload:
        settings += [f"payload={digest(*payload, *(path.read_bytes() for path in payload.values()))}"]
    return " ".join([*flags, *settings])
