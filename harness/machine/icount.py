"""Read the instruction count of a saved machine, and decide whether QEMU can record a machine restored from it.

QEMU takes the difference between the count at a restore and its log's own, which begins at 0, for a signed number of
32 bits, and aborts when that is below 0. Ref: QEMU 11.1 replay/replay-internal.c, replay_advance_current_icount
"""

from __future__ import annotations

import struct
from pathlib import Path

from harness.errors import SetupError

_SECTION = b"timer/icount"
# Version, ns added for idle time, the count. Ref: QEMU 11.1 system/cpu-timers.c, icount_vmstate_timers
_FIELDS = struct.Struct(">Iqq")
_VERSION = 1
ROUND = 1 << 32
# A case runs far less before QEMU first compares the counts.
RECORDABLE = (1 << 31) - (1 << 28)
AFTER_SPIN = 1 << 29


def counted(state: Path) -> int:
    """Read how many instructions the machine of a state file has run; SetupError if the file has no count."""
    with state.open("rb") as file:
        data = file.read()
    at = data.find(_SECTION)
    if at >= 0 and len(data) >= at + len(_SECTION) + _FIELDS.size:
        version, _, count = _FIELDS.unpack_from(data, at + len(_SECTION))
        if version == _VERSION and count >= 0:
            return int(count)
    raise SetupError(
        "the state of the saved machine has no instruction count",
        [f"{state}: no {_SECTION.decode()} of version {_VERSION}"],
        "this QEMU is not known to the harness: name another by PATH",
    )


def to_spin(count: int) -> int:
    """Compute how many instructions a machine must run from `count` on until it can be recorded; 0 if it can."""
    within = count % ROUND
    return 0 if within < RECORDABLE else ROUND - within + AFTER_SPIN
