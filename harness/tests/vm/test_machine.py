"""Make a real kernel fail and check the harness's error."""

import time
from dataclasses import replace

import pytest

from harness.errors import Crash, Hang, SetupError
from harness.machine import icount
from harness.machine.console import scan
from harness.machine.qemu import MachineConfig
from harness.machine.vm import Machine
from harness.tests.vm.conftest import FULL
from harness.values.case import Request


def _run(session, booted, *argv, deadline_s=60):
    return session.machines.run(booted, Request(9, "exec", argv=argv), deadline_s)


def test_command_runs_and_its_status_comes_back(session, booted):
    """Mutation: answer with the status of the agent."""
    reply = _run(session, booted, "sh", "-c", "uname -r; exit 3")
    assert reply.exit_status == 3
    assert reply.output.strip() == session.kernel("newest").release


def test_command_that_does_not_start_is_an_error(session, booted):
    """Mutation: take any reply for one that went well."""
    with pytest.raises(SetupError, match="the agent failed: FileNotFoundError"):
        _run(session, booted, "no-such-program")


def test_panic_is_a_crash_with_its_fingerprint(session, booted):
    """Mutation: raise the time-out or QEMU's end first."""
    with pytest.raises(Crash, match="sysrq triggered crash") as caught:
        _run(session, booted, "sh", "-c", "echo c > /proc/sysrq-trigger")
    assert "sysrq_handle_crash" in caught.value.hint
    assert any("sysrq_handle_crash" in line for line in caught.value.evidence)


def test_killed_init_is_a_crash(session, booted):
    """Kill the first process, which makes the kernel panic. Mutation: drop `panic` from the table.

    No signal reaches that process; a tracer that sends it to address 0 does (requests of ptrace(2): SEIZE,
    INTERRUPT, POKEUSER of orig_rax and rip, DETACH).
    """
    program = """
import ctypes as c, os
def ptrace(request, address=0, data=0):
    assert c.CDLL(None).ptrace(*map(c.c_long, (request, 1, address, data))) == 0
ptrace(0x4206)
ptrace(0x4207)
os.waitpid(1, 0x40000000)
ptrace(6, 120, -1)
ptrace(6, 128, 0)
ptrace(17)
"""
    with pytest.raises(Crash, match="Attempted to kill init"):
        _run(session, booted, "python3", "-c", program)


def test_a_missing_userland_is_reported_by_the_console(session, tmp_path):
    """Boot a machine that never comes up. Mutation: report a missing reply only."""
    disks, _ = session.machines.disks(session.kernel("newest"))
    (tmp_path / "empty").write_bytes(bytes(1 << 20))
    disks = replace(disks, userland=tmp_path / "empty")
    with (
        pytest.raises(Crash, match="Attempted to kill init") as caught,
        _cold(session, disks, tmp_path) as machine,
    ):
        machine.wait(120)
    assert any("init: no userland" in line for line in caught.value.evidence)


def test_a_silent_guest_is_a_hang_within_its_deadline(session, tmp_path):
    """Start a paused machine. Mutation: wait for the NMI's panic for ever."""
    disks, _ = session.machines.disks(session.kernel("newest"))
    began = time.monotonic()
    with pytest.raises(Hang, match="within 3 s"), _cold(session, disks, tmp_path, paused=True) as machine:
        machine.wait(3)
    assert time.monotonic() - began < 30


def _cold(session, disks, folder, **options):
    machines = session.machines
    shape = machines.shape("exact")
    config = MachineConfig(shape, disks, Request(0, "wait"), folder / "ram", **options)
    return Machine(session.host, session.qemu, folder, config)


def test_spinning_task_is_a_hang_with_its_stack(session, booted):
    """Mutation: do not send the NMI: no stack."""
    with pytest.raises(Hang, match="within 6 s") as caught:
        _run(session, booted, "python3", "-c", "while True: pass", deadline_s=6)
    assert any("Comm: python3" in line for line in caught.value.evidence)


def test_a_power_off_is_a_setup_error(session, booted):
    """Mutation: report every end of QEMU as a crash."""
    with pytest.raises(SetupError, match="QEMU ended by itself"):
        _run(session, booted, "sh", "-c", "echo o > /proc/sysrq-trigger; sleep 60")


def test_a_broken_state_file_is_an_error_with_qemus_message(session, booted, tmp_path):
    """Mutation: wait for the deadline although QEMU has exited."""
    (tmp_path / "state").write_bytes((booted.folder / "state").read_bytes()[:5000])
    (tmp_path / "ram").symlink_to(booted.ram)
    broken = replace(booted, folder=tmp_path)
    with pytest.raises(SetupError, match="QEMU ended by itself"):
        _run(session, broken, "true")


def test_a_restore_does_not_change_the_snapshot(session, booted):
    """Mutation: restore with share=on."""
    before = booted.ram.stat().st_mtime_ns
    _run(session, booted, "dd", "if=/dev/urandom", "of=/tmp/x", "bs=1M", "count=8")
    assert booted.ram.stat().st_mtime_ns == before
    assert _run(session, booted, "test", "-e", "/tmp/x").exit_status == 1


def test_clean_boot_has_no_symptom(session, booted):
    """Mutation: add a pattern that matches ordinary lines."""
    reply = _run(session, booted, "dmesg")
    assert "Linux version" in reply.output
    assert scan(reply.output.splitlines()) == ()


@pytest.mark.skipif(not FULL, reason="runs some 5 G instructions")
def test_a_machine_that_qemu_cannot_record_spins_until_it_can(session, booted, tmp_path):
    """Mutation: do not spin."""
    machines, far = session.machines, tmp_path / "far"
    far.mkdir()
    machines._copy(booted.ram, far / "ram")
    within = icount.counted(booted.state) % icount.ROUND
    machines._carry_out(booted, Request(7, "spin", spin_ns=icount.ROUND - (1 << 29) - within), far)
    there = replace(booted, folder=far, number=7)
    assert icount.to_spin(icount.counted(there.state))
    with pytest.raises(SetupError, match="QEMU ended by itself") as caught:
        _run(session, there, "true")
    assert any("replay_advance_current_icount" in line for line in caught.value.evidence)
    machines._spin(there)
    assert _run(session, replace(there, number=8), "echo", "here").output == "here\n"
