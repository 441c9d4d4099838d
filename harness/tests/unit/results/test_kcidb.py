"""KCIDB JSON, as KCIDB itself judges it."""

import json

import kcidb_io
import pytest

from harness.results import kcidb
from harness.results.wording import clean
from harness.tests.unit.results import sample
from harness.values.record import VERDICTS


@pytest.fixture
def run(tmp_path):
    return sample.stored(tmp_path / "run", [*sample.mixed(), sample.hostile()])


def test_it_is_valid_and_says_each_verdict(run):
    """Mutations: a status of our own; a path with a slash; an identifier without its origin."""
    document = json.loads(kcidb.render(run))
    kcidb_io.schema.LATEST.validate(document)
    assert document["version"] == {
        "major": kcidb_io.schema.LATEST.major,
        "minor": kcidb_io.schema.LATEST.minor,
    }
    tests = {test["misc"]["case"]: test for test in document["tests"]}
    assert len(tests) == len({record.case.id for record in run.records})
    for record in run.records:
        assert tests[clean(record.case.id)]["misc"]["verdict"] in VERDICTS
    builds = {build["id"] for build in document["builds"]}
    assert {test["build_id"] for test in document["tests"]} <= builds
    assert json.loads(kcidb.render(run)) == document


def test_a_known_defect_is_the_kernels_and_a_broken_run_says_nothing():
    """Mutation: call a known defect passed; call what did not run failed."""
    assert kcidb._STATUS["known"] == "FAIL" and kcidb._STATUS["error"] == "MISS"
    assert set(kcidb._STATUS) == set(VERDICTS)
