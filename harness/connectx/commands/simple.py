"""Objects without behaviour: protection domains, XRC domains, UARs, counter sets, user contexts."""

from __future__ import annotations

from typing import NamedTuple

from harness.connectx.commands.registry import Commands, Entry, Handler, command
from harness.connectx.object_table import PlainObject
from harness.wire.ifc import View


class Kind(NamedTuple):
    """Commands of a kind; `field` is its number in the reply of the first and the request of the last."""

    allocate: str
    release: str
    field: str


KINDS = {
    "pd": Kind("ALLOC_PD", "DEALLOC_PD", "pd"),
    "xrcd": Kind("ALLOC_XRCD", "DEALLOC_XRCD", "xrcd"),
    "uar": Kind("ALLOC_UAR", "DEALLOC_UAR", "uar"),
    "q_counter": Kind("ALLOC_Q_COUNTER", "DEALLOC_Q_COUNTER", "counter_set_id"),
    "transport_domain": Kind("ALLOC_TRANSPORT_DOMAIN", "DEALLOC_TRANSPORT_DOMAIN", "transport_domain"),
    "uctx": Kind("CREATE_UCTX", "DESTROY_UCTX", "uid"),
}


class SimpleCommands(Commands):
    """Ref: Linux 7.2 include/linux/mlx5/mlx5_ifc.h, alloc_pd_out.pd and so on."""

    def entries(self) -> list[Entry]:
        """Return the decorated commands, and a pair for each kind of the table."""
        entries = super().entries()
        for name, kind in KINDS.items():
            entries.append(Entry(kind.allocate, kind.allocate.lower(), self._allocate(name, kind.field)))
            entries.append(Entry(kind.release, kind.release.lower(), self._release(name, kind.field)))
        return entries

    def _allocate(self, name: str, field: str) -> Handler:
        def run(request: View, reply: View) -> None:
            number = self._device.objects.number(name)
            self._device.objects.add(PlainObject(number, table=name))
            reply[field] = number

        return run

    def _release(self, name: str, field: str) -> Handler:
        def run(request: View, reply: View) -> None:
            self._device.objects.remove(name, request[field])

        return run

    @command("QUERY_Q_COUNTER")
    def query_q_counter(self, request: View, reply: View) -> None:
        """Return zeros: nothing is dropped or repeated on this wire."""
        self._device.objects.get("q_counter", request["counter_set_id"], "QUERY_Q_COUNTER")

    @command("ATTACH_TO_MCG", "DETACH_FROM_MCG")
    def multicast(self, request: View, reply: View) -> None:
        """Accept: there is no multicast on this wire."""
        self._device.objects.get("qp", request["qpn"], "multicast")

    @command("NOP")
    def nop(self, request: View, reply: View) -> None:
        """Do nothing."""
