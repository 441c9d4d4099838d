"""KCIDB JSON, checked by KCIDB's own schema."""

import json
from dataclasses import replace

import kcidb_io
import pytest

from harness.results import kcidb
from harness.results.text import clean
from harness.tests.unit.results import sample
from harness.values.record import VERDICTS


def with_modules(number, modules, **more):
    """Build a record of a guest with a payload disk."""
    one = sample.record(number)
    return replace(one, environment={**one.environment, "machine.payload": modules, **more})


@pytest.fixture
def run(tmp_path):
    return sample.stored(tmp_path / "run", [*sample.mixed(), sample.hostile()])


def test_each_verdict_gives_a_valid_document(run):
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


def test_a_kernel_with_replaced_modules_is_another_build(tmp_path):
    """Mutations: identify a build by its kernel alone; by the names of the modules; call all of them Debian's."""
    records = [
        sample.record(0),
        with_modules(1, "ib_core rdma_rxe", payload="0123"),
        with_modules(2, "ib_core rdma_rxe", payload="4567"),
        with_modules(3, "ib_core rdma_rxe", payload="4567"),
        with_modules(4, "ib_core rdma_rxe", snapshot="89ab"),
        with_modules(5, f"mlx5_ib {sample.HOSTILE}"),
        with_modules(6, "no modules", payload="cdef"),
    ]
    document = json.loads(kcidb.render(sample.stored(tmp_path / "run", records)))
    kcidb_io.schema.LATEST.validate(document)
    of = [test["build_id"] for test in document["tests"]]
    assert of[2] == of[3] and of[0] == of[6] and len(set(of)) == 5 == len(document["builds"])
    builds = {build["id"]: build for build in document["builds"]}
    assert len({build["checkout_id"] for build in builds.values()}) == 5 == len(document["checkouts"])
    assert builds[of[0]]["comment"] == "Debian's 7.3.4+deb13-amd64" and "misc" not in builds[of[0]]
    assert "modules ib_core, rdma_rxe are replaced" in builds[of[1]]["comment"]
    assert not any(builds[each]["comment"].startswith("Debian") for each in of[1:6])
    assert builds[of[2]]["misc"]["payload"] == "4567"


def test_a_known_failure_is_a_failure_and_an_error_is_a_miss():
    """Mutation: report a known failure as passed; report an error as failed."""
    assert kcidb._STATUS["known"] == "FAIL" and kcidb._STATUS["error"] == "MISS"
    assert set(kcidb._STATUS) == set(VERDICTS)
