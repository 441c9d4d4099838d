"""Work that is no single transfer: the driver taken out and put back, objects made and destroyed again and again,
a long mixture of transfers, advice, changed registrations, killed processes."""

from __future__ import annotations

import gc
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Callable, Dict, List, Optional

from harness.guest import leaks
from harness.guest.cases import spin
from harness.guest.errors import (
    Unsupported,
    WorkFailed,
)
from harness.guest.rdma import mlx5
from harness.guest.rdma.nldev import (
    Device,
    NlDev,
)
from harness.guest.scenarios.access_rights import (
    rights,
    rights_local,
    rights_receive,
)
from harness.guest.scenarios.advise import (
    advise,
    advise_pinned,
)
from harness.guest.scenarios.dereg import (
    dereg,
    dereg_first,
    dereg_given_up,
)
from harness.guest.scenarios.dereg_race import dereg_amid
from harness.guest.scenarios.exec import (
    exec_closing,
    exec_keeping,
)
from harness.guest.scenarios.fork_loop import forks
from harness.guest.scenarios.fragmented import fragmented
from harness.guest.scenarios.invalidate_while_faulting import overtaken
from harness.guest.scenarios.kill import killed
from harness.guest.scenarios.multi_qp import queues
from harness.guest.scenarios.rereg import (
    rereg,
    rereg_toggle,
)
from harness.guest.scenarios.soak import soak
from harness.guest.scenarios.sparse import sparse
from harness.guest.scenarios.unbind import unbind
from harness.values.answer import Answer
from harness.values.case import Case


def reload(case: Case, nldev: NlDev, device: Device) -> List[int]:
    """Unload and load the driver; the device must come back active with the same ODP capabilities."""
    from harness.guest.rdma.connection import odp_capabilities

    first = odp_capabilities(device.name)
    times = []
    for turn in range(1, case.workload.rounds + 1):
        gc.collect()
        began = time.monotonic_ns()
        mlx5.unload()
        mlx5.load()
        device = mlx5.wait(nldev)
        times.append(time.monotonic_ns() - began)
        again = odp_capabilities(device.name)
        if again != first:
            raise WorkFailed(f"round {turn}: ODP capabilities were {first}, now {again}")
    return times


def objects(case: Case, nldev: NlDev, device: Device) -> List[int]:
    """Each round: PD, MR, CQ, SRQ, AH and two QPs brought to RTS, and all of them destroyed."""
    from pyverbs.device import Context

    from harness.guest.rdma.connection import Connection

    times = []
    with Context(name=device.name) as context:
        for _ in range(case.workload.rounds):
            began = time.monotonic_ns()
            with ExitStack() as stack:
                connection = Connection(device.name, case.workload.mtu_bytes, case.timeout_s, context)
                stack.callback(connection.close)
                _more_objects(connection, case, stack)
            times.append(time.monotonic_ns() - began)
    return times


def _more_objects(connection: Any, case: Case, stack: ExitStack) -> None:
    import pyverbs.enums as e
    from pyverbs.addr import AH, AHAttr
    from pyverbs.mr import MR
    from pyverbs.srq import SRQ, SrqAttr, SrqInitAttr

    stack.callback(MR(connection.pd, case.workload.local.length, e.IBV_ACCESS_LOCAL_WRITE).close)
    stack.callback(SRQ(connection.pd, SrqInitAttr(SrqAttr(max_wr=16))).close)
    port = connection.context.query_port(1)
    stack.callback(AH(connection.pd, attr=AHAttr(dlid=port.lid, port_num=1, is_global=0)).close)


Task = Callable[[Case, NlDev, Device], List[int]]


def _checked(task: Task) -> Task:
    def checked(case: Case, nldev: NlDev, device: Device) -> List[int]:
        from harness.guest.rdma.connection import odp_problem

        problem = odp_problem(device.name, "write")
        if problem:
            raise Unsupported(problem)
        return task(replace(case, device=device.name), nldev, device)

    return checked


def _on_demand(run: Callable[[Case], List[int]]) -> Task:
    return _checked(lambda case, nldev, device: run(case))


# Work for a card's driver only.
OF_CARDS: Dict[str, Task] = {"reload": reload, "objects": objects}
TASKS: Dict[str, Task] = {
    **OF_CARDS,
    "soak": _on_demand(soak),
    "advise": _on_demand(advise),
    "advise_pinned": _on_demand(advise_pinned),
    "rereg": _on_demand(rereg),
    "rereg_toggle": _on_demand(rereg_toggle),
    "killed": _on_demand(killed),
    "exec": _on_demand(exec_closing),
    "exec_keeping": _on_demand(exec_keeping),
    "forks": _on_demand(forks),
    "dereg": _on_demand(dereg),
    "dereg_amid": _on_demand(dereg_amid),
    "dereg_first": _on_demand(dereg_first),
    "dereg_given_up": _on_demand(dereg_given_up),
    "queues": _on_demand(queues),
    "rights": _on_demand(rights),
    "rights_local": _on_demand(rights_local),
    "rights_receive": _on_demand(rights_receive),
    "sparse": _on_demand(sparse),
    "fragmented": _on_demand(fragmented),
    "overtaken": _on_demand(overtaken),
    "unbind": _checked(unbind),
}
# Whose first round is counted: of all others a device may keep something that their first round needs. mlx5_ib from
# Linux 6.12 on makes a CQ and an SRQ of its own. Ref: Linux 6.12 drivers/infiniband/hw/mlx5/main.c,
# mlx5_ib_dev_res_srq_init
COLD = ("reload",)


def _one_round(case: Case) -> Case:
    return replace(case, workload=replace(case.workload, rounds=1, seconds=0))


def _by_name(nldev: NlDev, device: Device) -> Optional[Device]:
    """The device, which may have another number now; None if it is gone."""
    return next((now for now in nldev.devices() if now.name == device.name), None)


def run_task(case: Case, nldev: NlDev, device: Device) -> Answer:
    """Run a task and answer it."""
    problem = ""
    times: List[int] = []
    before: Dict[str, int] = {}
    began = time.monotonic_ns()
    try:
        if case.workload.operation not in COLD:
            TASKS[case.workload.operation](_one_round(case), nldev, device)
        before = leaks.count(nldev, _by_name(nldev, device))
        spin(case.seed)
        began = time.monotonic_ns()
        times = TASKS[case.workload.operation](case, nldev, device)
    except Unsupported as error:
        return Answer(case.id, "unsupported", str(error))
    except (OSError, WorkFailed) as error:
        problem = str(error)
    except Exception as error:  # pyverbs has exceptions of its own for each call
        problem = f"{type(error).__name__}: {error}"
    gc.collect()
    left = leaks.settle(nldev, _by_name(nldev, mlx5.find(nldev) or device), before) if before else ()
    return Answer(
        case.id,
        "failed" if problem else "done",
        problem,
        leaks=left,
        operations_ns=tuple(times),
        elapsed_ns=time.monotonic_ns() - began,
    )
