"""A report of an error on a kernel's console."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple


@dataclass(frozen=True)
class Symptom:
    """A report found in a kernel log.

    `kind` is from the table in machine/symptoms.py (oops, panic, warn, hung_task, ...), `headline` the line
    that names it, `fingerprint` the top frames without offsets, equal for equal bugs, `excerpt` its lines.
    """

    kind: str
    headline: str
    fingerprint: str = ""
    excerpt: Tuple[str, ...] = ()
