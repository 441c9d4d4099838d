"""Control socket, and a card in service on both of its sockets."""

import os
import socket
import stat
import threading

import pytest

from harness.connectx.service import Service
from harness.connectx.transport.client import Client
from harness.connectx.transport.control import ControlClient, listen
from harness.connectx.transport.pci import PciIdentity
from harness.errors import SetupError, UsageError
from harness.tests.unit.connectx.rig import BROKEN, DOORBELL, PAGE, Toy


class SteeredToy(Toy):
    rules = ()

    def arm(self, rules):
        self.rules = rules
        self.note({"armed": len(rules)})

    def outcomes(self):
        return [{"kind": rule["kind"], "hits": 0} for rule in self.rules]

    def findings(self):
        return [{"kind": "bad-value", "subject": "toy", "detail": "of its own"}]

    def counters(self):
        return {"rules": len(self.rules)}


@pytest.fixture
def card(tmp_path):
    service = Service(
        SteeredToy,
        PciIdentity(registers_size=8192),
        tmp_path / "s",
        tmp_path / "c",
        tmp_path / "log.jsonl.gz",
    )
    service.lines = lambda line: None
    thread = threading.Thread(target=service.run)
    thread.start()
    yield service, tmp_path
    service.loop.stop("the test is over")
    if (tmp_path / "c").exists():
        try:
            ControlClient(tmp_path / "c").ask("ping")
        except SetupError:
            pass
    thread.join(10)
    assert not thread.is_alive()


def attach(path):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(str(path))
    client = Client(connection)
    client.hello()
    return client


def test_requests_and_answers(card):
    """Mutation: answer with the transport's findings only."""
    _, folder = card
    control = ControlClient(folder / "c")
    assert control.ask("ping") == {"ok": True, "pid": os.getpid(), "attached": False}
    client = attach(folder / "s")
    assert control.ask("ping")["attached"]
    client.read(0, BROKEN, 4)
    kinds = [finding["kind"] for finding in control.ask("findings")["findings"]]
    assert kinds == ["bad-value", "model-crash"]
    assert control.ask("rules", rules=[{"kind": "storm"}])["armed"] == 1
    assert control.ask("outcomes")["outcomes"] == [{"kind": "storm", "hits": 0}]
    counters = control.ask("counters")["counters"]
    assert counters["rules"] == 1 and counters["transport"]["reads"] == 1
    client.close()
    control.close()


def test_followers_get_events(card):
    """Mutation: publish to everybody; forget the bye."""
    _, folder = card
    other = ControlClient(folder / "c")
    control = ControlClient(folder / "c")
    events = control.events()
    other.ask("ping")
    control.ask("follow")
    client = attach(folder / "s")
    client.read(0, BROKEN, 4)
    client.ask(13)
    client.close()
    other.ask("rules", rules=[1, 2])
    seen = [next(events) for _ in range(4)]
    assert [event["event"] for event in seen] == ["attached", "finding", "reset", "detached"] or (
        {event["event"] for event in seen} <= {"attached", "finding", "reset", "detached", "note"}
    )
    other.ask("quit")
    rest = [event["event"] for event in events]
    assert rest[-1] == "bye"
    assert other._events == []


def test_quit_removes_the_sockets_and_ends_the_log(card):
    """Mutation: leave the sockets behind."""
    service, folder = card
    assert stat.S_ISSOCK((folder / "s").stat().st_mode)
    client = attach(folder / "s")
    ram = os.memfd_create("guest")
    os.ftruncate(ram, PAGE)
    client.map(0, PAGE, ram)
    client.write(0, DOORBELL, bytes(8))
    ControlClient(folder / "c").ask("quit")
    with pytest.raises(ConnectionError):
        while True:
            client.read(0, 0, 4)
    for _ in range(100):
        if not (folder / "c").exists():
            break
        threading.Event().wait(0.02)
    assert sorted(path.name for path in folder.iterdir()) == ["log.jsonl.gz"]
    os.close(ram)


@pytest.mark.parametrize("line", [b"nonsense", b"[]", b"{}", b'{"do": 5}', b'{"do": "rules"}', b"[" * 100000])
def test_an_invalid_line_is_refused(card, line):
    """Mutation: let the KeyError out."""
    _, folder = card
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    raw.connect(str(folder / "c"))
    raw.sendall(line + b"\n")
    assert b'"ok": false' in raw.recv(4096)
    raw.close()
    assert ControlClient(folder / "c").ask("ping")["ok"]


def test_a_second_guest_is_refused(card):
    """Mutation: let it take the place of the first."""
    _, folder = card
    first = attach(folder / "s")
    with pytest.raises(ConnectionError):
        attach(folder / "s")
    assert first.read(0, 0, 4) == bytes(4)
    first.close()


def test_taken_paths(card, tmp_path):
    """Mutation: unlink whatever is there."""
    _, folder = card
    with pytest.raises(UsageError, match="is taken"):
        listen(folder / "s")
    plain = tmp_path / "file"
    plain.write_text("precious")
    with pytest.raises(UsageError, match="no socket"):
        listen(plain)
    assert plain.read_text() == "precious"
    with pytest.raises(UsageError, match="cannot listen"):
        listen(tmp_path / ("long" * 40))
    with pytest.raises(UsageError, match="is taken"):
        Service(Toy, PciIdentity(), tmp_path / "new", folder / "c")
    assert not (tmp_path / "new").exists(), "a card that fails to start leaves nothing"


def test_a_dead_cards_socket_is_replaced(tmp_path):
    """Mutation: refuse it."""
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    dead.bind(str(tmp_path / "s"))
    dead.close()
    listener = listen(tmp_path / "s")
    assert (tmp_path / "s").is_socket()
    listener.close()


def test_no_card(tmp_path):
    """Mutation: let FileNotFoundError out."""
    with pytest.raises(SetupError, match="no card answers"):
        ControlClient(tmp_path / "nothing")
