"""Decisions of injection rules: what the card does instead of its normal action. The caller does it and counts it."""

from __future__ import annotations

from typing import NamedTuple

from harness.connectx.status import FirmwareError


class CommandOverride(NamedTuple):
    """Execute a command after a delay, never answer it, or answer it with an error status."""

    delay_s: float = 0.0
    lost: bool = False
    refused: FirmwareError | None = None


class ResumeOverride(NamedTuple):
    """Ignore a PAGE_FAULT_RESUME, refuse it, or let it take effect after a delay."""

    delay_s: float = 0.0
    lost: bool = False
    refused: FirmwareError | None = None


class UmrOverride(NamedTuple):
    """Look at a UMR again after a delay; or, with a `syndrome`, fail it and flush the queue after `flush_s`."""

    delay_s: float = 0.0
    syndrome: int = 0
    flush_s: float = 0.0


class QueueOverride(NamedTuple):
    """Refuse a second event queue for page faults, or leave page faults on the first one."""

    first_wins: bool = False
    refused: FirmwareError | None = None
