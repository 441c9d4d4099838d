"""The kernel module in real machines: what plans (testplans/odp2015-*) do not ask. One machine a kernel serves all."""

import shutil

import pytest

from harness.kernel.toolchain import toolchain
from harness.tests.vm.conftest import CHECKOUT
from harness.tests.vm.kmod_machine import ABSENT, KERNELS, Bench, step, told


@pytest.mark.parametrize("series", KERNELS)
def test_it_is_built_by_hand_in_one_line(session, tmp_path, series):
    """By its own Makefile against a kernel's headers. Mutation: need something that only harness.kernel.build gives."""
    kernel = session.kernel(series)
    shutil.copytree(CHECKOUT / "kmod", tmp_path / "kmod")
    line = ("make", "-C", "/build", f"KDIR=/usr/src/linux-headers-{kernel.release}")
    session.host.run(toolchain(kernel, session.archive).command(kernel, tmp_path / "kmod", line))
    assert (tmp_path / "kmod/mlx5_odp_test.ko").stat().st_size > 1 << 16


@pytest.fixture(scope="module", params=KERNELS)
def tour(request, session):
    """Return the result of each step of kmod_tour.py, and the card's report as "card"."""
    bench = Bench(session, request.param)
    with bench.restored("kmod_tour", rules=[ABSENT]) as (card, machine):
        reply = machine.wait(300, card.check)
        device_report = card.report()
        found = told(machine, reply)
    return {**found, "card": device_report}


def test_the_devices_own_answer_comes_back_and_nonsense_is_refused_with_words(tour):
    """Mutation: use mlx5_cmd_exec (resume.c), or leave an attribute's range out (nl_ops.c)."""
    found = step(tour, "refusals")
    assert found["answers"] == [{"status": 5, "syndrome": 0}] * 2
    assert found["stats"]["resumes_refused"] == 2
    said = found["said"]
    assert said["token"][0] == said["range"][0] == 34
    assert "no such field" in said["field"][1]
    assert said["missing"][0] == 22
    assert said["name"] == [19, "no mlx5 card of that name", "offset 20"]
    assert "this card's events carry no QPN" in said["selector"][1]
    assert "no layout" in said["size"][1]


def test_nothing_without_net_admin(tour):
    """Mutation: drop GENL_ADMIN_PERM from a command (nl_ops.c), or CAP_NET_ADMIN from the group (nl_family.c)."""
    found = step(tour, "unprivileged")
    assert found["said"] == ["1", "1", "1"]
    assert found["status"] == 3 and "CAP_NET_ADMIN" in found["program"]


def test_python_is_the_page_fault_handler(tour):
    """A write to an ordinary region completes because Python resumed it.

    Mutation: swap r_key and op_len of the RDMA form (eq.c).
    """
    found = step(tour, "handler")
    assert found["ended"] == ["done", ""]
    assert found["stats"]["events"] == found["stats"]["forwarded"] == len(found["seen"]) == 3
    for fault in found["seen"]:
        raw = bytes.fromhex(fault["raw"])
        assert (fault["status"], raw[1], raw[3], fault["sub_type"], fault["type"]) == (0, 0x0C, 1, 1, 6)
        assert fault["rkey"] == int.from_bytes(raw[36:40], "big") and fault["rkey"]
        assert fault["op_length"] == int.from_bytes(raw[44:48], "big")
        assert (fault["op_length"], fault["bytes_committed"]) == (8 * 4096, 3 * 4096)
        assert fault["va"] == int.from_bytes(raw[48:56], "big")
        assert fault["seen_ns"] <= fault["dispatched_ns"] <= fault["sent_ns"]


def test_tracepoints_say_what_the_events_say(tour):
    """Mutation: leave trace_odp_resume() out (resume.c), or swap two fields of the tracepoint (trace.h)."""
    found = step(tour, "handler")
    events = [line for line in found["trace"] if line["name"] == "odp_event"]
    resumes = [line for line in found["trace"] if line["name"] == "odp_resume"]
    names = {"token": "token", "queue": "queue", "key": "rkey", "va": "va", "committed": "bytes_committed"}
    assert found["seen"]
    for fault, event, resume in zip(found["seen"], events, resumes, strict=True):
        assert {name: int(event[name], 0) for name in names} == {n: fault[f] for n, f in names.items()}
        assert (event["device"], event["action"], event["sub_type"]) == (fault["device"], "1", "1")
        assert (int(resume["token"], 0), resume["ret"], resume["status"]) == (fault["token"], "0", "0x0")


def test_losses_are_counted(tour):
    """Mutation: skip the count of multicast overruns, or of events without memory (events.c)."""
    found = step(tour, "losses")
    grown, later = found["grown"], found["later"]
    assert found["first"] == ["done", ""], "the module resumed, whoever did not listen"
    assert grown["events"] == grown["handled"] == 24
    assert grown["overruns"] == 24 - found["heard"] > 0 and found["told"]
    assert found["second"][0] == "failed"
    assert later["lost_memory"] == later["events"] == 1


def test_a_person_watches_and_resumes(tour):
    """Mutation: print nothing until the end (guest.pagefault), or take a refused resume for done."""
    found = step(tour, "program")
    assert found["ended"] == ["done", ""] and "taken" in found["resumed"]
    assert found["twice"][0] == 1 and "refused: status 0x5" in found["twice"][1]
    assert "transport  off  events=" in found["devices"]
    assert "max  transport  rc: send receive write read atomic srq_receive" in found["caps"]


def test_driver_goes_and_comes_with_events_in_flight(tour):
    """Mutation: ignore BUS_NOTIFY_DEL_DEVICE (devices.c): the event queue outlives its card."""
    found = step(tour, "gone")
    assert found["left"] == [] and len(found["without_ib"]) == len(found["back"]) == 1
    assert "mlx5_ib has no page-fault handler" in found["nothing"][1]
    assert found["back"][0]["mode"] == "off" and found["back"][0]["stats"]["events"] == 0
    assert found["unloaded"][0] == 3 and "odp-harness kmod load" in found["unloaded"][1]


def test_the_card_found_what_was_done_to_it_and_nothing_else(tour):
    """Mutation: resume twice by default (events.c): more refusals than those that were provoked."""
    assert [finding.kind for finding in tour["card"].findings] == ["bad-resume"] * 3
