"""A device that is to go: it is waited for, and no longer than that."""

import errno
import threading

import pytest

from harness.guest import unbind
from harness.guest.problems import WorkFailed


def test_a_device_that_does_not_go_is_told_of():
    """Mutations: wait without an end; forget what the kernel said."""
    never = threading.Event()
    with pytest.raises(WorkFailed, match="not gone after 0.05 s"):
        unbind.begin(never.wait)(0.05)
    never.set()

    def refused():
        raise OSError(errno.EBUSY, "busy")

    with pytest.raises(WorkFailed, match="does not go: .*busy"):
        unbind.begin(refused)(5.0)
    unbind.begin(lambda: None)(5.0)


def test_a_driver_is_asked_whether_it_can_let_go():
    """Mutation: take any driver's symbol for this one's."""
    symbols = "ffff0 t rxe_create_qp\t[rdma_rxe]\nffff8 t mlx5_ib_disassociate_ucontext\t[mlx5_ib]\n"
    assert unbind.lets_go(symbols, card=True) and not unbind.lets_go(symbols, card=False)
    assert unbind.lets_go(symbols + "ffff9 t rxe_disassociate_ucontext\t[rdma_rxe]\n", card=False)
