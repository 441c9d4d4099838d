from __future__ import annotations

import pytest

from harness.tests.unit.results.sample import record, stored


@pytest.fixture(scope="session")
def thousand(tmp_path_factory):
    """Store a run of 1000 cases, every hundredth failed."""
    records = [record(i, "fail" if i % 100 == 99 else "pass", faults=20) for i in range(1000)]
    return stored(tmp_path_factory.mktemp("thousand") / "run", records)
