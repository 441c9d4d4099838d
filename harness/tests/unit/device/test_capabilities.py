"""What a card's firmware states to a kernel."""

import pytest

from harness.device.capabilities import chosen, stated
from harness.tests.unit.connectx.driver import SERIES, layouts


@pytest.mark.parametrize("series", SERIES)
@pytest.mark.parametrize("model", ["connectx-5", "connectx-7", "connect-ib"])
def test_every_kernel_reads_the_transport_scheme(model, series):
    """6.1 has it at the top of the page. Mutation: drop that case."""
    rows = stated(model, layouts(series))["transport"]
    assert {"send", "receive", "write", "read"} <= set(rows["rc"])
    assert ("atomic" in rows["rc"]) == (model != "connect-ib"), "the form of 2015 has four bits"


def test_only_a_newer_card_and_kernel_have_the_memory_scheme():
    """Mutation: count mem_page_fault to the transport scheme."""
    assert "mem_page_fault" in stated("connectx-7", layouts("7.3"))["memory"]["general"]
    assert "memory" not in stated("connectx-5", layouts("7.3"))
    assert "memory" not in stated("connectx-7", layouts("6.1"))


@pytest.mark.parametrize(
    ("model", "series", "scheme"),
    [
        ("connectx-5", "7.3", "transport"),
        ("connectx-7", "6.1", "transport"),
        *(("connectx-7", series, "memory") for series in ("6.12", "7.2", "7.3")),
    ],
)
def test_a_driver_chooses_the_memory_scheme_if_it_knows_it(model, series, scheme):
    """Mutation: take the first scheme in the order of the alphabet, reversed or not."""
    assert chosen(stated(model, layouts(series))) == scheme
