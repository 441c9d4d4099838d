"""The kernel module in real machines: what no plan (testplans/odp2015-*) covers. One machine a kernel serves all."""

import shutil

import pytest

from harness.kernel.toolchain import toolchain
from harness.tests.vm.conftest import CHECKOUT
from harness.tests.vm.kmod_machine import ABSENT, KERNELS, Bench, results_of, step


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
        result = results_of(machine, reply)
    return {**result, "card": device_report}


def test_the_devices_answer_is_returned_and_invalid_requests_are_refused_with_a_message(tour):
    """Mutation: use mlx5_cmd_exec (resume.c), or leave an attribute's range out (nl_ops.c)."""
    result = step(tour, "refusals")
    assert result["answers"] == [{"status": 5, "syndrome": 0}] * 2
    assert result["stats"]["resumes_refused"] == 2
    errors = result["errors"]
    assert errors["token"][0] == errors["range"][0] == 34
    assert "no such field" in errors["field"][1]
    assert errors["missing"][0] == 22
    assert errors["name"] == [19, "no mlx5 card of that name", "offset 20"]
    assert "this card's events carry no QPN" in errors["selector"][1]
    assert "no layout" in errors["size"][1]


def test_nothing_without_net_admin(tour):
    """Mutation: drop GENL_ADMIN_PERM from a command (nl_ops.c), or CAP_NET_ADMIN from the group (nl_family.c)."""
    result = step(tour, "unprivileged")
    assert result["errors"] == ["1", "1", "1"]
    assert result["status"] == 3 and "CAP_NET_ADMIN" in result["program"]


def test_python_is_the_page_fault_handler(tour):
    """A write to an ordinary region completes because Python resumed it.

    Mutation: swap r_key and op_len of the RDMA form (eq.c).
    """
    result = step(tour, "handler")
    assert result["ended"] == ["done", ""]
    assert result["stats"]["events"] == result["stats"]["forwarded"] == len(result["seen"]) == 3
    for fault in result["seen"]:
        raw = bytes.fromhex(fault["raw"])
        assert (fault["status"], raw[1], raw[3], fault["sub_type"], fault["type"]) == (0, 0x0C, 1, 1, 6)
        assert fault["rkey"] == int.from_bytes(raw[36:40], "big") and fault["rkey"]
        assert fault["op_length"] == int.from_bytes(raw[44:48], "big")
        assert (fault["op_length"], fault["bytes_committed"]) == (8 * 4096, 3 * 4096)
        assert fault["va"] == int.from_bytes(raw[48:56], "big")
        assert fault["seen_ns"] <= fault["dispatched_ns"] <= fault["sent_ns"]


def test_tracepoints_equal_the_events(tour):
    """Mutation: leave trace_odp_resume() out (resume.c), or swap two fields of the tracepoint (trace.h)."""
    result = step(tour, "handler")
    events = [line for line in result["trace"] if line["name"] == "odp_event"]
    resumes = [line for line in result["trace"] if line["name"] == "odp_resume"]
    names = {"token": "token", "queue": "queue", "key": "rkey", "va": "va", "committed": "bytes_committed"}
    assert result["seen"]
    for fault, event, resume in zip(result["seen"], events, resumes, strict=True):
        assert {name: int(event[name], 0) for name in names} == {n: fault[f] for n, f in names.items()}
        assert (event["device"], event["action"], event["sub_type"]) == (fault["device"], "1", "1")
        assert (int(resume["token"], 0), resume["ret"], resume["status"]) == (fault["token"], "0", "0x0")


def test_losses_are_counted(tour):
    """Mutation: skip the count of multicast overruns, or of events without memory (events.c)."""
    result = step(tour, "losses")
    grown, later = result["grown"], result["later"]
    assert result["first"] == ["done", ""], "the module resumed, listeners or not"
    assert grown["events"] == grown["handled"] == 24
    assert grown["overruns"] == 24 - result["heard"] > 0 and result["lost"]
    assert result["second"][0] == "failed"
    assert later["lost_memory"] == later["events"] == 1


def test_a_person_watches_and_resumes(tour):
    """Mutation: print nothing until the end (guest.pagefault), or take a refused resume for done."""
    result = step(tour, "program")
    assert result["ended"] == ["done", ""] and "taken" in result["resumed"]
    assert result["twice"][0] == 1 and "refused: status 0x5" in result["twice"][1]
    assert "transport  off  events=" in result["devices"]
    assert "max  transport  rc: send receive write read atomic srq_receive" in result["caps"]


def test_driver_goes_and_comes_with_events_in_flight(tour):
    """Mutation: ignore BUS_NOTIFY_DEL_DEVICE (devices.c): the event queue outlives its card."""
    result = step(tour, "gone")
    assert result["left"] == [] and len(result["without_ib"]) == len(result["back"]) == 1
    assert "mlx5_ib has no page-fault handler" in result["nothing"][1]
    assert result["back"][0]["mode"] == "off" and result["back"][0]["stats"]["events"] == 0
    assert result["unloaded"][0] == 3 and "odp-harness kmod load" in result["unloaded"][1]


def test_the_card_reports_the_provoked_findings_only(tour):
    """Mutation: resume twice by default (events.c): more refusals than those that were provoked."""
    assert [finding.kind for finding in tour["card"].findings] == ["bad-resume"] * 3
