"""Firmware commands, one module per object. `ALL` is every class of them."""

from __future__ import annotations

from harness.connectx.commands.cq import CqCommands
from harness.connectx.commands.eq import EqCommands
from harness.connectx.commands.fault import FaultCommands
from harness.connectx.commands.hca import HcaCommands
from harness.connectx.commands.mkey import MkeyCommands
from harness.connectx.commands.pages import PagesCommands
from harness.connectx.commands.port import PortCommands
from harness.connectx.commands.qp import QpCommands
from harness.connectx.commands.registry import Commands
from harness.connectx.commands.simple import SimpleCommands
from harness.connectx.commands.srq import SrqCommands
from harness.connectx.commands.umem import UmemCommands

ALL: tuple[type[Commands], ...] = (
    HcaCommands,
    PagesCommands,
    SimpleCommands,
    PortCommands,
    EqCommands,
    UmemCommands,
    MkeyCommands,
    CqCommands,
    SrqCommands,
    QpCommands,
    FaultCommands,
)
