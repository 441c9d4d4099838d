"""A unit test of the emulated card: no VM, no kernel, two QPs of one card in this process.

Run it: ./odp-harness pytest docs/examples/card_unit_test.py

`pair` (harness/tests/unit/connectx/pair.py) plays mlx5_core: it sends firmware commands through the command queue,
posts WQEs, rings doorbells, reads CQEs and page-fault EQEs.
"""

import pytest

from harness.tests.unit.connectx.pair import PATTERN, VA, Pair
from harness.values.rule import Rule
from harness.wire import eqe, wqe


@pytest.fixture
def pair():
    """Return an RC pair, the first region filled with PATTERN."""
    made = Pair()
    made.memory.write(made.at[0], PATTERN)
    return made


def test_write_to_absent_page_completes_after_its_resume(pair):
    """Mutation: in datapath/dma.py treat an absent page as present."""
    pair.entry(pair.keys[1], 0, 0)  # page 0 of the remote region is absent
    pair.send(wqe.RDMA_WRITE, (pair.keys[0], VA, 4096), remote=(pair.keys[1], VA))
    fault = pair.fault()
    assert (fault.pf_type, fault.r_key) == (eqe.FAULT_RDMA_WRITE, pair.keys[1])
    assert pair.done(0) is None, "completed before the page was present"
    pair.entry(pair.keys[1], 0, pair.at[1] | 3)  # present again, readable and writable
    pair.resume(fault)
    assert pair.done(0)[1] == 0
    assert pair.memory.read(pair.at[1], 4096) == PATTERN[:4096]
    faults = pair.card.counters()["faults"]
    assert (faults["raised"], faults["resumed"], faults["open"]) == (1, 1, 0)


def test_lost_resume_leaves_the_fault_open(pair):
    """Mutation: let the rule `lose-resume` finish the fault."""
    pair.card.arm([Rule("lose-resume")])
    pair.entry(pair.keys[0], 0, 0)
    pair.send(wqe.RDMA_WRITE, (pair.keys[0], VA, 8), remote=(pair.keys[1], VA))
    pair.entry(pair.keys[0], 0, pair.at[0] | 3)
    pair.resume(pair.fault())
    assert pair.done(0) is None
    assert pair.card.counters()["faults"]["open"] == 1
    assert pair.card.outcomes()[0]["hits"] == 1
