"""Known delays in a stage: that stage gets longer by them, and no other does."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.campaign.builds import build_modules, copy_sources
from harness.kernel.source import source
from harness.kernel.subsystems import (
    MLX5,
    RXE,
)
from harness.plan.plan import load
from harness.plan.runner import CaseRunner
from harness.plan.session import Session
from harness.tests.vm.conftest import FULL, harness
from harness.values import codec
from harness.values.answer import Reply
from harness.values.case import PageLoss, Request, Watch
from harness.values.histogram import percentile

DELAY_MS = 300
# What a busy host does to a stage by itself stays below this in the median.
BAND_NS = DELAY_MS * 1_000_000 // 2

PLAN = """\
title = "writes to pages that are gone"
[matrix]
kernel = ["7.3"]
device = ["DEVICE"]
[workload]
operation = "write"
rounds = 7
pages = 4
mtu = 4096
[page_loss]
method = "dontneed"
side = "remote"
"""
RULES = {
    "resumes": '[[rules]]\nkind = "delay-command"\nopcode = "PAGE_FAULT_RESUME"\ndelay_ms = 300\ncount = 0\n',
    "umrs": '[[rules]]\nkind = "delay-umr"\numr = "map"\ndelay_ms = 300\ncount = 0\n',
}
# Stages around a stage, which get longer with it.
AROUND = {"resumes": {"works"}, "umrs": {"works", "translations"}}


def planned(tmp_path, device, more=""):
    path = tmp_path / f"plan-{len(list(tmp_path.iterdir()))}.toml"
    path.write_text(PLAN.replace("DEVICE", device) + more)
    return next(load(path).cases(("7.3",), devices=(device,)))


def answered(session, case):
    record, _ = CaseRunner(session).run(case)
    assert record.verdict == "pass", record.reasons
    return record.answer


def medians(answer):
    """Compute the median of each stage: over the faults, or of all calls."""
    medians_ns = {h.name: h.quantile(0.5) for h in answer.trace.histograms if h.samples}
    for stage in {name for fault in answer.trace.faults for name in fault.inner_ns}:
        medians_ns[stage] = percentile(tuple(f.inner_ns.get(stage, 0) for f in answer.trace.faults), 0.5)
    return medians_ns


def assert_only(stages, by_ns, plain, late):
    """Check that these stages moved by `by_ns` and all others did not."""
    for name in ("works", "queues", "keys", "faults", "hmm", "translations", "umrs", "resumes"):
        moved = late[name] - plain[name]
        if name in stages:
            assert moved > by_ns - BAND_NS, (name, moved)
        else:
            assert abs(moved) < BAND_NS, (name, moved)


@pytest.mark.parametrize("stage", ["resumes", "umrs"])
def test_a_delay_by_the_card_is_in_its_stage(session, tmp_path, stage):
    """Mutations: swap the probes of `umr` and `resume` in stages.py; end a stage at its call."""
    plain = medians(answered(session, planned(tmp_path, "connectx-5")))
    late = medians(answered(session, planned(tmp_path, "connectx-5", RULES[stage])))
    assert_only({stage, *AROUND[stage]}, DELAY_MS * 1_000_000, plain, late)


def test_a_delay_by_userfaultfd_is_in_the_cpus_fault(session, tmp_path):
    """Bring each of the four pages 100 ms late. Mutation: swap the probes of `hmm` and `umr`."""
    case = planned(tmp_path, "connectx-5")
    plain = medians(answered(session, case))
    workload = replace(case.case.workload, loss=PageLoss("userfaultfd", "remote"))
    late = medians(answered(session, replace(case, case=replace(case.case, workload=workload))))
    assert_only({"works", "faults", "hmm"}, 4 * 100_000_000, plain, late)


def patched(session, part, edits, folder):
    """Make a payload folder with the part's modules, built from edited source: {file: [(old, new), ...]}."""
    kernel = session.kernel("7.3")
    copy_sources(source(kernel, session.archive), [part], folder / "tree")
    for name, changes in edits.items():
        path = folder / "tree" / part.folder / name
        text = path.read_text()
        for old, new in changes:
            assert text.count(old) == 1, (name, old)
            text = text.replace(old, new)
        path.write_text(text)
    built = build_modules(session, kernel, folder / "tree", [part], lines=False)
    for place, path in built.files.items():
        (folder / "payload" / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / "payload" / place).write_bytes(path.read_bytes())
    return folder / "payload"


def with_payload(session, folder):
    return Session(replace(session.options, payload=folder), print)


FILE = "rxe_odp.c"
CHECK = "static int rxe_odp_map_range_and_lock(struct rxe_mr *mr, u64 iova, int length, u32 flags)\n{\n"
LOCK = "\tmutex_lock(&umem_odp->umem_mutex);\n\n\tneed_fault = rxe_check_pagefault(umem_odp, iova, length, write);\n"


def spinning(turns):
    """Edit rdma_rxe to run `turns` instructions before it looks for absent pages."""
    spin = f'static noinline void odp_spin(void)\n{{\n\tasm volatile(".rept {turns}; nop; .endr");\n}}\n\n'
    return {FILE: [(CHECK, spin + CHECK), (LOCK, "\todp_spin();\n" + LOCK)]}


