"""The kernel module mlx5_odp_test in a case: loaded from the payload disk, configured, and read at the end."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Dict, Sequence

from harness.guest import payload
from harness.guest.errors import Unsupported
from harness.guest.kmod import odpnl
from harness.guest.kmod.handler import Handler
from harness.guest.rdma.nldev import Device
from harness.guest.trace import btf
from harness.values.case import Case
from harness.values.module import ModulePolicy, ModuleReport

NAME = "mlx5_odp_test"
FILE = payload.MOUNT_POINT / f"{NAME}.ko"


def load() -> bool:
    """Load the module if the payload disk has it; return True if it is loaded. OSError with insmod's message."""
    payload.mount_payload()
    if Path(f"/sys/module/{NAME}").exists():
        return True
    if not FILE.exists():
        return False
    done = subprocess.run(["insmod", str(FILE)], stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise OSError(f"insmod {FILE}: {done.stderr.decode(errors='replace').strip()}")
    return True


def card_of(device: Device) -> str:
    """Return the module's name of the card of an RDMA device: its PCI address."""
    return Path(f"/sys/class/infiniband/{device.name}/device").resolve().name


def caps_of(family: odpnl.Family, device: Device) -> Dict[str, str]:
    """Return the capabilities by the names that values.module.ModuleReport has."""
    from harness.guest.rdma.connection import odp_capabilities

    caps = {name.replace("odp.", "verbs."): words for name, words in odp_capabilities(device.name).items()}
    for which, page in family.caps(card_of(device)).items():
        caps[f"{which}.driver"] = "same" if page.raw == page.driver else "differs"
        caps[f"{which}.chosen"] = "memory" if page.memory_scheme else "transport"
        for scheme, rows in page.words.items():
            caps.update({f"{which}.{scheme}.{name}": " ".join(words) for name, words in rows.items()})
    return caps


class Module:
    """The module in one case: configured before the case runs, then for its queues and regions; read when closed."""

    def __init__(self, case: Case, device: Device) -> None:
        assert case.module is not None
        self.use = case.module
        if not load():
            raise Unsupported(f"the machine's payload disk has no {FILE.name}")
        self._stack = ExitStack()
        self._device, self._card = device, card_of(device)
        self._family = self._stack.enter_context(odpnl.Family())
        self._listener = self._family.listen()
        self._stack.callback(self._listener.close)
        form = self._family.device(self._card).form
        self.handler = Handler(self._listener, self.use.answer, case.rules, form)
        self.refused = ""
        for policy in self.use.policies:
            if not policy.of:
                self._set(policy, policy.value)
        try:
            self._enter_mode()
        except odpnl.Refused as refusal:
            self.refused = refusal.words
        self.handler.start()

    def _enter_mode(self) -> None:
        size = None
        if self.use.mode == "observe":
            try:
                size = btf.size_of("mlx5_ib", "mlx5_pagefault")
            except LookupError:
                size = btf.ANY  # this mlx5_ib may have no page faults: the module refuses then
        self._family.mode(self._card, self.use.mode, size)

    def _set(self, policy: ModulePolicy, value: int) -> None:
        if policy.action != "none":
            delay_us = policy.delay_ms * 1000
            self._family.policy(self._card, policy.action, policy.selector, value, delay_us)

    def connected(self, connection: Any, sides: Sequence[Any]) -> None:
        """Set the policies for the case's queues and regions, which exist now."""
        numbers = {
            "requester": connection.requester.qp_num,
            "responder": connection.responder.qp_num,
            "local": sides[0].registration.lkey,
            "remote": sides[1].registration.rkey,
        }
        for policy in self.use.policies:
            if policy.of:
                self._set(policy, numbers[policy.of])

    def close(self) -> ModuleReport:
        """End the handler, read statistics and capabilities, and release the card."""
        with self._stack:
            handler = self.handler
            handler.finish()
            stats = self._family.device(self._card).stats
            caps = caps_of(self._family, self._device)
            self._family.mode(self._card, "off")
            self._family.forget(self._card)
        return ModuleReport(
            stats,
            caps,
            handler.answers,
            handler.received,
            handler.drawn,
            self._listener.lost,
            handler.difference,
            tuple(handler.answer_ns),
            handler.span_ns,
            self.refused,
        )
