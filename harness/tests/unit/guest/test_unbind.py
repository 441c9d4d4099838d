"""Whether a driver can let go of its device."""

from harness.guest.scenarios import unbind


def test_a_driver_is_asked_whether_it_can_let_go():
    """Mutation: take any driver's symbol for this one's."""
    symbols = "ffff0 t rxe_create_qp\t[rdma_rxe]\nffff8 t mlx5_ib_disassociate_ucontext\t[mlx5_ib]\n"
    assert unbind.lets_go(symbols, card=True) and not unbind.lets_go(symbols, card=False)
    assert unbind.lets_go(symbols + "ffff9 t rxe_disassociate_ucontext\t[rdma_rxe]\n", card=False)
