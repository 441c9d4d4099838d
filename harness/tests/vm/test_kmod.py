"""The kernel module in real machines: capabilities, resume, page faults in a program's hands."""

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from harness.device.catalogue import DEVICES
from harness.kernel.build import build
from harness.machine import parcel
from harness.machine.console import scan
from harness.tests.vm.conftest import CHECKOUT, FULL
from harness.values.case import Order
from harness.values.rule import Rule

SERIES = ["6.1", "6.12", "7.2", "7.3"] if FULL else ["7.3", "6.1"]
# What runs on the oldest kernel, too, without ODP_FULL.
CUT = (
    "test_caps_are_what_firmware_and_verbs_say",
    "test_python_says_error",
    "test_observed_faults_are_the_cards",
)
GUEST = (Path(__file__).parent / "kmod_guest.py").read_text()
ABSENT = Rule("absent-page", region="remote", page=3, count=0, since="connected")
# A module of ours in any kernel says this, and it is no symptom.
TAINTS = ("taint", "module verification failed")


class Bench:
    """A kernel with the module in its parcel."""

    def __init__(self, session, series):
        self.session = session
        self.kernel = session.kernel(series)
        module = build(CHECKOUT / "kmod", self.kernel, session.archive).modules["mlx5_odp_test"]
        self.files = {"mlx5_odp_test.ko": module}

    def snapshot(self):
        """Booted only: these tests need no probes of bcc's, and nothing is saved anew for another module."""
        studio = self.session.studio
        booted = studio.booted(self.kernel, studio.shape("real", self.session.accelerator(self.kernel)[0]))
        packed = parcel.packed(self.files, self.session.store, self.session.host)
        return replace(booted, disks=replace(booted.disks, parcel=packed))

    @contextmanager
    def machine(self, device, rules, *argv):
        order = Order(
            9, "exec", device, argv=("python3", "-c", GUEST, *argv), environment={"PYTHONPATH": "/opt/odp"}
        )
        with (
            self.session.ledger.scratch_folder("kmod") as folder,
            DEVICES[device].around(self.session.host, self.kernel, folder) as card,
            self.session.studio.restore(self.snapshot(), order, folder, plugged=True) as machine,
        ):
            card.arm(rules)
            card.plug(machine)
            yield card, machine

    def run(self, device, *argv, rules=(), findings=()):
        """What the guest's function told, and what the card did; the console must be clean."""
        with self.machine(device, rules, *argv) as (card, machine):
            reply = machine.wait(180, card.check)
            witness = card.report()
            console = machine.console.since()
        assert reply.exit_status == 0, reply.output
        assert [f.kind for f in witness.findings] == list(findings), witness.findings
        symptoms = [s for s in scan(console) if not any(word in str(s) for word in TAINTS)]
        assert not symptoms, symptoms
        return json.loads(reply.output.splitlines()[-1]), witness


@pytest.fixture(scope="module", params=SERIES)
def any_bench(request, session):
    return Bench(session, request.param)


@pytest.fixture
def bench(request, any_bench):
    if not FULL and any_bench.kernel.series != SERIES[0] and request.function.__name__ not in CUT:
        pytest.skip("on this kernel with ODP_FULL=1")
    return any_bench


@pytest.mark.parametrize("model", ["connectx-5", "connectx-7", "connect-ib"] if FULL else ["connectx-5"])
def test_caps_are_what_firmware_and_verbs_say(bench, model):
    """Mutation: ask op_mod 4 for both pages, or read the words of a transport one word too far (caps.c)."""
    told, _ = bench.run(model, "caps")
    stated = DEVICES[model].firmware_odp(bench.kernel)
    for which in ("max", "cur"):
        for scheme, rows in told["words"][which].items():
            expected = {t: w for t, w in stated.get(scheme, {}).items() if t != "general" and w}
            assert {t: tuple(w) for t, w in rows.items()} == expected
        assert told["same"][which]
    for transport in ("rc", "ud"):
        words = told["words"]["cur"]["memory" if told["memory"] else "transport"].get(transport, [])
        assert {w.replace("receive", "recv") for w in words} == set(told["verbs"][f"odp.{transport}"].split())


@pytest.mark.parametrize("model", ["connectx-5", "connectx-7", "connect-ib"] if FULL else ["connectx-5"])
def test_resume_brings_the_devices_own_answer(bench, model):
    """Mutation: use mlx5_cmd_exec (resume.c), or leave an attribute's range out (netlink.c)."""
    told, _ = bench.run(model, "resume", findings=["bad-resume", "bad-resume"])
    assert told["answers"] == [{"status": 5, "syndrome": 0}] * 2
    assert told["stats"]["resumes_refused"] == 2
    assert told["refusals"]["token"][0] == 34
    assert told["refusals"]["range"][0] == 34
    assert "no such field" in told["refusals"]["field"][1]
    assert told["refusals"]["missing"][0] == 22
    assert told["refusals"]["name"] == [19, "no mlx5 card of that name", "offset 20"]
    assert "select the" in told["refusals"]["selector"][1]


@pytest.mark.parametrize("model", ["connectx-5", "connectx-7", "connect-ib"] if FULL else ["connectx-5"])
def test_python_is_the_page_fault_handler(bench, model):
    """An RDMA write to an ordinary region completes because Python resumed it.

    Mutation: swap r_key and op_len of the RDMA form (own.c).
    """
    told, witness = bench.run(model, "python_handler", rules=[ABSENT])
    assert (told["status"], told["problem"]) == ("done", "")
    assert witness.counters["faults.raised"] == witness.counters["faults.resumed"] == 3
    assert told["stats"]["events"] == told["stats"]["forwarded"] == told["stats"]["resumes"] == 3
    for fault in told["seen"]:
        raw = bytes.fromhex(fault["raw"])
        assert fault["status"] == 0 and raw[1] == 0x0C and raw[3] == fault["sub_type"]
        if fault["sub_type"] == 1:
            assert fault["rkey"] == int.from_bytes(raw[36:40], "big") and fault["rkey"]
            assert fault["op_length"] == int.from_bytes(raw[44:48], "big")
            assert (fault["op_length"], fault["bytes_committed"]) == (8 * 4096, 3 * 4096)
            assert fault["va"] == int.from_bytes(raw[48:56], "big")
            assert fault["type"] == 6


