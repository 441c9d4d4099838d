"""Page-fault events with random fields; the card that sends them and the program that receives them share a seed.

Names are those of the module's messages; sizes of the memory form are in pages there, as in the event.
Ref: kmod/uapi/mlx5_odp_test.h; wire/eqe.py for the offsets.
"""

from __future__ import annotations

import random
from typing import Dict, Iterator, Tuple

MARK_BITS = {"2015": ("queue", 24), "transport": ("token", 24), "memory": ("token", 48)}
"""By scheme: the field that names a fault, and its width. Its top bit marks random events: real faults of an
emulated card are numbered from 1."""

Fields = Tuple[Tuple[str, int], ...]

WQE, RDMA, MEMORY = "wqe", "rdma", "memory"

_COMMON: Fields = (("bytes_committed", 32), ("packet_length", 16), ("type", 3))
_MEMORY: Fields = (("flags", 8), ("post", 16), ("pre", 16), ("demand", 20), ("key", 32), ("va", 64))
_RDMA: Fields = (*_COMMON, ("rkey", 32), ("op_length", 32), ("va", 64))
FORMS: Dict[str, Tuple[Tuple[str, Fields], ...]] = {
    "2015": ((WQE, (*_COMMON, ("wqe_index", 16))), (RDMA, _RDMA)),
    "transport": ((WQE, (*_COMMON, ("wqe_index", 16), ("queue", 24))), (RDMA, _RDMA)),
    "memory": ((MEMORY, _MEMORY),),
}
"""Forms by scheme, each with the widths of its fields; the field that names the fault is added."""


def events(scheme: str, seed: int) -> Iterator[Tuple[str, Dict[str, int]]]:
    """Generate (form, fields) of a scheme without end."""
    draw = random.Random(seed)
    name, bits = MARK_BITS[scheme]
    forms = FORMS[scheme]
    while True:
        form, widths = forms[draw.getrandbits(8) % len(forms)]
        fields = {field: draw.getrandbits(width) for field, width in widths}
        fields[name] = draw.getrandbits(bits) | 1 << (bits - 1)
        yield form, fields


def is_drawn(scheme: str, fields: Dict[str, int]) -> bool:
    """Return whether an event's fields are those of a random one."""
    name, bits = MARK_BITS[scheme]
    return bool(fields[name] >> (bits - 1) & 1)
