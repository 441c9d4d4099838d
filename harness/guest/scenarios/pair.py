"""Two regions, one at each end of a loopback connection, and transfers between them that are checked."""

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
    """A connection, its two memories and their registrations; `stack` releases all of it.

    Registrations may be replaced by the scenario: those that exist at the end are deregistered. Each of several
    pairs has a `number`; a `context` passed in is used and stays open.
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
        """Register a memory as its region specifies, with on-demand paging or without."""
        connection = self.connection
        return registrations.register_region(
            connection.context.cmd_fd, connection.pd.handle, memory.region, memory.start, ACCESS_ALL, odp
        )

    def deregister(self, registration: registrations.Registration) -> None:
        """Deregister a region."""
        registrations.deregister(self.connection.context.cmd_fd, registration)

    def register_again(self, end: int, odp: bool) -> None:
        """Deregister one end's region and register its memory again."""
        self.deregister(self.registrations[end])
        self.registrations[end] = self.register(self.memories[end], odp)

    def _deregister_all(self) -> None:
        while self.registrations:
            self.deregister(self.registrations.pop())

    def invalidate(self, end: int, pages: Optional[range] = None) -> None:
        """Drop all or some pages of one end with MADV_DONTNEED; only a shared mapping keeps their bytes."""
        page_loss.dontneed(self.memories[end], pages)

    def write(self, number: int, absent: bool = True) -> None:
        """Fill both memories, drop the remote pages if `absent`, RDMA-write the whole region, and compare.

        `number` selects the fill pattern. WorkFailed if the work request fails, or a byte of either memory or
        around it is wrong.
        """
        for memory in self.memories:
            memory.fill(number)
        if absent:
            self.invalidate(REMOTE)
        self.transfer()
        workloads.push_moves(*self.memories)
        compare(self.memories)

    def read(self, number: int) -> None:
        """Fill both memories, RDMA-read the whole region, and compare, as `write` does."""
        for memory in self.memories:
            memory.fill(number)
        self.transfer("RDMA_READ")
        workloads.pull_moves(*self.memories)
        compare(self.memories)

    def work(self, opcode: str = "RDMA_WRITE") -> Any:
        """Build the work request of one RDMA write or read of the whole region."""
        local, remote = self.registrations
        return workloads.one_sided_work(local, remote, self.memories[LOCAL].region.length, opcode)

    def transfer(self, opcode: str = "RDMA_WRITE") -> None:
        """Post one RDMA write or read of the whole region and wait for its completion."""
        self.connection.requester.post_send(self.work(opcode))
        self.connection.wait(1)


def compare(memories: Sequence[Memory], where: str = "") -> None:
    """Raise WorkFailed if a byte of the local or the remote memory, or around it, is not as expected."""
    for name, memory in zip(("local", "remote"), memories):
        wrong, first = memory.difference()
        if wrong:
            raise WorkFailed(f"data: {where}{name}: {wrong} bytes are wrong: {first}")
