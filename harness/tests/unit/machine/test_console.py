"""Recorded console logs.

A log under data/console begins with a comment: the kernel that printed it and how it was made. `# found:` lines
after it are the fingerprints that must be found, in order. Logs are real if a stock kernel prints them, else
they are marked `by hand`.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from harness.errors import Crash, GuestError, Hang, KasanReport, LeakReport, LockdepReport, Warn
from harness.machine.console import Console, distinct, reports, scan, symptom_error
from harness.machine.symptoms import KINDS
from harness.values.symptom import Symptom

LOGS = Path(__file__).parents[2] / "data" / "console"
NAMES = sorted(path.stem for path in LOGS.glob("*.log"))


def log(name):
    """Read the lines of a log, and the fingerprints that must be found in it."""
    lines = (LOGS / f"{name}.log").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    fingerprints = [line.removeprefix("# found: ") for line in lines if line.startswith("# found: ")]
    return [line for line in lines if not line.startswith("# ")], fingerprints


@pytest.mark.parametrize("name", NAMES)
def test_recorded_log(name):
    """Mutation: take any row out of KINDS; let PLUMBING match nothing; drop `absorbs`."""
    lines, fingerprints = log(name)
    symptoms = scan(lines)
    assert [symptom.fingerprint for symptom in symptoms] == fingerprints
    for symptom in symptoms:
        assert symptom.headline in [line.strip() for line in symptom.excerpt]
        assert not any(re.match(r"\[ *\d+\.\d+\]", line) for line in symptom.excerpt)


def test_every_kind_has_a_log():
    """Mutation: add a row without a log."""
    seen = {symptom.kind for name in NAMES for symptom in scan(log(name)[0])}
    assert seen == {kind.name for kind in KINDS} - {"workqueue_lockup"}


@pytest.mark.parametrize("name", ["clean-7.3", "clean-6.1"])
def test_a_clean_boot_has_no_symptom(name):
    """Mutation: let the `bug` row match `BUG` anywhere, or `warn` match `WARNING` alone."""
    lines, _ = log(name)
    assert len(lines) > 200
    assert scan(lines) == ()


@pytest.mark.parametrize("name", ["oops-null", "soft-lockup", "hung-task"])
def test_one_bug_on_two_boots_has_one_fingerprint(name):
    """Compare with a boot with KASLR and two CPUs. Mutation: keep the offsets in a frame.

    An RCU stall is not among them: a task that runs on another CPU is unwound by guess, and guessed frames are no
    fingerprint.
    """
    first, second = scan(log(f"{name}-7.3")[0]), scan(log(f"{name}-7.3-again")[0])
    assert first[0].fingerprint == second[0].fingerprint
    assert first[0].excerpt != second[0].excerpt


SAME = [
    "oops-null",
    "oops-gpf",
    "bug",
    "warn",
    "refcount",
    "list-del",
    "hung-task",
    "soft-lockup",
    "rcu-stall",
]


@pytest.mark.parametrize("name", SAME)
def test_one_bug_on_two_kernels_has_one_fingerprint(name):
    """Compare 7.3, whose text and frames differ, with 6.1. Mutation: drop the new form of WARNING."""
    assert scan(log(f"{name}-7.3")[0])[0].fingerprint == scan(log(f"{name}-6.1")[0])[0].fingerprint


PREFIXES = [
    "[    1.000000] ",
    "[12345.678901][  T123] ",
    "[    1.000000][    C0] ",
    "<4>[    1.000000] ",
    "",
    "\x1b[0m[ 1.000000] ",
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("end", ["", "\r"])
def test_prefixes_and_line_ends_do_not_matter(prefix, end):
    """Mutation: forget the caller in _PREFIX."""
    lines, fingerprints = log("oops-null-7.3")
    bare = [re.sub(r"^\[ *\d+\.\d+\] ", "", line) for line in lines if line.startswith("[")]
    (symptom,) = scan([prefix + line + end for line in bare])
    assert [symptom.fingerprint] == fingerprints and symptom.excerpt[0] == symptom.headline


def test_clones_modules_and_inline_addresses_are_one_function():
    """Mutation: do not strip the suffixes."""
    one = [
        "BUG: unable to handle page fault for address: 1",
        "Call Trace:",
        " a_b.isra.0+0x1/0x2 [m]",
        " c+0x1/0x2",
    ]
    two = ["BUG: unable to handle page fault for address: 2", "Call Trace:", " [<ffffffff81>] a_b.constprop.0.cold+0x9/0x22 [m 1234]", " ? x+0x1/0x2", " c+0x5/0x2 [n(OE)]"]  # fmt: skip  # noqa: E501
    assert scan(one)[0].fingerprint == scan(two)[0].fingerprint == "oops page fault: a_b < c"


def test_a_task_that_waits_for_a_page_hangs_too():
    """Mutation: match only one form of the message."""
    for how in ("blocked", "is blocked", "blocked in I/O wait"):
        line = f"[  119.400001] INFO: task kworker/u4:1:33 {how} for more than 90 seconds."
        assert [symptom.kind for symptom in scan([line, "[  119.500001]  </TASK>"])] == ["hung_task"]


def test_arm64():
    lines = [
        "[  5.000000] Unable to handle kernel NULL pointer dereference at virtual address 0000000000000058",
        "[  5.000001] Mem abort info:",
        "[  5.000002] Internal error: Oops: 0000000096000044 [#1] SMP",
        "[  5.000003] pc : odp_demo_write+0x20/0x60 [odp_demo]",
        "[  5.000004] lr : odp_demo_ioctl+0x14/0x40 [odp_demo]",
        "[  5.000005] Call trace:",
        "[  5.000006]  odp_demo_write+0x20/0x60 [odp_demo] (P)",
        "[  5.000007]  odp_demo_ioctl+0x14/0x40 [odp_demo]",
        "[  5.000008]  invoke_syscall+0x6c/0x100",
        "[  5.000009]  el0t_64_sync+0x1ac/0x1b0",
        "[  5.000010] ---[ end trace 0000000000000000 ]---",
    ]
    (symptom,) = scan(lines)
    assert symptom.fingerprint == "oops NULL pointer dereference: odp_demo_write < odp_demo_ioctl"


def test_output_of_programs_is_ignored():
    """Mutation: take lines without timestamps where others have them."""
    lines = [
        "BUG: my program",
        "Kernel panic - not syncing: printed by a program",
        "WARNING: CPU: 0 PID: 1 at f.c:1 f+0x1/0x2",
    ]
    assert scan(["[    1.000000] Run /init as init process", *lines]) == ()
    assert len(scan(lines)) == 3, "a log without any timestamp is taken as it is"
    quoted = [
        "[    1.000000] demo: saw WARNING: at x",
        "[    1.000000] ACPI: [Firmware Bug]: BUG: in table",
        "[    1.0] x",
    ]
    assert scan(quoted) == ()


def test_a_prompt_before_a_message_does_not_hide_it():
    """Mutation: match the timestamp at the start of the line only."""
    assert scan(["[    1.000000] x", "root@guest:~# [    2.000000] Kernel panic - not syncing: demo"])


def test_a_cut_report_is_found_too():
    """Mutation: drop a report without its end."""
    lines, fingerprints = log("oops-null-7.3")
    at = next(i for i, line in enumerate(lines) if "Call Trace" in line)
    (symptom,) = scan(lines[: at + 1])
    assert symptom.fingerprint == "oops NULL pointer dereference: inner_null"


def test_distinct_keeps_the_first_of_each():
    """Mutation: keep the last."""
    symptoms = scan(log("hung-task-7.3")[0])
    assert len(symptoms) == 2 and distinct(symptoms) == symptoms[:1]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("oops-null-7.3", Crash),
        ("panic-init-7.3", Crash),
        ("bug-7.3", Crash),
        ("list-del-7.3", Crash),
        ("slub-7.3", Crash),
        ("hung-task-7.3", Hang),
        ("soft-lockup-7.3", Hang),
        ("hard-lockup", Hang),
        ("rcu-stall-7.3", Hang),
        ("warn-7.3", Warn),
        ("refcount-7.3", Warn),
        ("ubsan-shift-7.3", Warn),
        ("oom-7.3", Warn),
        ("kasan", KasanReport),
        ("kfence-7.3", KasanReport),
        ("lockdep-circular", LockdepReport),
        ("kmemleak", LeakReport),
        ("netdev-leak-7.3", LeakReport),
    ],
)
def test_the_error_of_a_symptom(name, error):
    """Mutation: swap the classes of two rows."""
    symptom = scan(log(name)[0])[0]
    raised = symptom_error(symptom)
    assert type(raised) is error and raised.exit_status == 1
    assert raised.headline == symptom.headline and symptom.fingerprint in raised.render()


def test_an_unknown_kind_is_a_guest_error():
    """Mutation: raise StopIteration."""
    assert type(symptom_error(Symptom("from a later version", "x"))) is GuestError


def _grow(path, lines):
    with path.open("ab") as file:
        file.write("".join(f"{line}\r\n" for line in lines).encode())


def test_news_has_each_report_once_when_it_has_ended(tmp_path):
    """Append in pieces of many sizes. Mutation: do not keep an open report; forget the prologue."""
    lines = [
        line
        for name in ("warn-7.3", "oops-null-7.3", "refcount-7.3", "panic-sysrq-7.3")
        for line in log(name)[0]
    ]
    data = "".join(f"{line}\r\n" for line in lines).encode()
    for size in (1, 7, 1000, len(data)):
        path = tmp_path / f"{size}.log"
        console, news = Console(path), []
        assert console.news() == () and console.since() == () and console.tail() == ()
        step = size if size > 1 else 97
        for at in range(0, len(data), step):
            with path.open("ab") as file:
                file.write(data[at : at + step])
            news += console.news()
        news += console.news(settle=True)
        assert news == list(scan(lines)) and len(news) == 4
        assert console.news(settle=True) == ()


def test_console_since_a_mark(tmp_path):
    """Mutation: ignore the mark."""
    path = tmp_path / "console.log"
    console = Console(path)
    _grow(path, log("warn-7.3")[0])
    mark = console.mark()
    assert mark == path.stat().st_size and console.since(mark) == ()
    lines, fingerprints = log("oops-null-7.3")
    _grow(path, lines[:30])
    assert [symptom.kind for symptom in console.since(mark)] == ["oops"], "an unfinished report counts here"
    _grow(path, lines[30:])
    assert [symptom.fingerprint for symptom in console.since(mark)] == fingerprints
    assert [symptom.kind for symptom in console.since()] == ["warn", "oops"]
    assert console.tail(2)[-1] == "reboot: Power down"


def test_bytes_that_are_no_text(tmp_path):
    """Mutation: decode strictly."""
    path = tmp_path / "console.log"
    path.write_bytes(
        b"\xff\xfe\x00[    1.000000] Kernel panic - not syncing: \xc3\x28demo\n\x80" + bytes(range(256)) * 40
    )
    assert [symptom.kind for symptom in Console(path).since()] == ["panic"]


def test_a_big_log_is_scanned_fast():
    """Mutation: look for the prologue through the whole log, or try every row on every line."""
    lines = log("clean-7.3")[0] * 200 + log("warn-7.3")[0] * 200
    started = time.process_time()
    assert len(list(reports(lines))) == 200
    assert time.process_time() - started < 20


PROBED = [
    "trace_clock_x86_tsc+0x20/0x20",
    "osnoise_arch_unregister+0x210/0x210",
    "arch_rethook_trampoline+0x0/0x60",
    "__kretprobe_trampoline+0x0/0x50",
    "kretprobe_rethook_handler+0x5f/0xc0",
    "rethook_trampoline_handler+0x8a/0x150",
    "ftrace_regs_caller_end+0x9b/0x9b",
    "ftrace_caller+0x5d/0x80",
    "ftrace_ops_assist_func+0xd4/0x110",
    "ftrace_return_to_handler+0xd5/0x1a0",
    "return_to_handler+0x1e/0x60",
    "kprobe_ftrace_handler+0x100/0x1d0",
    "kprobe_perf_func+0x13a/0x2a0",
    "opt_pre_handler+0x43/0x80",
    "trace_call_bpf+0x9b/0x190",
    "bpf_prog_0123456789abcdef_enter_lookup+0x2e/0x40",
    "bpf_trampoline_6442508829+0x53/0xf1",
    "__bpf_prog_enter_recur+0x21/0x90",
    "bpf_trace_run3+0x7c/0xd0",
]


@pytest.mark.parametrize("probed", PROBED)
def test_frames_of_probes_are_not_in_the_fingerprint(probed):
    """Mutation: drop the row of the name from PROBES."""
    lines = [
        "BUG: unable to handle page fault for address: 1",
        "Call Trace:",
        " a+0x1/0x2",
        f" {probed}",
        " b+0x1/0x2",
    ]
    assert scan(lines)[0].fingerprint == "oops page fault: a < b"


@pytest.mark.parametrize(
    "name", ["trace_clock_global", "bpf_prog_test_run_init", "ftrace_modify_call", "register_kprobe"]
)
def test_functions_with_names_like_those_of_probes_are_in_the_fingerprint(name):
    """Mutation: match every name that begins like one of a probe."""
    lines = [
        "BUG: unable to handle page fault for address: 1",
        "Call Trace:",
        " a+0x1/0x2",
        f" {name}+0x1/0x2",
    ]
    assert scan(lines)[0].fingerprint == f"oops page fault: a < {name}"
