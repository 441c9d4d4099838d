"""UMR: work requests that change memory keys. The driver's own QP sends most of them, windows send the rest.

Ref: Linux 7.2 drivers/infiniband/hw/mlx5/umr.c; rdma-core 56 providers/mlx5/qp.c for windows.
"""

from __future__ import annotations

from harness.connectx.device import DeviceState
from harness.connectx.faults.faults import Faults
from harness.connectx.objects.mkeys import (
    ANY_QP,
    OCTOWORD,
    Key,
    Keys,
    Refused,
)
from harness.connectx.objects.qps import QueuePair
from harness.connectx.rules.rules import InjectionRules
from harness.wire import cqe, wqe
from harness.wire.ifc import View
from harness.wire.wqe import UmrControl

FREE = 29
MASK_FIELDS: dict[int, tuple[str, ...]] = {
    0: ("len", "length64"),
    1: ("log_page_size",),
    6: ("start_addr",),
    7: ("pd",),
    8: ("en_rinval",),
    12: ("bsf_en",),
    13: ("mkey_7_0",),
    14: ("qpn",),
    17: ("lr",),
    18: ("lw",),
    19: ("rr",),
    20: ("rw",),
    21: ("a",),
    23: ("small_fence_on_rdma_read_response",),
    25: ("relaxed_ordering_write",),
    FREE: ("free",),
    47: ("relaxed_ordering_read",),
}
"""Fields that a bit of the UMR's mkey mask changes. Ref: Linux 7.2 include/linux/mlx5/device.h, MLX5_MKEY_MASK_*."""

MAX_LIST = 1 << 28
"""Limit of a translation list in bytes, for a key that states none."""

CONTEXT_AT = 64
LIST_AT = 128
"""Offsets in the WQE: the key's context, and its data segment or inline list."""


class Delay(Exception):
    """The WQE has to wait: look again in `delay_s`."""

    def __init__(self, delay_s: float) -> None:
        super().__init__()
        self.delay_s = delay_s