@pytest.mark.skipif(not FULL, reason="builds rdma_rxe twice: ODP_FULL=1")
def test_instructions_added_are_counted_exactly(session, tmp_path):
    """Find 5000 instructions as 5000 ns in their stage and in the one around it, and not elsewhere.

    The compiler may move an instruction or two of the caller.

    Mutations: swap the probes of `check` and `lookup`; take the time of the first call of a copy only.
    """
    seen = {}
    for turns in (1000, 6000):
        folder = tmp_path / str(turns)
        with with_payload(session, patched(session, RXE, spinning(turns), folder)) as changed:
            answer = answered(changed, planned(tmp_path, "soft-roce"))
        seen[turns] = {h.name: h.minimum for h in answer.trace.histograms if h.samples}
    moved = {name: seen[6000][name] - seen[1000][name] for name in ("checks", "copies", "faults", "hmm")}
    assert moved["checks"] == 5000
    assert abs(moved["copies"] - 5000) <= 8, moved
    assert abs(moved["faults"]) < 1000 and abs(moved["hmm"]) < 1000, moved


KEY = "\txa_lock(&dev->odp_mkeys);\n\tmmkey = xa_load(&dev->odp_mkeys, mlx5_base_mkey(key));\n"
QUEUE = "\t\tqueue_work(eq->wq, &pfault->work);\n"


@pytest.mark.skipif(not FULL, reason="builds mlx5_ib: ODP_FULL=1")
def test_delays_in_the_driver_are_in_their_stages(session, tmp_path):
    """Spend 300 ms in the lookup of a key and 300 ms in the interrupt's walk of the queue.

    Mutations: end `dispatches` when the work starts; begin `queues` there; join a work by thread only.
    """
    slow = "\tmdelay(300);\n"
    edits = {"odp.c": [(KEY, slow + KEY), (QUEUE, slow + QUEUE)]}
    plain = medians(answered(session, planned(tmp_path, "connectx-5")))
    with with_payload(session, patched(session, MLX5, edits, tmp_path / "slow")) as changed:
        late = medians(answered(changed, planned(tmp_path, "connectx-5")))
    for name in ("dispatches", "queues", "keys", "faults", "hmm", "umrs", "resumes"):
        moved = late[name] - plain[name]
        if name in ("keys", "dispatches"):
            assert moved > DELAY_MS * 1_000_000 - BAND_NS, (name, moved)
        else:
            assert abs(moved) < BAND_NS, (name, moved)


def test_a_command_in_a_guest_is_traced(tmp_path):
    """Mutations: report the first interval only; lose the command's status."""
    exports = [tmp_path / f"seen{end}" for end in (".csv", ".folded", ".perfetto.json")]
    options = [option for path in exports for option in ("--export", path)]
    command = "echo on $RDMA_DEVICE; sleep 2; exit 7"
    done = harness("trace", "--vm", "soft-roce", *options, "--", "sh", "-c", command)
    assert done.returncode == 7, done.stderr
    assert "on soft-roce" in done.stdout and "0 faults" in done.stdout
    assert all(path.exists() for path in exports)


@pytest.mark.skipif(not FULL, reason="some 20 seconds of traffic: ODP_FULL=1")
def test_faults_of_another_program_are_traced(tmp_path):
    """Run the example of the documentation. Counts may differ by missed hits (one probe program interrupts another).

    Mutations: count only faults of the regions of a case; forget that pages are the process's.
    """
    script = (Path(__file__).parents[1] / "data" / "reclaimed-bw.sh").read_text()
    argv = ["trace", "--vm", "connectx-5", "--json", "--export", tmp_path / "x.perfetto.json"]
    done = harness(*argv, "--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    trace = result["trace"]
    stages = [trace["counts"][stage] for stage in ("works", "queues", "resumes")]
    assert min(stages) > 0 and max(stages) - min(stages) <= trace["missed"] <= 2
    assert abs(len(trace["faults"]) + trace["lost"] - trace["counts"]["works"]) <= trace["missed"]
    assert all(fault["pid"] > 1 and fault["token"] for fault in trace["faults"] if fault["pages"] > 0)
    drawn = json.loads((tmp_path / "x.perfetto.json").read_text())["traceEvents"]
    assert sum(event["name"] == "works" for event in drawn) == len(trace["faults"])


OBSTACLES = """\
cd /tmp && export PYTHONPATH=/opt/odp && echo '{request}' >request
ask() {{ "$@" python3 -m harness.guest --request request | tail -1; }}
programs() {{ ls -l /proc/[0-9]*/fd | grep -c anon_inode:bpf-prog; }}
before=$(programs)
ask setpriv --reuid 65534
ask env
[ "$(programs)" = "$before" ] && [ ! -s /sys/kernel/tracing/kprobe_events ] && echo nothing left
mkdir empty && mount --bind empty /lib/modules/$(uname -r)
ask env
umount /lib/modules/$(uname -r)
mount -t securityfs none /sys/kernel/security
echo confidentiality >/sys/kernel/security/lockdown
ask env
"""


@pytest.mark.skipif(not FULL, reason="compiles the probes once more in the guest: ODP_FULL=1")
def test_obstacles_are_reported_and_a_second_tracer_is_none():
    """Mutations: leave out a check of watch.obstacle; leave a probe attached at the end."""
    request = codec.dumps(Request(5, "trace", watch=Watch(1.0)))
    done = harness("trace", "--vm", "soft-roce", "--", "sh", "-c", OBSTACLES.format(request=request))
    assert "nothing left" in done.stdout, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"answer"')]
    replies = [codec.loads(Reply, line) for line in lines]
    assert replies[1].ok and replies[1].facts["faults"].startswith("ib_umem_odp_map_dma_and_lock")
    problems = [reply.problem for reply in (replies[0], *replies[2:])]
    for problem, text in zip(
        problems, ("needs root", "apt-get install linux-headers-", "locked down"), strict=True
    ):
        assert text in problem


def test_nothing_to_trace_is_a_usage_error(tmp_path):
    """Mutation: trace an idle guest for ever."""
    assert harness("trace", "--vm", "soft-roce").returncode == 2
    assert harness("trace", "--export", tmp_path / "x.pdf").returncode == 2
