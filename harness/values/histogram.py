"""A histogram by powers of two and their sixteenths, the form in which latencies leave the kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Tuple

FINE_BITS = 4
_FINE = 1 << FINE_BITS


@dataclass(frozen=True)
class Histogram:
    """Counts of values by power of two: `counts[i]` values v with 2**i <= v < 2**(i+1) (v = 0 counts in 0).

    `total` is the sum of the values and `minimum`, `maximum` their extremes (0 when empty), all in `unit`. `fine`
    has the same values by sixteenths of a power of two: pairs of a bucket (`bounds`) and its count, where it is
    not 0; buckets are HdrHistogram's with 4 bits of precision. It may be empty: older records have none.
    """

    name: str
    unit: str
    counts: Tuple[int, ...] = ()
    total: int = 0
    minimum: int = 0
    maximum: int = 0
    fine: Tuple[Tuple[int, int], ...] = ()

    @property
    def samples(self) -> int:
        """Number of values."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """Mean value, 0.0 when empty."""
        return self.total / self.samples if self.samples else 0.0

    def merged(self, other: Histogram) -> Histogram:
        """Add up two histograms; names and units must be equal."""
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
            _added(self.fine, other.fine) if self.fine and other.fine else (),
        )

    def quantile(self, share: float) -> int:
        """Return a value that at least `share` (0 to 1) of the samples do not exceed: the top of a bucket."""
        target, seen = share * self.samples, 0
        for bucket, number in self.fine:
            seen += number
            if seen >= target:
                return min(self.maximum, bounds(bucket)[1] - 1)
        seen = 0
        for power, number in enumerate(self.counts):
            seen += number
            if number and seen >= target:
                return min(self.maximum, (2 << power) - 1)
        return self.maximum


def bounds(bucket: int) -> Tuple[int, int]:
    """Return the values of a fine bucket: from the first up to, without, the second."""
    if bucket < _FINE:
        return bucket, bucket + 1
    power = (bucket >> FINE_BITS) - 1
    low = (_FINE + bucket % _FINE) << power
    return low, low + (1 << power)


def bucket_of(value: int) -> int:
    """Return the fine bucket of a value."""
    if value < _FINE:
        return value
    power = value.bit_length() - 1 - FINE_BITS
    return ((power + 1) << FINE_BITS) + (value >> power) % _FINE


def of_fine(
    name: str, unit: str, fine: Tuple[Tuple[int, int], ...], total: int, low: int, high: int
) -> Histogram:
    """Make a histogram of fine buckets."""
    counts: List[int] = []
    for bucket, number in fine:
        power = max(bounds(bucket)[0].bit_length() - 1, 0)
        counts += [0] * (power + 1 - len(counts))
        counts[power] += number
    return Histogram(name, unit, tuple(counts), total, low, high, fine)


def of_values(name: str, unit: str, values: Tuple[int, ...]) -> Histogram:
    """Make a histogram of values."""
    if not values:
        return Histogram(name, unit)
    fine: Dict[int, int] = {}
    for value in values:
        fine[bucket_of(value)] = fine.get(bucket_of(value), 0) + 1
    return of_fine(name, unit, tuple(sorted(fine.items())), sum(values), min(values), max(values))


def _added(
    mine: Tuple[Tuple[int, int], ...], theirs: Tuple[Tuple[int, int], ...]
) -> Tuple[Tuple[int, int], ...]:
    sums = dict(mine)
    for bucket, number in theirs:
        sums[bucket] = sums.get(bucket, 0) + number
    return tuple(sorted(sums.items()))


def percentile(values: Tuple[int, ...], share: float) -> int:
    """Return the smallest value that at least `share` (0 to 1) of `values` do not exceed; 0 for no values."""
    if not values:
        return 0
    ordered = sorted(values)
    rank = max(0, min(len(ordered) - 1, -(-len(ordered) * share // 1) - 1))
    return ordered[int(rank)]