class Umr:
    """UMRs of one card."""

    def __init__(self, device: DeviceState, keys: Keys, rules: InjectionRules, faults: Faults) -> None:
        self._device, self._keys, self._rules, self._faults = device, keys, rules, faults

    def run(self, qp: QueuePair, control: wqe.Control, work: bytes) -> None:
        """Do one UMR. Raises Refused with the syndrome of its completion, Delay where a rule delays it."""
        if len(work) < LIST_AT:
            raise Refused(cqe.LOCAL_QP_OPERATION, "UMR without a key segment")
        umr = wqe.UmrControl(work, at=wqe.SEGMENT)
        size = umr.xlt_octowords * 16
        listed = b""
        if umr.inline:
            listed = work[LIST_AT : LIST_AT + size]
        elif size:
            listed = self._read_list(qp, work, size)
        self._device.log(
            {
                "what": "umr",
                "key": control.general_id,
                "flags": umr.flags,
                "mask": umr.mkey_mask,
                "offset": umr.offset_high << 16 | umr.offset_low,
                "octowords": umr.xlt_octowords,
            }
        )
        self._override(qp, control.general_id, umr, listed)
        segment = self._device.layouts["mkc"].view(work, CONTEXT_AT)
        self._apply(qp, control.general_id, umr, segment, listed)

    def _override(self, qp: QueuePair, number: int, umr: UmrControl, listed: bytes) -> None:
        """Delay or fail the UMR where a rule decides so."""
        key: Key | None = self._device.objects.table("mkey").get(number >> 8)
        override = self._rules.umr(qp, key, umr, listed)
        if override is None:
            return
        if not override.syndrome:
            raise Delay(override.delay_s)
        qp.flush_due_s = self._device.clock() + override.flush_s
        raise Refused(override.syndrome, "a rule")

    def _read_list(self, qp: QueuePair, work: bytes, size: int) -> bytes:
        """Read the translation list that the data segment points at."""
        if len(work) < LIST_AT + wqe.SEGMENT:
            raise Refused(cqe.LOCAL_QP_OPERATION, "UMR list without a pointer")
        data = wqe.Data(work, at=LIST_AT)
        spans, absent = self._keys.access(data.lkey, data.address, size, qp.user, "lr", cqe.LOCAL_PROTECTION)
        if absent is not None:
            raise Refused(cqe.LOCAL_PROTECTION, "UMR list on an absent page")
        memory = self._device.memory
        parts = (
            bytes(span.length) if span.address is None else memory.read(span.address, span.length)
            for span in spans
        )
        return b"".join(parts)

    def _apply(self, qp: QueuePair, number: int, control: UmrControl, segment: View, listed: bytes) -> None:
        """Change the key. Raises Refused(MW_BIND) for one that does not exist or is not in the checked state.

        Ref: Linux 7.2 include/linux/mlx5/device.h MLX5_UMR_*.
        """
        key: Key | None = self._device.objects.table("mkey").get(number >> 8)
        if key is None:
            self._device.objects.missing("mkey", number >> 8, "UMR")
            raise Refused(cqe.MW_BIND, f"no key {number:#x}")
        self._check_user(qp, key, number, control)
        self._check_state(key, control)
        free = control.mkey_mask >> FREE & 1 and segment["free"]
        if free and not key.fields["free"] and key.value != number:
            raise Refused(cqe.MW_BIND, f"key {number:#x} is {key.value:#x} now")
        offset = (control.offset_high << 16 | control.offset_low) if control.translation_offset else 0
        begin, end = offset * OCTOWORD, offset * OCTOWORD + len(listed)
        if listed:
            self._check_list(key, end)
        was_free = key.fields["free"]
        for bit, names in MASK_FIELDS.items():
            if control.mkey_mask >> bit & 1:
                for name in names:
                    key.fields[name] = segment.get(name)
        if listed:
            if len(key.table) < end:
                key.table.extend(bytes(end - len(key.table)))
            key.table[begin:end] = listed
            key.always = False
        if key.fields["free"] and not was_free:
            self._faults.object_gone("mkey", key.value)

    @staticmethod
    def _check_user(qp: QueuePair, key: Key, number: int, control: UmrControl) -> None:
        if qp.pd is not None and key.fields["pd"] != qp.pd:
            raise Refused(cqe.MW_BIND, f"key {number:#x} is of PD {key.fields['pd']}, not {qp.pd}")
        if control.check_qpn and key.fields["qpn"] not in (ANY_QP, qp.number):
            raise Refused(cqe.MW_BIND, f"key {number:#x} is bound to QP {key.fields['qpn']:#x}")

    def _check_state(self, key: Key, control: UmrControl) -> None:
        free = key.fields["free"]
        wrong = ""
        if control.check_free and free:
            wrong = "free"
        elif control.check_not_free and not free:
            wrong = "in use"
        if wrong:
            self._device.findings.report(
                "free-key-in-use", f"mkey {key.number:#x}", f"UMR of a key that is {wrong}"
            )
            raise Refused(cqe.MW_BIND, f"key {key.value:#x} is {wrong}")
        if not key.fields["umr_en"]:
            raise Refused(cqe.MW_BIND, f"key {key.value:#x} does not allow UMR")

    def _check_list(self, key: Key, end: int) -> None:
        """Refuse a list that does not fit its key; lists are padded to 64 bytes, a key's size is not.

        A key of size 0 states none.
        """
        room = (key.fields["translations_octword_size"] + 3 & ~3) * OCTOWORD
        if end > (room or MAX_LIST) or end > MAX_LIST:
            self._device.findings.report(
                "bad-value", f"mkey {key.number:#x}", f"UMR list to byte {end} of {room}"
            )
            raise Refused(cqe.MW_BIND, f"key {key.value:#x}: the list does not fit")
