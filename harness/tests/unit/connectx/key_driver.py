"""A driver with memory keys: for the tests of keys and UMR."""

import struct

from harness.connectx.objects.mkeys import MTT, User
from harness.tests.unit.connectx.driver import Driver
from harness.wire import cqe

VA = 0x7000_0000
ALL = {"lr": 1, "lw": 1, "rr": 1, "rw": 1, "a": 1, "umr_en": 1}


def mtts(*entries):
    return struct.pack(f">{len(entries)}Q", *entries)


class KeyDriver(Driver):
    """A driver with a QP for UMR, and access to keys of its card."""

    def __init__(self):
        super().__init__()
        eqn, _ = self.create_eq()
        self.cqn, self.completions, _ = self.create_cq(eqn, log_size=6)
        self.qp = self.create_qp(self.cqn, log_sq=6)
        self.to_rts(self.qp.number)
        self.seen = 0

    def status(self):
        """Return the syndrome of the next completion, 0 for a good one."""
        data = self.memory.read(self.completions + 64 * self.seen, 64)
        self.seen += 1
        entry = cqe.ErrorCqe(data)
        assert entry.owner == 0
        return entry.syndrome if entry.opcode == cqe.REQUESTER_ERROR else 0

    def access(self, key, va, length, need="lr", pd=None, qpn=0x40, reserved=True):
        user = User(pd or self.pd, qpn, reserved)
        return self.card.hca.keys.access(key, va, length, user, need, cqe.LOCAL_PROTECTION)

    def mtt_key(self, *entries, pg_access=1, **fields):
        values = {
            **ALL,
            "access_mode_1_0": MTT,
            "start_addr": VA,
            "len": 4096 * len(entries),
            "log_page_size": 12,
        }
        return self.create_mkey(mtts(*entries), pg_access=pg_access, **{**values, **fields})
