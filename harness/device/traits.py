"""Facts about devices that plans are checked against: what each can do, and which clock it runs on.

A pure table: it starts nothing and imports no machine.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.connectx.card import MODELS, CardModel

WORDS = {
    "send": "send",
    "recv": "receive",
    "write": "RDMA write",
    "read": "RDMA read",
    "atomic": "compare-and-swap and fetch-and-add",
    "srq_recv": "receive from a shared receive queue",
    "flush": "RDMA flush",
    "atomic_write": "RDMA atomic write",
}
"""Operations on demand, as verbs call them. Ref: rdma-core libibverbs/verbs.h, enum ibv_odp_transport_cap_bits"""

TRANSPORTS = ("rc", "uc", "ud", "xrc")

NEEDS = {
    "mlx5": "A device of mlx5_core and mlx5_ib.",
    "rules": "A card that takes injection rules.",
    "odp": "Memory registration on demand.",
    "scheme.2015": "Page-fault events of 2015, which today's drivers do not know.",
    "scheme.transport": "Page-fault events that name a work queue; those of 2015 do, too.",
    "scheme.memory": "Page-fault events that name a memory key.",
    **{
        f"odp.{transport}.{word}": f"{text[0].upper()}{text[1:]} on demand over {transport.upper()}."
        for transport in TRANSPORTS
        for word, text in WORDS.items()
    },
}
"""Everything that a plan may need of a device."""

# What a capability page calls it, where that is not the word of verbs.
_FIRMWARE_WORDS = {"receive": "recv", "srq_receive": "srq_recv"}


@dataclass(frozen=True)
class Traits:
    """Facts about one device: its default clock, whether it is plugged into a restored machine, and the needs it meets.

    A software device may meet `odp.*` needs on some kernels only; its machine is queried again before a case runs.
    """

    name: str
    clock: str
    plugged: bool
    meets: frozenset[str]


def _card(model: CardModel) -> Traits:
    """Return the traits of a card; real time is its default, since its interrupts come at any instant."""
    meets = {"mlx5", "rules", "scheme.memory" if model.odp_scheme == "memory" else "scheme.transport"}
    if model.odp_scheme == "2015":
        # Today's driver takes its events for others: no region on demand works on it.
        meets.add("scheme.2015")
    else:
        meets.add("odp")
        for capability in model.odp:
            row, _, word = capability.field.rpartition(".")
            transport = row.rpartition(".")[2].removesuffix("_odp_caps")
            if transport in TRANSPORTS:
                meets.add(f"odp.{transport}.{_FIRMWARE_WORDS.get(word, word)}")
    return Traits(model.name, "real", True, frozenset(meets))


_SOFT_ROCE = Traits(
    "soft-roce",
    "exact",
    False,
    frozenset(
        {
            "odp",
            *(f"odp.rc.{word}" for word in WORDS),
            *(f"odp.ud.{word}" for word in ("send", "recv", "srq_recv")),
        }
    ),
)
"""Ref: Linux 7.3 drivers/infiniband/sw/rxe/rxe.c, rxe_init_device_param"""

TRAITS = {traits.name: traits for traits in (_SOFT_ROCE, *map(_card, MODELS.values()))}

CARDS = tuple(MODELS)
"""Models of emulated cards."""
