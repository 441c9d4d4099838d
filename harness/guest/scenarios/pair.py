"""Two regions, one at each end of a connection of this process, and a write between them that is checked."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, List, Optional, Sequence

from harness.guest.errors import WorkFailed
from harness.guest.mm import page_loss
from harness.guest.mm.memory import Memory
from harness.guest.rdma import registration as registrations
from harness.guest.rdma import workloads
from harness.guest.rdma.registration import ACCESS_ALL
from harness.values.case import Case

LOCAL, REMOTE = 0, 1


class Pair:
    """A connection, its two memories and their registrations; `stack` gives all of it back.

    Registrations may be replaced by whoever uses the pair: those that are there at the end are given back. Of several
    pairs each has a `number`; a `context` that is given is used and stays open.
    """

    def __init__(self, case: Case, stack: ExitStack, context: Optional[Any] = None, number: int = 0) -> None:
        from harness.guest.rdma.connection import Connection

        self.connection = Connection(case.device, case.workload.mtu_bytes, case.timeout_s, context)
        stack.callback(self.connection.close)
        self.memories: List[Memory] = []
        for end, region in enumerate((case.workload.local, case.workload.remote)):
            memory = Memory(region, 2 * number + end + 1)
            stack.callback(memory.close)
            memory.fill(0)
            self.memories.append(memory)
        self.registrations: List[registrations.Registration] = []
        stack.callback(self._deregister_all)
        for memory in self.memories:
            self.registrations.append(self.register(memory, memory.region.odp))

    def register(self, memory: Memory, odp: bool) -> registrations.Registration:
        """Register a memory as its region says, with on-demand paging or without."""
        connection = self.connection
        return registrations.register_region(
            connection.context.cmd_fd, connection.pd.handle, memory.region, memory.start, ACCESS_ALL, odp
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

    def lose(self, end: int, pages: Optional[range] = None) -> None:
        """Take pages of one end away, or all; their bytes go with them, unless the mapping is shared."""
        page_loss.dontneed(self.memories[end], pages)

    def write(self, turn: int, lost: bool = True) -> None:
        """Fill both memories, lose the remote one's pages if `lost`, write all of it there, and compare.

        WorkFailed when it does not end well, or when a byte of either memory or of its neighbours is wrong.
        """
        for memory in self.memories:
            memory.fill(turn)
        if lost:
            self.lose(REMOTE)
        self.transfer()
        workloads.push_moves(*self.memories)
        compare(self.memories)

    def read(self, turn: int) -> None:
        """Fill both memories, read all of the remote one, and compare, as `write`."""
        for memory in self.memories:
            memory.fill(turn)
        self.transfer("RDMA_READ")
        workloads.pull_moves(*self.memories)
        compare(self.memories)

    def work(self, opcode: str = "RDMA_WRITE") -> Any:
        """The work request of one RDMA write or read of the whole local region."""
        here, there = self.registrations
        return workloads.one_sided_work(here, there, self.memories[LOCAL].region.length, opcode)

    def transfer(self, opcode: str = "RDMA_WRITE") -> None:
        """One RDMA write or read of the whole local region."""
        self.connection.requester.post_send(self.work(opcode))
        self.connection.wait(1)


def compare(memories: Sequence[Memory], where: str = "") -> None:
    """WorkFailed if a byte of the local or the remote memory, or of its neighbours, is not what it must be."""
    for name, memory in zip(("local", "remote"), memories):
        wrong, first = memory.difference()
        if wrong:
            raise WorkFailed(f"data: {where}{name}: {wrong} bytes are wrong: {first}")
