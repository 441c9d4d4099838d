"""What the kernel module must survive: on a kernel that checks its slabs and panics at a WARN; one machine for all."""

import json

import pytest

from harness.tests.vm.conftest import FULL
from harness.tests.vm.kmod_machine import ABSENT, KERNELS, Bench, plug, results_of, step

SIZES = (
    {"messages": 20_000, "loads": 200, "rounds": 200}
    if FULL
    else {"messages": 2000, "loads": 10, "rounds": 10}
)
MARK = "kmod-test: "
# The first test waits for the machine.
pytestmark = pytest.mark.timeout(2400 if FULL else 900)


class Hands:
    """Plugs and unplugs cards when the guest asks for it on its console."""

    def __init__(self, machine, cards):
        self.machine, self.cards, self.done = machine, cards, 0

    def tick(self):
        for card in self.cards:
            card.check()
        text = (self.machine.folder / "console").read_text(errors="replace")
        requested = [line.partition(MARK)[2].split() for line in text.splitlines() if MARK in line]
        for action, number in requested[self.done :]:
            self.done += 1
            card = self.cards[int(number) - 1]
            if action == "plug":
                plug(self.machine, card, second=number == "2")
            else:
                self.machine.qmp.command("device_del", id="card2")


@pytest.fixture(scope="module", params=KERNELS)
def survived(request, session):
    """Return the result of each step of kmod_stress.py, and the cards' reports as "cards"."""
    bench = Bench(session, request.param)
    with bench.hardened("kmod_stress", json.dumps(SIZES), rules=[ABSENT]) as (cards, machine):
        hands = Hands(machine, cards)
        reply = machine.wait(1500 if FULL else 600, hands.tick)
        result = results_of(machine, reply)
        return {**result, "cards": [card.report() for card in cards]}


def test_without_a_card_and_without_mlx5_ib(survived):
    """Mutation: look for cards by the RDMA device (devices.c)."""
    result = step(survived, "without_device")
    assert result["none"] == [] and result["owned"] is None
    assert {"rc", "ud", "xrc"} <= set(result["caps"])
    assert "mlx5_ib has no page-fault handler" in result["observed"][1]


def test_two_cards_are_two(survived):
    """Mutation: keep policies in a global list (policies.c)."""
    result = step(survived, "two_cards")
    assert result["ended"]["resume"] == ["done", ""]
    assert result["ended"]["fail"][0] == "failed"
    assert result["events"] == {"resume": 2, "fail": 1}


def test_hostile_messages(survived):
    """Mutation: read an attribute that a message lacks (nl_cmds.c): an oops; or print what is refused: a flood."""
    result = step(survived, "hostile")
    assert result["turns"] > 1 and result["messages"] == []


def test_many_threads(survived):
    """Mutation: take the policies' lock nowhere (policies.c): list corruption that slub_debug sees."""
    result = step(survived, "crowd")
    assert result["problems"] == [] and result["ended"] == [["done", ""]] * 2
    assert result["events"] == result["handled"] == [SIZES["rounds"]] * 2


def test_loads_and_unloads_with_an_event_in_flight(survived):
    """Mutation: do not flush the workqueue at the end (events.c): code that is gone runs."""
    assert len(step(survived, "loads")) == 2


@pytest.mark.parametrize("name", ["unbind", "reset", "unplug"])
def test_a_card_goes_with_an_event_in_flight(survived, name):
    """Mutation: ignore BUS_NOTIFY_DEL_DEVICE, or leave delayed resumes their delay (devices.c)."""
    result = step(survived, name)
    if name == "unbind":
        assert len(result["back"]) == 2 and result["left"] == [
            c for c in result["back"] if c != result["name"]
        ]
    elif name == "reset":
        assert result == {"mode": "off", "stats": {}}
    else:
        assert result["left"] == 1


def test_drivers_unload_and_cards_report_the_provoked_findings_only(survived):
    """Mutation: leave the event queue behind at unload (eq.c): a finding at teardown."""
    assert step(survived, "drivers_go") == ""
    assert survived["cards"]
    for card in survived["cards"]:
        assert {finding.kind for finding in card.findings} <= {"bad-resume"}, card.findings
