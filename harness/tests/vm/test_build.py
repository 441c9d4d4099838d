"""Modules built from cached objects equal those of a clean build."""

import pytest

from harness.campaign import noop_changes
from harness.campaign.builds import build_modules, copy_sources
from harness.errors import SetupError
from harness.kernel.source import source
from harness.kernel.subsystems import RXE
from harness.tests.vm.conftest import FULL

pytestmark = pytest.mark.skipif(
    not FULL, reason="compiles rdma_rxe again for each kind of change: ODP_FULL=1"
)


@pytest.mark.parametrize("kind", noop_changes.KINDS, ids=lambda kind: kind.__name__)
def test_a_build_from_objects_equals_a_clean_build(session, kind):
    """Mutations: let changed files keep the times of the old ones; keep a removed file."""
    kernel = session.kernel("newest")
    stock = source(kernel, session.archive)
    with session.ledger.scratch_folder("build") as tree:
        copy_sources(stock, [RXE], tree)
        kind(tree / RXE.folder, RXE, 5)
        contents = []
        for clean in (False, True):
            built = build_modules(session, kernel, tree, [RXE], clean=clean)
            paths = (*built.files.values(), *built.line_tables.values())
            contents.append([path.read_bytes() for path in paths])
            # Both are the same entry of the cache.
            for path in built.files.values():
                session.store.discard("module", path.parent.name)
    assert contents[0] == contents[1]


def test_a_module_that_the_makefile_drops_is_an_error(session):
    """Mutation: keep the modules beside the objects that they were linked from."""
    kernel = session.kernel("newest")
    with session.ledger.scratch_folder("build") as tree:
        copy_sources(source(kernel, session.archive), [RXE], tree)
        makefile = tree / RXE.folder / "Makefile"
        makefile.write_text(makefile.read_text().replace("obj-$(CONFIG_RDMA_RXE)", "obj-n"))
        with pytest.raises(SetupError, match="has built no module"):
            build_modules(session, kernel, tree, [RXE], lines=False)
