"""Each claim of speed is measured once, in as few rounds as it takes: what `bench` prints is there."""

import json

import pytest

from harness.bench import boot
from harness.errors import SetupError
from harness.plan.plan import load
from harness.plan.runner import CaseRunner
from harness.tests.vm.conftest import CHECKOUT, FULL, harness


def _metrics(session, name, *options):
    done = harness("bench", name, *options, "--json", "--cache", session.store.root, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_a_card_in_exact_time(session):
    """Mutation: leave FAKETIME_FORCE_MONOTONIC_FIX out of machine.qemu.STILL; then no card can be plugged."""
    case = next(load(CHECKOUT / "testplans" / "odp-write.toml").cases(("newest",), "exact", ("connectx-5",)))
    record, _ = CaseRunner(session).run(case)
    assert (record.verdict, record.reasons) == ("pass", ())
    assert record.environment["clock"] == "exact"


def test_boot(session):
    """Mutation: let an error of virtme-ng end the bench, on a machine without udev."""
    metrics = _metrics(session, "boot", "--rounds", 1)
    assert 0 < metrics["prepared_s"] < metrics["cold_s"] and 0 < metrics["booted_s"] < metrics["cold_s"]
    try:
        boot.need_udev()
    except SetupError as error:
        assert (metrics["vng_s"], metrics["ratio_prepared_to_vng"]) == (None, None)
        assert metrics["vng_error"] == error.render()
    else:
        assert metrics["vng_s"] > 0 and metrics["ratio_prepared_to_vng"] > 0 and not metrics["vng_error"]


def test_exact(session):
    """Mutation: run in real time where exact time is requested."""
    metrics = _metrics(session, "exact", "--rounds", 2)
    assert metrics["exact_elapsed_ns"] > 0
    assert (metrics["exact_spread_ns"], metrics["equal_answers"]) == (0, 2)


def test_exact_of_a_card(session):
    """Mutation: leave FAKETIME_FORCE_MONOTONIC_FIX out of machine.qemu.STILL."""
    metrics = _metrics(session, "exact", "--device", "connectx-5", "--rounds", 1)
    assert {band["stage"] for band in metrics["bands"]} >= {"operation", "fault", "fault.resumes"}
    assert metrics["restores"] == 1


def test_card(session):
    """Mutation: leave FAKETIME_FORCE_MONOTONIC_FIX out of machine.qemu.STILL."""
    metrics = _metrics(session, "card", "--rounds", 1)
    assert (
        metrics["command_count"] > 0 and metrics["bar_read_p50_us"] > 0 and metrics["restore_to_verbs_s"] > 0
    )
    assert set(metrics["repeats"]) == {"write_exact", "objects_exact", "write_icount", "objects_icount"}


def test_kmod(session):
    """Mutation: leave FAKETIME_FORCE_MONOTONIC_FIX out of machine.qemu.STILL."""
    metrics = _metrics(session, "kmod", "--rounds", 1)
    assert metrics["answers"] > 0 and metrics["events"] > 0 and metrics["lost"] == 0
    assert metrics["observe_faults"] > 0 and metrics["observe_instructions_per_fault"] > 0


@pytest.mark.skipif(not FULL, reason="sixteen machines and 200 000 faults, minutes: ODP_FULL=1")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("name", "options", "metric"),
    [
        ("faults", ("--rounds", 2), "wqe_per_s"),
        ("trace", (), "instructions_per_fault"),
        ("regress", ("--rounds", 1), "verdict_s"),
    ],
)
def test_long_ones(session, name, options, metric):
    """Mutation: divide by the rounds between a long and a short run where there are none."""
    assert _metrics(session, name, *options)[metric] > 0
