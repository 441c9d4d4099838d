"""Statistics of runs that differ from each other: rank tests, bootstrap intervals.

scipy takes seconds to import: only who calls one of these pays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MIN_RUNS = 8
"""Runs of a case on each side below which a rank test is inconclusive."""

CONFIDENCE = 0.95
POWER = 0.9
_SIGNIFICANT = 0.01


def rank_test(before: Sequence[float], after: Sequence[float]) -> float:
    """Return the p-value of both samples having one distribution. Ref: Mann and Whitney, 1947"""
    from scipy import stats

    return float(stats.mannwhitneyu(before, after).pvalue)


def significant(p: float, tests: int) -> bool:
    """Return True if a p-value is significant where it is one of `tests`. Ref: Bonferroni's inequality"""
    return p * tests < _SIGNIFICANT


def more_often(before: tuple[int, int], after: tuple[int, int]) -> float:
    """Return the p-value of a count (first) of runs (second) being as likely before. Ref: Fisher's exact test"""
    from scipy import stats

    table = [[count, of - count] for count, of in (before, after)]
    return float(stats.fisher_exact(table, alternative="less").pvalue)


def interval(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """Return the bootstrap interval of the difference of the medians, with CONFIDENCE."""
    import numpy as np
    from scipy import stats

    def difference(one: NDArray[np.float64], other: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return np.median(other, axis=axis) - np.median(one, axis=axis)

    resampled = stats.bootstrap(
        (before, after),
        difference,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(resampled.confidence_interval.low), float(resampled.confidence_interval.high)


def detectable(before: Sequence[float], after: Sequence[float], tests: int = 1) -> float:
    """Return the smallest difference that such runs show with POWER, as a share of the median before.

    It is one of `tests` tests; infinite below MIN_RUNS.
    """
    if min(len(before), len(after)) < MIN_RUNS:
        return float("inf")
    import numpy as np
    from scipy import stats

    low, high = interval(before, after)
    error = (high - low) / 2 / stats.norm.ppf((1 + CONFIDENCE) / 2)
    needed = stats.norm.ppf(1 - _SIGNIFICANT / tests / 2) + stats.norm.ppf(POWER)
    return float(error * needed / np.median(before))
