"""What of a patch is not tested."""

from difflib import SequenceMatcher
from pathlib import Path

from harness.campaign import not_tested
from harness.campaign.coverage import Coverage
from harness.campaign.tree_diff import TreeDiff
from harness.kernel.line_tables import Lines
from harness.kernel.subsystems import CORE, RXE

ODP = f"{RXE.folder}/rxe_odp.c"
HEADER = "include/rdma/ib_umem_odp.h"


def changed(*paths):
    return [TreeDiff(Path(path), ["a"], ["b"], SequenceMatcher()) for path in paths]


def test_a_changed_file_in_no_replaced_module_is_listed(tmp_path):
    """Without rdma_cm.ko both sides run Debian's.

    Mutations: take the folder for the modules; a name for a file.
    """
    table = tmp_path / "ib_core.lines"
    table.write_text(
        "CU: /build/umem_odp.c:\numem_odp.c  12  0x10000000  x\n\n/usr/src/include/linux/mm.h:\n"
    )
    cma, namesake = f"{CORE.folder}/cma.c", f"{RXE.folder}/umem_odp.c"
    paths = (f"{CORE.folder}/umem_odp.c", cma, namesake, HEADER, f"{CORE.folder}/cma_priv.h")
    paths = not_tested.in_no_module(changed(*paths), [("ib_core", table)])
    assert paths == [cma, namesake]


def test_a_changed_header_has_a_note_on_modules_that_are_not_rebuilt():
    """Mutation: let a changed structure that mlx5_core shares look like the patch's own fault."""
    assert not_tested.header_note(changed(ODP)) == []
    (note,) = not_tested.header_note(changed(ODP, HEADER))
    assert HEADER in note and "mlx5_core" in note


def test_lines_that_no_case_executes_are_one_entry():
    """Mutations: an entry for each place; the whole path of a source file; list all of a hundred places."""
    table = Lines(code={"rxe_odp.c": set(range(1, 200))})
    executed = Coverage({"rdma_rxe": table}, {"a": {"rdma_rxe": {"rxe_odp.c": {5, *range(50, 200, 2)}}}})
    assert not_tested.not_executed(executed, {ODP: {3, 4, 5, 6}}, "lines") == [
        "lines not executed by any case: rxe_odp.c:3-4, rxe_odp.c:6"
    ]
    (many,) = not_tested.not_executed(executed, {ODP: set(range(50, 100))}, "removed lines")
    assert many.startswith("removed lines not executed by any case: rxe_odp.c:51, ")
    assert many.count("rxe_odp.c") == not_tested.MAX_NOT_EXECUTED and many.endswith("and 15 more")
    assert not_tested.not_executed(executed, {ODP: {5}}, "lines") == []
