"""The request of a campaign: which cases run, on which kernel, how often, and where results go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

SIDES = ("baseline", "patched")
"""Folders of results: runs with the modules as they were, and with the change that is tested."""


@dataclass(frozen=True)
class RegressRequest:
    """Run `plans` on `kernel`: `seeds` runs of a case, at most `cut` cases of a plan and device (0: all).

    `name` is printed; `results` is the folder of every file that is written. A run stops after `failures` failed cases
    (0: never): each hang costs its timeout. `icount`: machines with a card count instructions too.
    `effect`: compare latencies in real time until a difference of this share is detectable, in interleaved rounds;
    `round` is the number of one (0 in exact time).
    """

    name: str
    kernel: str
    plans: Sequence[Path]
    results: Path
    seeds: int = 16
    cut: int = 1
    jobs: int = 1
    expression: str = ""
    failures: int = 4
    icount: bool = True
    effect: float = 0.0
    round: int = 0

    @property
    def exact(self) -> RegressRequest:
        """Ask for one run of each case in exact time, without a limit of failures."""
        return replace(self, effect=0.0, round=0, seeds=1, failures=0)
