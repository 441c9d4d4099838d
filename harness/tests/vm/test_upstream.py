"""Upstream's own tests in real guests."""

import json

from harness.plan import upstream
from harness.tests.vm.conftest import harness
from harness.values.upstream import Selection

ARGUMENTS = """
class Parser:
    def parse_args(self):
        pass
parser = Parser()
"""
TESTS = """
import unittest
class Three(unittest.TestCase):
    def test_1_passes(self):
        pass
    def test_2_oopses(self):
        with open("/proc/sysrq-trigger", "w") as trigger:
            trigger.write("c")
    def test_3_passes(self):
        pass
"""


def test_rdma_core_passes_and_skips_have_a_reason(session):
    """Mutation: report a skipped test as passed, or let a receive be completed with one byte too few."""
    names = ("-k", "test_odp_rc_traffic", "-k", "test_create_ah_roce")
    cache = ("--cache", session.store.root)
    done = harness("upstream", "rdma-core", *names, "--device", "connectx-5", "--json", *cache)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert (result["passed"], result["failed"], result["skipped"], result["findings"]) == (1, 0, 1, [])
    skipped = next(test for test in result["tests"] if test["outcome"] == "skip")
    assert "InfiniBand" in skipped["reason"]
    assert " pass tests.test_odp.OdpTestCase.test_odp_rc_traffic" in done.stderr


def test_an_oops_loses_no_result(session, tmp_path, monkeypatch):
    """Continue after the crashed test in another machine. Mutation: read the results at the end only."""
    root = tmp_path / "root" / "tests"
    root.mkdir(parents=True)
    (root / "args_parser.py").write_text(ARGUMENTS)
    (root / "__init__.py").write_text(TESTS)
    disk = tmp_path / "tests.erofs"
    session.host.run(["mkfs.erofs", "--quiet", str(disk), str(root.parent)])
    monkeypatch.setattr(upstream, "tests_disk", lambda session, suite: ("1", disk))
    outcomes = []
    seen = upstream.run(
        session,
        "rdma-core",
        "newest",
        "connectx-5",
        Selection(),
        lambda test, _: outcomes.append(test.outcome),
    )
    assert [test.outcome for test in seen.tests] == ["pass", "fail", "pass"]
    assert outcomes == ["started", "pass", "started", "started", "pass"]
    assert "sysrq" in seen.tests[1].reason.lower() and len(seen.problems) == 1 and not seen.passed
