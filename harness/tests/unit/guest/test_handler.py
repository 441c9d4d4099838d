"""The page-fault handler, without a module: its answers and counts."""

import pytest

from harness.guest.kmod import handler
from harness.guest.kmod.odpnl_messages import Resumed
from harness.values import random_events
from harness.values.rule import Rule


class Event:
    """An event as the handler uses it; `sent` has the resumes."""

    def __init__(self, form, sub_type, action="forward", **fields):
        self.form, self.sub_type, self.action = form, sub_type, action
        self.fields = {"token": 1, "type": 6, "queue": 9, "seen_ns": 5, **fields}
        self.sent = []

    def resume(self, error=False, **changed):
        self.sent.append((error, {**self.fields, **changed}))
        return Resumed(5 if changed else 0, 0)


class Listener(list):
    timeout_s = None


def handled(answer, events, rules=(), form="transport"):
    made = handler.Handler(Listener(events), answer, rules, form)
    for event in events:
        made._receive(event)
    return made


@pytest.mark.parametrize(
    ("answer", "sent", "answers"),
    [
        ("resume", [(False, 1, 6)], {"status.0": 1}),
        ("error", [(True, 1, 6)], {"status.0": 1}),
        ("twice", [(False, 1, 6)] * 2, {"status.0": 2}),
        ("unknown", [(False, 1 | 1 << 22, 6), (False, 1, 6)], {"status.5": 1, "status.0": 1}),
        ("flags", [(False, 1, t) for t in (7, 4, 2, 6)], {"status.5": 3, "status.0": 1}),
        ("nothing", [], {}),
        ("late", [], {}),
    ],
)
def test_each_answer_sends_its_resumes(answer, sent, answers):
    """Mutation: swap two answers; forget the right resume after the wrong ones."""
    event = Event("transport", "rdma")
    made = handled(answer, [event])
    assert [(error, fields["token"], fields["type"]) for error, fields in event.sent] == sent
    assert made.answers == answers and made.received == 1


def test_only_forwarded_faults_are_answered():
    """Mutation: answer a fault that the module resumes."""
    event = Event("transport", "rdma", action="resume")
    assert handled("resume", [event]).answers == {}


def test_drawn_events_are_compared_field_by_field():
    """Mutation: compare the sum, or go on after a difference without reporting it."""
    rules = [Rule("drawn-events", events=3, seed=4)]
    sub_type, fields = next(random_events.events("transport", 4))
    made = handled("nothing", [Event("transport", sub_type, **fields)], rules)
    assert (made.drawn, made.difference, made.answers) == (1, "", {"status.0": 1})
    wrong = {**fields, "packet_length": fields["packet_length"] ^ 1}
    made = handled("nothing", [Event("transport", sub_type, **wrong)], rules)
    assert made.drawn == 0
    assert made.difference.startswith("event 1: packet_length: expected 0x")
