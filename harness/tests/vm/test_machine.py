"""A real kernel that is made to fail, and what the harness says of it."""

import pytest

from harness.errors import Crash, Hang, SetupError
from harness.machine.console import scan
from harness.values.case import Order


def _run(session, booted, *argv, deadline_s=60):
    return session.studio.run(booted, Order(9, "exec", argv=argv), deadline_s)


def test_command_runs_and_its_status_comes_back(session, booted):
    """Mutation: answer with the status of the agent."""
    reply = _run(session, booted, "sh", "-c", "uname -r; exit 3")
    assert reply.exit_status == 3
    assert reply.output.strip() == session.kernel("newest").release


def test_panic_is_a_crash_with_its_fingerprint(session, booted):
    """Mutation: raise the time-out or QEMU's end first."""
    with pytest.raises(Crash, match="sysrq triggered crash") as caught:
        _run(session, booted, "sh", "-c", "echo c > /proc/sysrq-trigger")
    assert "sysrq_handle_crash" in caught.value.hint
    assert any("sysrq_handle_crash" in line for line in caught.value.evidence)


def test_killed_init_is_a_crash(session, booted):
    """The kernel refuses to live without its first process. Mutation: drop `panic` from the table."""
    with pytest.raises(Crash, match="Attempted to kill init"):
        _run(session, booted, "python3", "-c", "import os; os.kill(1, 11)")


def test_spinning_task_is_a_hang_with_its_stack(session, booted):
    """Mutation: do not send the NMI: no stack."""
    with pytest.raises(Hang, match="within 6 s") as caught:
        _run(session, booted, "python3", "-c", "while True: pass", deadline_s=6)
    assert any("Comm: python3" in line for line in caught.value.evidence)


def test_machine_that_powers_off_is_no_verdict_on_the_kernel(session, booted):
    """Mutation: report every end of QEMU as a crash."""
    with pytest.raises(SetupError, match="QEMU ended by itself"):
        _run(session, booted, "sh", "-c", "echo o > /proc/sysrq-trigger; sleep 60")


def test_broken_state_file_is_an_error_with_qemus_words(session, booted, tmp_path):
    """Mutation: wait for the deadline although QEMU is gone."""
    from dataclasses import replace

    (tmp_path / "state").write_bytes((booted.folder / "state").read_bytes()[:5000])
    (tmp_path / "ram").symlink_to(booted.ram)
    broken = replace(booted, folder=tmp_path)
    with pytest.raises(SetupError, match="QEMU ended by itself"):
        _run(session, broken, "true")


def test_restores_are_equal_and_leave_the_saved_memory_alone(session, booted):
    """Exact time: two runs see the same clock to the nanosecond. Mutation: restore with share=on, or a real clock."""
    read_clock = ("python3", "-c", "import time; print(time.clock_gettime_ns(time.CLOCK_MONOTONIC))")
    before = booted.ram.stat().st_mtime_ns
    outputs = {_run(session, booted, *read_clock).output for _ in range(3)}
    assert booted.ram.stat().st_mtime_ns == before
    assert len(outputs) == 1


def test_clean_boot_has_no_symptom(session, booted):
    """Mutation: add a pattern that matches ordinary lines."""
    reply = _run(session, booted, "dmesg")
    assert "Linux version" in reply.output
    assert scan(reply.output.splitlines()) == ()
