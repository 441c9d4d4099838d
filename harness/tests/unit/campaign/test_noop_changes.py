"""No-op source changes."""

import pytest

from harness.campaign import noop_changes
from harness.campaign.noop_changes import BAND, variants
from harness.kernel.subsystems import RXE

STATIC = (
    "static int part{n}(struct mr *mr,\n\t\t    u64 iova)\n"
    "{{\n\tif (mr) {{\n\t\treturn {n};\n\t}}\n\treturn 0;\n}}\n"
)
OPS = "static const struct ops ops = {\n\t.fault = part0,\n};\n"
FAULT = "int fault(void)\n{\n\treturn 0;\n}\n"
ONLY_SOME = "#ifdef CONFIG_Z\nstatic int only(void)\n{\n\treturn 1;\n}\n#endif\n"
PLACES = "\n".join((*(STATIC.format(n=n) for n in range(11)), OPS, ONLY_SOME, FAULT))
SOURCE = f'// x\n#include <a.h>\n#include "b.h"\n\n{PLACES}'
MAKEFILE = "obj-$(CONFIG_X) += rdma_rxe.o\n\nrdma_rxe-y := \\\n\trxe.o \\\n\trxe_odp.o\nrdma_rxe-$(CONFIG_Y) += y.o\n"


@pytest.mark.parametrize("noop", [*BAND, *variants(10)], ids=str)
def test_each_no_op_change_differs_and_keeps_the_code(tmp_path, noop):
    """Mutation: write the text back as it was; lose an object; cut a function in two."""
    (tmp_path / "rxe_odp.c").write_text(SOURCE)
    (tmp_path / "Makefile").write_text(MAKEFILE)
    noop.apply(tmp_path, RXE)
    source, makefile = (tmp_path / "rxe_odp.c").read_text(), (tmp_path / "Makefile").read_text()
    assert (source, makefile) != (SOURCE, MAKEFILE)
    assert source.startswith("// x\n#include <a.h>\n")
    for code in (*(STATIC.format(n=n) for n in range(11)), OPS, ONLY_SOME, FAULT):
        assert source.count(code) == 1
    moved = [
        name for name in source.replace("\n\t\t   ", "").splitlines() if name.startswith("static int part")
    ]
    assert len(moved) == 11 + (noop.kind is noop_changes.moved_function), "declared where it was"
    assert sorted(makefile.replace("\\\n", " ").split()) == sorted(MAKEFILE.replace("\\\n", " ").split())


def test_fifty_no_op_changes_all_differ(tmp_path):
    """Mutation: ignore a size."""
    texts = set()
    for noop in variants(50):
        (tmp_path / "rxe_odp.c").write_text(SOURCE)
        (tmp_path / "Makefile").write_text(
            MAKEFILE.replace("rxe_odp.o", " ".join(f"o{n}.o" for n in range(20)))
        )
        noop.apply(tmp_path, RXE)
        texts.add((tmp_path / "rxe_odp.c").read_text() + (tmp_path / "Makefile").read_text())
    assert len(texts) == 50


def test_a_kernel_without_the_file_of_the_fault_path_gets_another_file_changed(tmp_path):
    """Linux 6.1 has no rxe_odp.c. Mutation: require it."""
    (tmp_path / "rxe.c").write_text(SOURCE)
    noop_changes.padding(tmp_path, RXE, 1)
    assert (tmp_path / "rxe.c").read_text() != SOURCE
