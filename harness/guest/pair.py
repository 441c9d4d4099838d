"""Two regions, one at each end of a connection of this process, and a write between them that is checked."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, List

from harness.guest import libc
from harness.guest import registration as registrations
from harness.guest.memory import Memory
from harness.guest.problems import Unsupported, WorkFailed
from harness.guest.registration import ACCESS_ALL
from harness.values.case import Case

LOCAL, REMOTE = 0, 1


class Pair:
    """A connection, its two memories and their registrations; `stack` gives all of it back.

    Registrations may be replaced by whoever uses the pair: those that are there at the end are given back.
    Unsupported where the device has no on-demand paging.
    """

    def __init__(self, case: Case, stack: ExitStack) -> None:
        from harness.guest.connection import Connection, odp_problem

        problem = odp_problem(case.device, "write")
        if problem:
            raise Unsupported(problem)
        self.workload = case.workload
        self.connection = Connection(case.device, case.workload.mtu_bytes, case.timeout_s)
        stack.callback(self.connection.close)
        self.memories: List[Memory] = []
        for tag, region in enumerate((case.workload.local, case.workload.remote)):
            memory = Memory(region, tag + 1)
            stack.callback(memory.close)
            memory.fill(0)
            self.memories.append(memory)
        self.registrations: List[registrations.Registration] = []
        stack.callback(self._deregister_all)
        for memory in self.memories:
            self.registrations.append(self.register(memory, memory.region.odp))

    def register(self, memory: Memory, odp: bool, access: int = ACCESS_ALL) -> registrations.Registration:
        """Register a memory as its region says, with on-demand paging or without."""
        connection = self.connection
        return registrations.register_region(
            connection.context.cmd_fd, connection.pd.handle, memory.region, memory.start, access, odp
        )

    def deregister(self, registration: registrations.Registration) -> None:
        """Give a registration back."""
        registrations.deregister(self.connection.context.cmd_fd, registration)

    def register_anew(self, end: int, odp: bool) -> None:
        """Give one end's registration back and register its memory again."""
        self.deregister(self.registrations[end])
        self.registrations[end] = self.register(self.memories[end], odp)

    def _deregister_all(self) -> None:
        while self.registrations:
            self.deregister(self.registrations.pop())

    def lose(self, end: int) -> None:
        """Take all pages of one end away; their bytes go with them, unless the mapping is shared."""
        memory = self.memories[end]
        memory.advise(libc.MADV_DONTNEED)
        if memory.region.mapping != "shared":
            memory.expect_fresh()

    def write(self, turn: int, lost: bool = True) -> None:
        """Fill both memories, lose the remote one's pages if `lost`, write all of it there, and compare.

        WorkFailed when it does not end well, or when a byte of either memory or of its neighbours is wrong.
        """
        for memory in self.memories:
            memory.fill(turn)
        if lost:
            self.lose(REMOTE)
        self.post()
        self.connection.wait(1)
        local, remote = self.memories
        length = local.region.length
        remote.expected[remote.first : remote.first + length] = local.expected[
            local.first : local.first + length
        ]
        self.check()

    def post(self) -> None:
        """Post one RDMA write of the whole local region."""
        import pyverbs.enums as e
        from pyverbs.wr import SGE, SendWR

        here, there = self.registrations
        element: Any = SGE(here.address, self.memories[LOCAL].region.length, here.lkey)
        work = SendWR(opcode=e.IBV_WR_RDMA_WRITE, num_sge=1, sg=[element], send_flags=e.IBV_SEND_SIGNALED)
        work.set_wr_rdma(there.rkey, there.address)
        self.connection.requester.post_send(work)

    def check(self) -> None:
        """WorkFailed if a byte is not what it must be."""
        for name, memory in zip(("local", "remote"), self.memories):
            wrong, first = memory.difference()
            if wrong:
                raise WorkFailed(f"data: {name}: {wrong} bytes are wrong: {first}")
