"""Upstream's tests run in children: the results, whatever a test does to its process."""

import os
import signal
import time
import unittest

import pytest

from harness.guest import upstream


class Sample(unittest.TestCase):
    __test__ = False  # for pytest: only the child runs them

    def test_a_passes(self):
        pass

    def test_b_fails(self):
        os.write(1, b"printed on the way")
        self.fail("seven of nine")

    def test_c_kills_itself(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def test_d_hangs(self):
        time.sleep(60)

    def test_e_skips(self):
        raise unittest.SkipTest("no\n  hardware")

    def test_f_passes(self):
        pass


@pytest.fixture
def run_sample(tmp_path, monkeypatch):
    """Return the results of the tests of Sample from number `first` on."""
    monkeypatch.setattr(upstream, "OUTPUT", tmp_path / "output")

    def run(first=0, timeout_s=1.0):
        chosen = list(unittest.defaultTestLoader.loadTestsFromTestCase(Sample))
        news, number = [], first
        while number < len(chosen):
            number = upstream._Child(chosen, number, timeout_s, news.append).watch()
        return news

    return run


def test_each_is_reported_and_a_dead_or_hanging_one_fails_alone(run_sample):
    """Mutation: go on with the test that ran when the child ended, or with the one behind it twice."""
    news = run_sample()
    assert [test.number for test in news if test.outcome == "started"] == list(range(6))
    ends = [test for test in news if test.outcome != "started"]
    assert [test.outcome for test in ends] == ["pass", "fail", "fail", "fail", "skip", "pass"]
    assert ends[1].reason == "AssertionError: seven of nine"
    assert "printed on the way" in ends[1].detail and "test_b_fails" in ends[1].detail
    assert ends[2].reason == "the test's process ended with signal 9"
    assert ends[3].reason == "no end after 1 s" and ends[3].wall_s >= 1
    assert ends[4].reason == "no hardware"


def test_run_resumes_from_a_number(run_sample):
    """Mutation: count from 0 in the child."""
    assert [test.number for test in run_sample(first=4)] == [4, 4, 5, 5]


@pytest.mark.parametrize(
    ("patterns", "count"), [((), 6), (("_passes",), 2), (("*_passes", "skips"), 3), (("*Sample",), 0)]
)
def test_patterns_are_those_of_unittest(patterns, count):
    """Mutation: match parts also when there is a star."""
    every = list(unittest.defaultTestLoader.loadTestsFromTestCase(Sample))
    assert len(upstream.chosen_of(every, patterns)) == count
