"""Modules built from cached objects equal those of a clean build."""

import pytest

from harness.campaign import noise
from harness.campaign.runs import copied, modules_with_lines
from harness.errors import SetupError
from harness.kernel.source import source
from harness.kernel.subsystems import RXE
from harness.tests.vm.conftest import FULL

pytestmark = pytest.mark.skipif(
    not FULL, reason="compiles rdma_rxe again for each kind of change: ODP_FULL=1"
)


@pytest.mark.parametrize("kind", noise.KINDS, ids=lambda kind: kind.__name__)
def test_a_build_from_objects_equals_a_clean_build(session, kind):
    """Mutations: let changed files keep the times of the old ones; keep a removed file."""
    kernel = session.kernel("newest")
    stock = source(kernel, session.archive)
    with session.ledger.scratch_folder("build") as tree:
        copied(stock, [RXE], tree)
        kind(tree / RXE.folder, RXE, 5)
        found = []
        for clean in (False, True):
            files, _, tables = modules_with_lines(session, kernel, tree, [RXE], True, clean)
            found.append([path.read_bytes() for path in (*files.values(), *tables.values())])
            # Both are the same entry of the cache.
            for path in files.values():
                session.store.discard("module", path.parent.name)
    assert found[0] == found[1]


def test_a_module_that_the_makefile_drops_is_an_error(session):
    """Mutation: keep the modules beside the objects that they were linked from."""
    kernel = session.kernel("newest")
    with session.ledger.scratch_folder("build") as tree:
        copied(source(kernel, session.archive), [RXE], tree)
        makefile = tree / RXE.folder / "Makefile"
        makefile.write_text(makefile.read_text().replace("obj-$(CONFIG_RDMA_RXE)", "obj-n"))
        with pytest.raises(SetupError, match="builds no module"):
            modules_with_lines(session, kernel, tree, [RXE], False)
