"""The on-demand paging capabilities that an emulated card's firmware states to a kernel."""

from __future__ import annotations

from collections.abc import Mapping

from harness.connectx import card
from harness.connectx.objects.capabilities import ODP, Capabilities
from harness.wire import ifc

MEMORY = "memory"
SCHEME_SUFFIX = "_page_fault_scheme_cap."
"""Ref: Linux 7.2 include/linux/mlx5/mlx5_ifc.h, mlx5_ifc_odp_cap_bits."""


def stated(model: str, layouts: ifc.Layouts) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the on-demand paging page of a model's firmware in the layout of a kernel: words by scheme and row."""
    words_of: dict[str, dict[str, list[str]]] = {}
    for path in Capabilities(card.model(model), layouts).current(ODP).nonzero():
        scheme, _, rest = path.rpartition(SCHEME_SUFFIX)
        row, _, word = (rest or path).rpartition(".")
        # Linux 6.1 has one scheme only, at the top of the page.
        rows = words_of.setdefault(scheme or ("memory" if path == "mem_page_fault" else "transport"), {})
        rows.setdefault(row.removesuffix("_odp_caps") or "general", []).append(word)
    return {
        scheme: {row: tuple(words) for row, words in rows.items()}
        for scheme, rows in sorted(words_of.items(), reverse=True)
    }


def chosen(schemes: Mapping[str, object]) -> str:
    """Return the scheme that a driver chooses of those that the firmware states to it: memory, if it knows it.

    Ref: Linux 6.12 drivers/net/ethernet/mellanox/mlx5/core/main.c, handle_hca_cap_odp
    """
    return MEMORY if MEMORY in schemes else next(iter(schemes), "")
