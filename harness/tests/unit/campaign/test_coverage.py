"""From QEMU's log to executed lines, in the forms that QEMU 11.1 and binutils 2.44 write."""

import pytest

from harness.campaign import coverage, coverage_html
from harness.campaign.coverage import Coverage
from harness.campaign.tree_diff import differing
from harness.kernel import line_tables
from harness.kernel.line_tables import Lines
from harness.kernel.subsystems import (
    CORE,
    MLX5,
    RXE,
)
from harness.machine.exec_log import ModuleLayout

ODP = f"{RXE.folder}/rxe_odp.c"

LAYOUT = """\
rdma_rxe .text 0xffffffffc0470000
rdma_rxe .exit.text 0xffffffffc0483d00
ib_core .text 0xffffffffc0436000
rdma_rxe 217088 0 - Live 0xffffffffc0470000 (O)
ib_core 626688 4 ib_uverbs,ib_uverbs_support,rdma_rxe, Live 0xffffffffc0436000
udp_tunnel 36864 1 rdma_rxe, Live 0xffffffffc0432000
"""

LOG = """\
----------------
IN:
0xffffffffc0481a00:  f3 0f 1e fa              endbr64
0xffffffffc0481a09:  0f 1f 44 00 00           nopl     (%rax, %rax)

----------------
IN: rxe_x
0xffffffffc0481a1c:  e8 59 a0 fc ff           callq    0xffffffffc0442970
0xffffffffc0436010:  c3                       retq
0xffffffffc0481a00:  f3 0f 1e fa              endbr64
"""

TABLE = """\
00000000100119f0 0000000000000010 t __pfx_rxe_ib_invalidate_range
0000000010011a00 0000000000000030 t rxe_ib_invalidate_range
0000000010011a30 0000000000000010 T rxe_other
0000000010013b2b 0000000000000010 t rxe_other.cold

rdma_rxe.ko.elf:     file format elf64-x86-64

Contents of the .debug_line section:

CU: /build/rxe_odp.c:
File name                            Line number    Starting address    View    Stmt
rxe_odp.c                                 16          0x10011a00               x
rxe_odp.c                                 17          0x10011a09               x

/usr/src/linux-headers-7.3.4+deb13-common/include/linux/mmu_notifier.h:
mmu_notifier.h                           435          0x10011a09       3       x

/build/rxe_odp.c:
rxe_odp.c                                 24          0x10011a1c
rxe_odp.c                                 25          0x10011a28               x
rxe_odp.c                                  7          0x10011a2c               x
rxe_odp.c                                 40          0x10011a30               x
rxe_odp.c                                  -          0x10011a40
rxe_odp.c                                 41          0x10013b2b               x
rxe_odp.c                                  -          0x10013b3b
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "rdma_rxe.lines"
    path.write_text(TABLE)
    source = [f"line {number}" for number in range(1, 50)]
    source[25] = source[42] = "}"
    (tmp_path / "rxe_odp.c").write_text("\n".join(source))
    return line_tables.read(path, tmp_path)


def test_a_log_is_offsets_by_module_and_section():
    """Mutations: log all of the kernel; take an address for the section before it."""
    places = ModuleLayout.read(LAYOUT, ("rdma_rxe", "ib_core"))
    assert places.ranges == ((0xFFFFFFFFC0470000, 217088), (0xFFFFFFFFC0436000, 626688))
    assert places.options("/x")[:3] == ("-d", "in_asm", "-dfilter")
    assert "0xffffffffc0470000+0x35000" in places.options("/x")[3]
    ran = places.executed(LOG)
    assert ran == {"rdma_rxe": {".text": [0x11A00, 0x11A09, 0x11A1C]}, "ib_core": {".text": [0x10]}}
    assert ModuleLayout((), ()).options("/x") == ()


def test_an_instruction_is_of_all_the_lines_that_are_inlined_there(table):
    """Mutations: one line an address; count the end of a table for a line; lose a file that comes back."""
    assert table.code["rxe_odp.c"] == {7, 16, 17, 24, 25, 40, 41}
    assert table.code["include/linux/mmu_notifier.h"] == {435}
    ran = table.ran({".text": [0x11A00, 0x11A09, 0x11A1E]})
    assert ran == {"rxe_odp.c": {16, 17, 24}, "include/linux/mmu_notifier.h": {435}}
    # Line 7 is another function's, inlined there.
    assert [(f.name, sorted(f.lines)) for f in table.functions] == [
        ("rxe_ib_invalidate_range", [16, 17, 24, 25]),
        ("rxe_other", [40, 41]),
    ]


@pytest.fixture
def measured(table):
    cases = {"one": {"rdma_rxe": {"rxe_odp.c": {16, 17}}}, "two": {"rdma_rxe": {"rxe_odp.c": {24}}}}
    return Coverage({"rdma_rxe": table}, cases)


def test_cases_add_up(measured):
    """Mutations: keep the last case only; count lines of headers for the file's."""
    assert measured.files("rdma_rxe") == [("rxe_odp.c", 3, 7)]
    assert measured.functions("rdma_rxe")[0] == ("rxe_odp.c", "rxe_ib_invalidate_range", 3, 4)
    text = coverage.lcov(measured, [RXE])
    assert f"SF:{RXE.folder}/rxe_odp.c\nDA:7,0\nDA:16,1\nDA:17,1\nDA:24,1\nDA:25,0" in text
    assert text.endswith("end_of_record\n") and "mmu_notifier" not in text


