"""Changes that change nothing do change the source."""

import pytest

from harness.campaign.null import BAND, variants
from harness.kernel.parts import RXE

SOURCE = '// x\n#include <a.h>\n#include "b.h"\n\nint fault(void)\n{\n\treturn 0;\n}\n'
MAKEFILE = "obj-$(CONFIG_X) += rdma_rxe.o\n\nrdma_rxe-y := \\\n\trxe.o \\\n\trxe_odp.o\nrdma_rxe-$(CONFIG_Y) += y.o\n"


@pytest.mark.parametrize("variant", [*BAND, *variants(8)], ids=str)
def test_each_variant_differs_and_keeps_the_code(tmp_path, variant):
    """Mutation: write the text back as it was; lose an object."""
    (tmp_path / "rxe_odp.c").write_text(SOURCE)
    (tmp_path / "Makefile").write_text(MAKEFILE)
    variant.apply(tmp_path, RXE)
    source, makefile = (tmp_path / "rxe_odp.c").read_text(), (tmp_path / "Makefile").read_text()
    assert (source, makefile) != (SOURCE, MAKEFILE)
    assert source.endswith("int fault(void)\n{\n\treturn 0;\n}\n") and source.startswith(
        "// x\n#include <a.h>\n"
    )
    assert sorted(makefile.replace("\\\n", " ").split()) == sorted(MAKEFILE.replace("\\\n", " ").split())


def test_fifty_changes_are_fifty_changes(tmp_path):
    """Mutation: let a size change nothing."""
    texts = set()
    for variant in variants(50):
        (tmp_path / "rxe_odp.c").write_text(SOURCE)
        (tmp_path / "Makefile").write_text(
            MAKEFILE.replace("rxe_odp.o", " ".join(f"o{n}.o" for n in range(20)))
        )
        variant.apply(tmp_path, RXE)
        texts.add((tmp_path / "rxe_odp.c").read_text() + (tmp_path / "Makefile").read_text())
    assert len(texts) == 50
