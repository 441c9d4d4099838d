"""What runs say of two sides when each differs from the last: tests of ranks, intervals by resampling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

RUNS_LEAST = 8
"""Runs of a case on each side, below which a rank test says nothing."""

CONFIDENCE = 0.95
_SIGNIFICANT = 0.01

_Floats = NDArray[np.float64]


def chance(before: Sequence[float], after: Sequence[float]) -> float:
    """How probable it is that two such sets are of one kind. Ref: Mann and Whitney, 1947"""
    return float(stats.mannwhitneyu(before, after).pvalue)


def significant(probable: float, tests: int) -> bool:
    """Whether that is too little for chance, where so many tests were made at once. Ref: Bonferroni's inequality"""
    return probable * tests < _SIGNIFICANT


def interval(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """Between which bounds the difference of the medians lies, in CONFIDENCE of the cases that runs are drawn again."""

    def difference(mine: _Floats, theirs: _Floats, axis: int) -> _Floats:
        return np.median(theirs, axis=axis) - np.median(mine, axis=axis)

    drawn = stats.bootstrap(
        (before, after),
        difference,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)


def shows(before: Sequence[float], after: Sequence[float]) -> float:
    """How large a difference must be to show in such runs, as a part of the median before; infinite for a few."""
    if min(len(before), len(after)) < RUNS_LEAST:
        return float("inf")
    low, high = interval(before, after)
    return (high - low) / 2 / float(np.median(before))