def test_changed_lines_that_no_case_executes_are_listed(measured, tmp_path):
    """Mutations: list lines without code; list executed lines; take a moved line for a new one."""
    before = [f"line {number}" for number in range(1, 50)]
    after = [*before[:23], "new 24", "new 25", "new 26", *before[23:]]
    for root, text in (("stock", before), ("tree", after)):
        (tmp_path / root / RXE.folder).mkdir(parents=True)
        (tmp_path / root / RXE.folder / "rxe_odp.c").write_text("\n".join(text))
    changed = coverage.changed_lines(differing(tmp_path / "stock", tmp_path / "tree", [RXE]))
    assert changed.new == {ODP: {24, 25, 26}} and not changed.removed
    assert coverage.not_executed(measured, changed.new) == [(ODP, 25, 25)]
    # Who executes the neighbours of lines that are only added, executes them.
    assert changed.old == {ODP: {23, 24}}
    assert coverage.plans_executing(measured, changed.old) == {"two"}
    assert coverage.plans_executing(measured, {ODP: {49}}) == set()
    assert coverage.not_executed(measured, {ODP: {40, 41, 42}}) == [(ODP, 40, 41)]


def test_removed_lines_are_those_that_nothing_replaces(tmp_path):
    """A removed unlock. Mutation: report new lines only."""
    before = [f"line {number}" for number in range(1, 50)]
    for root, text in (("stock", before), ("tree", before[:23] + before[25:])):
        (tmp_path / root / RXE.folder).mkdir(parents=True)
        (tmp_path / root / RXE.folder / "rxe_odp.c").write_text("\n".join(text))
    changed = coverage.changed_lines(differing(tmp_path / "stock", tmp_path / "tree", [RXE]))
    assert changed.removed == {ODP: {24, 25}}


def test_files_are_of_their_module_and_headers_of_all():
    """ib_core and mlx5_ib each have a cq.c. Mutations: match by name; require a line to run in each module."""
    header = "include/linux/mmu_notifier.h"
    core, mlx5 = Lines(code={"cq.c": {7}, header: {1, 2, 3}}), Lines(code={"cq.c": {9}, header: {1, 2}})
    ran = {"one": {"ib_core": {"cq.c": {7}, header: {1}}, "mlx5_ib": {header: {2}}}}
    both = Coverage({"ib_core": core, "mlx5_ib": mlx5}, ran)
    lines = {f"{CORE.folder}/cq.c": {7, 8, 9}, f"{MLX5.folder}/cq.c": {7, 8, 9}, header: {1, 2, 3, 4}}
    assert coverage.not_executed(both, lines) == [(f"{MLX5.folder}/cq.c", 9, 9), (header, 3, 3)]
    assert coverage.plans_executing(both, {f"{MLX5.folder}/cq.c": {7}}) == set()
    assert coverage.plans_executing(both, {header: {2}}) == {"one"}


def test_a_page_marks_lines_and_escapes_source(measured, tmp_path):
    """Mutation: no autoescape; count lines from 0."""
    (tmp_path / "rxe_odp.c").write_text("\n".join(f"<{number}>" for number in range(1, 50)))
    page = coverage_html.coverage(measured, "rdma_rxe", tmp_path, "7.3.4")
    assert '<span class="executed"><i>16</i><code>&lt;16&gt;</code></span>' in page
    assert '<span class="missed"><i>25</i><code>&lt;25&gt;</code></span>' in page
    assert "<16>" not in page and "prefers-color-scheme" in page and 'name="viewport"' in page
    assert '<i class="executed" style="flex-grow:3"></i><i class="missed"' in page
