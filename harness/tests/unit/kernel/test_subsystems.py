"""Find the modules that a patch affects."""

from harness.kernel.subsystems import (
    PARTS,
    touched,
)


def test_a_file_affects_its_own_part_and_a_header_all():
    """Mutation: compare without the slash; forget headers."""
    parts, outside = touched(["drivers/infiniband/sw/rxe/rxe_odp.c", "Documentation/x.rst"])
    assert [part.modules for part in parts] == [("rdma_rxe",)] and outside == ("Documentation/x.rst",)
    assert touched(["drivers/infiniband/sw/rxe_other/x.c"]) == ((), ("drivers/infiniband/sw/rxe_other/x.c",))
    assert touched(["include/rdma/ib_umem_odp.h"]) == (PARTS, ())
