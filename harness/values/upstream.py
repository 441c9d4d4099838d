"""Upstream's own tests: which of them to run, and the result of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

OUTCOMES = ("started", "pass", "fail", "skip", "known")


@dataclass(frozen=True)
class Selection:
    """The tests whose id matches one of `patterns` (all without one), from the `first`-th of these on.

    A pattern is as unittest's -k: part of the id, or with `*` the whole. Each test gets `timeout_s`. The tests
    are on the disk with serial `disk`.
    """

    patterns: Tuple[str, ...] = ()
    first: int = 0
    timeout_s: float = 180.0
    disk: str = "upstream"


@dataclass(frozen=True)
class UpstreamTest:
    """Result of the `number`-th selected test: `outcome` is one of OUTCOMES; only the host sets `known`.

    `reason` is a line (of a failure or skip), `detail` the traceback and what the test printed.
    """

    number: int
    name: str
    outcome: str
    reason: str = ""
    detail: str = ""
    wall_s: float = 0.0
