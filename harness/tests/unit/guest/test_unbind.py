"""Drivers that can disassociate their user contexts."""

from harness.guest.scenarios import unbind


def test_disassociation_is_found_in_kallsyms_by_module():
    """Mutation: take any driver's symbol for this one's."""
    symbols = "ffff0 t rxe_create_qp\t[rdma_rxe]\nffff8 t mlx5_ib_disassociate_ucontext\t[mlx5_ib]\n"
    assert unbind.disassociates(symbols, card=True) and not unbind.disassociates(symbols, card=False)
    assert unbind.disassociates(symbols + "ffff9 t rxe_disassociate_ucontext\t[rdma_rxe]\n", card=False)