def test_python_says_error(bench):
    """The same write fails with the completion it must have. Mutation: lose the error bit (resume.c)."""
    told, witness = bench.run("connectx-5", "python_handler", "error", rules=[ABSENT])
    assert told["status"] == "failed"
    assert "IBV_WC_REM_ACCESS_ERR" in told["problem"]
    assert witness.counters["faults.failed"] == 1


def test_observed_faults_are_the_cards(bench):
    """mlx5_ib resolves them as ever. Mutation: take the token from the place of 6.1 on 6.12 (observe.c)."""
    told, witness = bench.run("connectx-5", "observe")
    assert (told["status"], told["problem"]) == ("done", "")
    raised = witness.counters["faults.raised"]
    assert raised >= 17
    assert told["stats"]["observed"] == told["stats"]["observed_resumes"] == raised
    assert told["stats"]["undecoded"] == told["stats"]["lost_memory"] == 0
    seen = [token for source, _, token, _, _ in told["faults"] if source == "observed"]
    resumed = [token for source, _, token, _, error in told["faults"] if source == "resume" and not error]
    assert len(seen) == raised and sorted(seen) == sorted(resumed)
    assert "no layout" in told["refused"]
    assert "mlx5_ib's" in told["owned"]


@pytest.mark.parametrize(
    "action, findings, status",
    [
        ("resume", [], "done"),
        ("double", ["bad-resume"] * 3, "done"),
        ("delay", [], "done"),
        ("fail", [], "failed"),
    ],
)
def test_policies(bench, action, findings, status):
    """Mutation: resume once for `double`, or let `fail` resume without error (events.c)."""
    told, witness = bench.run("connectx-5", "policy", action, "20000", rules=[ABSENT], findings=findings)
    assert told["status"] == status
    faults = 1 if action == "fail" else 3
    assert told["stats"]["handled"] == told["stats"]["events"] == faults
    assert told["stats"]["resumes"] == witness.counters["faults.resumed"] + witness.counters["faults.failed"]
    assert told["stats"]["resumes_refused"] == len(findings)
    assert [event[0] for event in told["events"]] == [action] * faults


def test_faults_without_policy_stay(bench):
    """As in 2015. Mutation: resume by default (events.c)."""
    told, witness = bench.run("connectx-5", "policy", "resume", "0", "queue", "0xffffff", rules=[ABSENT])
    assert told["status"] == "failed"
    assert told["stats"]["unresolved"] == told["stats"]["events"] == 1
    assert told["stats"]["resumes"] == witness.counters["faults.resumed"] == 0


def test_losses_are_counted(bench):
    """Mutation: skip the count of multicast overruns, or of events without memory (events.c)."""
    told, _ = bench.run("connectx-5", "losses", rules=[ABSENT])
    assert told["first"] == ["done", ""], "the module resumed, whoever did not listen"
    assert told["full"]["events"] == told["full"]["handled"] == 24
    assert told["full"]["overruns"] == 24 - told["heard"] > 0 and told["told_lost"]
    assert told["second"] == "failed"
    assert told["stats"]["lost_memory"] == told["stats"]["events"] - 24 == 1


def test_nothing_without_net_admin(bench):
    """Mutation: drop GENL_ADMIN_PERM from a command, or CAP_NET_ADMIN from the group (netlink.c)."""
    told, _ = bench.run("connectx-5", "unprivileged")
    assert told["said"] == ["1", "1", "1"]


def test_hostile_messages_and_reloads(bench):
    """Mutation: read an attribute that a message lacks (netlink.c)."""
    messages, loads = (20_000, 200) if FULL else (2000, 10)
    with_findings = bench.machine("connectx-5", [], "stress", str(messages), str(loads))
    with with_findings as (card, machine):
        reply = machine.wait(400, card.check)
        witness = card.report()
        symptoms = [s for s in scan(machine.console.since()) if not any(word in str(s) for word in TAINTS)]
    assert reply.exit_status == 0, reply.output
    # Resumes by chance are the card's to refuse.
    assert {finding.kind for finding in witness.findings} <= {"bad-resume"}
    assert not symptoms
    told = json.loads(reply.output.splitlines()[-1])
    assert told["mode"] == "off" and told["turns"] > 1


def test_driver_goes_and_comes_with_events_in_flight(bench):
    """Mutation: do not let go at BUS_NOTIFY_DEL_DEVICE (devices.c): the event queue outlives its card."""
    told, witness = bench.run("connectx-5", "gone", rules=[ABSENT])
    assert told["delayed"] == 1
    assert told["left"] == [] and len(told["without_ib"]) == len(told["back"]) == 1
    assert told["back"][0]["mode"] == "off" and told["back"][0]["stats"]["events"] == 0


@pytest.mark.parametrize(
    "kind, status, events",
    [(None, "done", 0), ("first-queue-wins", "failed", 1), ("refuse-second-queue", "failed", 0)],
)
def test_two_queues_for_page_faults(bench, kind, status, events):
    """What a card does is a rule; the module keeps to itself. Mutation: deliver to both (connectx.queues)."""
    told, _ = bench.run("connectx-5", "two_queues", rules=[Rule(kind)] if kind else [])
    assert (told["status"], told["events"]) == (status, events), told["problem"]
