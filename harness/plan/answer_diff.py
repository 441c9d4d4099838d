"""Find where two answers differ; in exact time they must not."""

from __future__ import annotations

from harness.values import codec


def first_difference(one: object, other: object) -> str:
    """Return where two answers differ first, as `trace.counts.faults: 8 != 9`; empty if they are equal."""
    return _difference(codec.to_plain(one), codec.to_plain(other), "")


def _difference(one: object, other: object, path: str) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            difference = _difference(one.get(key), other.get(key), f"{path}.{key}")
            if difference:
                return difference
        return ""
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other, strict=True)):
            difference = _difference(*pair, f"{path}[{index}]")
            if difference:
                return difference
        return ""
    return "" if one == other else f"{path.lstrip('.')}: {one!r} != {other!r}"
