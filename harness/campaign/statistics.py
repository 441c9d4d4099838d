"""What runs say of two sides when each differs from the last: tests of ranks, intervals by resampling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

MIN_RUNS = 8
"""Runs of a case on each side, below which a rank test says nothing."""

CONFIDENCE = 0.95
POWER = 0.9
_SIGNIFICANT = 0.01

_Floats = NDArray[np.float64]


def chance(before: Sequence[float], after: Sequence[float]) -> float:
    """How probable it is that two such sets are of one kind. Ref: Mann and Whitney, 1947"""
    return float(stats.mannwhitneyu(before, after).pvalue)


def significant(probable: float, tests: int) -> bool:
    """Whether that is too little for chance, where so many tests were made at once. Ref: Bonferroni's inequality"""
    return probable * tests < _SIGNIFICANT


def more_often(before: tuple[int, int], after: tuple[int, int]) -> float:
    """How probable it is that so many (first) of so many (second) come more often after than before by chance.
    Ref: Fisher's exact test
    """
    table = [[count, of - count] for count, of in (before, after)]
    return float(stats.fisher_exact(table, alternative="less").pvalue)


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


def shows(before: Sequence[float], after: Sequence[float], tests: int = 1) -> float:
    """How large a difference must be to be found significant in such runs, in POWER of the cases, where it is one of
    so many tests: as a part of the median before; infinite for a few runs.
    """
    if min(len(before), len(after)) < MIN_RUNS:
        return float("inf")
    low, high = interval(before, after)
    error = (high - low) / 2 / stats.norm.ppf((1 + CONFIDENCE) / 2)
    needed = stats.norm.ppf(1 - _SIGNIFICANT / tests / 2) + stats.norm.ppf(POWER)
    return float(error * needed / np.median(before))
