"""A log2 histogram, the form in which latencies leave the kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple


@dataclass(frozen=True)
class Histogram:
    """Counts of values by power of two: `counts[i]` values v with 2**i <= v < 2**(i+1) (v = 0 counts in 0).

    `total` is the sum of the values and `minimum`, `maximum` their extremes (0 when empty), all in `unit`.
    """

    name: str
    unit: str
    counts: Tuple[int, ...] = ()
    total: int = 0
    minimum: int = 0
    maximum: int = 0

    @property
    def samples(self) -> int:
        """How many values were counted."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """Mean value, 0.0 when empty."""
        return self.total / self.samples if self.samples else 0.0

    def merged(self, other: Histogram) -> Histogram:
        """Both histograms in one; names and units must be equal."""
        if (self.name, self.unit) != (other.name, other.unit):
            raise ValueError(f"{self.name}/{self.unit} and {other.name}/{other.unit} do not merge")
        if not self.samples or not other.samples:
            return self if self.samples else other
        size = max(len(self.counts), len(other.counts))
        mine = self.counts + (0,) * (size - len(self.counts))
        theirs = other.counts + (0,) * (size - len(other.counts))
        return Histogram(
            self.name,
            self.unit,
            tuple(a + b for a, b in zip(mine, theirs)),
            self.total + other.total,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
        )


def percentile(values: Tuple[int, ...], share: float) -> int:
    """The smallest value that at least `share` (0 to 1) of `values` do not exceed; 0 for no values."""
    if not values:
        return 0
    ordered = sorted(values)
    rank = max(0, min(len(ordered) - 1, -(-len(ordered) * share // 1) - 1))
    return ordered[int(rank)]
