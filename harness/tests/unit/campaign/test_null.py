"""Changes that change nothing do change the source."""

import pytest

from harness.campaign.null import VARIANTS
from harness.kernel.parts import RXE

SOURCE = '// x\n#include <a.h>\n#include "b.h"\n\nint fault(void)\n{\n\treturn 0;\n}\n'
MAKEFILE = "obj-$(CONFIG_X) += rdma_rxe.o\n\nrdma_rxe-y := \\\n\trxe.o \\\n\trxe_odp.o\nrdma_rxe-$(CONFIG_Y) += y.o\n"


@pytest.mark.parametrize("vary", VARIANTS, ids=lambda vary: vary.__name__)
def test_each_variant_differs_and_keeps_the_code(tmp_path, vary):
    """Mutation: write the text back as it was; lose an object."""
    (tmp_path / "rxe_odp.c").write_text(SOURCE)
    (tmp_path / "Makefile").write_text(MAKEFILE)
    vary(tmp_path, RXE)
    source, makefile = (tmp_path / "rxe_odp.c").read_text(), (tmp_path / "Makefile").read_text()
    assert (source, makefile) != (SOURCE, MAKEFILE)
    assert source.endswith("int fault(void)\n{\n\treturn 0;\n}\n") and source.startswith(
        "// x\n#include <a.h>\n"
    )
    assert sorted(makefile.replace("\\\n", " ").split()) == sorted(MAKEFILE.replace("\\\n", " ").split())
