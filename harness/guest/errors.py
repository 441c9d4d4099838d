"""Exceptions that end a case early.

Exception
  Unsupported   this machine lacks what the case needs           answer `unsupported`
  WorkFailed    a work request failed or never completed         answer `failed`
"""

from __future__ import annotations


class Unsupported(Exception):
    """Raised when this machine lacks what the case needs."""


class WorkFailed(Exception):
    """Raised for a work request that failed with `status` or never completed, and for any other failed check."""

    def __init__(self, problem: str, status: str = "") -> None:
        super().__init__(problem)
        self.status = status
