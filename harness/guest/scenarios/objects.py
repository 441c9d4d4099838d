"""Verbs objects created and destroyed."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, List

from harness.guest.scenarios.registry import scenario, timed_rounds
from harness.values.case import Case


@scenario("objects", odp=False, card_only=True)
def objects(case: Case) -> List[int]:
    """Create a PD, MR, CQ, SRQ, AH and two QPs brought to RTS, and destroy all of them."""
    from pyverbs.device import Context

    from harness.guest.rdma.connection import Connection

    with Context(name=case.device) as context:

        def one_round(number: int) -> None:
            with ExitStack() as stack:
                connection = Connection(case.device, case.workload.mtu_bytes, case.timeout_s, context)
                stack.callback(connection.close)
                _more_objects(connection, case, stack)

        return timed_rounds(case, one_round)


def _more_objects(connection: Any, case: Case, stack: ExitStack) -> None:
    import pyverbs.enums as e
    from pyverbs.addr import AH, AHAttr
    from pyverbs.mr import MR
    from pyverbs.srq import SRQ, SrqAttr, SrqInitAttr

    stack.callback(MR(connection.pd, case.workload.local.length, e.IBV_ACCESS_LOCAL_WRITE).close)
    stack.callback(SRQ(connection.pd, SrqInitAttr(SrqAttr(max_wr=16))).close)
    port = connection.context.query_port(1)
    stack.callback(AH(connection.pd, attr=AHAttr(dlid=port.lid, port_num=1, is_global=0)).close)
