"""Why a case ended early.

Exception
  Unsupported   this machine lacks what the case needs           answer `unsupported`
  WorkFailed    a work request failed or never completed         answer `failed`
"""

from __future__ import annotations


class Unsupported(Exception):
    """This machine lacks what the case needs."""


class WorkFailed(Exception):
    """A work request that completed with an error, which is its `status`, or not at all in time."""

    def __init__(self, problem: str, status: str = "") -> None:
        super().__init__(problem)
        self.status = status
