"""Connecting: who is let in, and whom we believe."""

import os
import socket
import subprocess
import threading
import time

import pytest

from harness.errors import SetupError, UsageError
from harness.host.ssh_connect import Limits
from harness.host.ssh_keys import HostKeyError
from harness.tests.lab import server as servers


def test_a_known_host_runs_a_command(host):
    """Mutation: compare the key's type only, the other way round."""
    finished = host.run(["sh", "-c", 'echo "$0 $1"; exit 3', "a b", "c'd"], check=False)
    assert (finished.output, finished.status) == ("a b c'd\n", 3)


def test_an_unknown_key_is_refused_with_the_command_that_adds_it(server, connect):
    """Mutation: leave out the port from the name in the command; or accept what is not known."""
    server.known.unlink()
    with pytest.raises(HostKeyError, match="host key is unknown") as caught:
        connect(server)
    assert not server.known.exists()
    command = caught.value.hint.partition("then: ")[2]
    assert f"'[127.0.0.1]:{server.port} ssh-ed25519 " in command
    subprocess.run(["sh", "-c", command], check=True)
    assert connect(server).run(["true"]).status == 0


def test_a_changed_key_is_refused_with_the_commands_that_replace_it(server, connect):
    """Mutation: take any key of the right type for the right one."""
    server.trust(servers.make_key(server.folder / "other"))
    with pytest.raises(HostKeyError, match="host key has changed") as caught:
        connect(server)
    subprocess.run(["sh", "-c", caught.value.hint.partition("then: ")[2]], check=True)
    assert connect(server).run(["true"]).status == 0


def test_a_revoked_key_is_refused_though_it_is_known(server, connect):
    """Mutation: look for a line without a marker first."""
    line = server.known.read_text()
    server.known.write_text(f"{line}@revoked * {servers.public(server.host_key)}\n")
    with pytest.raises(HostKeyError, match="revoked"):
        connect(server)


def test_an_authority_alone_is_no_known_key(server, connect):
    """Mutation: take a line with a marker for the host's key."""
    server.trust(server.host_key, "@cert-authority")
    with pytest.raises(HostKeyError, match="unknown") as caught:
        connect(server)
    assert "authority" in str(caught.value)


@pytest.mark.parametrize("openssh", [True, False], ids=["ssh-keygen", "by hand"])
@pytest.mark.parametrize(
    ("names", "known"),
    [
        ("[127.0.0.1]:{port}", True),
        ("127.0.0.1", False),
        ("[127.0.0.*]:{port}", True),
        ("[127.*]:{port},![127.0.0.1]:{port}", False),
    ],
)
def test_names_of_known_hosts(server, connect, monkeypatch, names, known, openssh):
    """Mutation: take a wildcard for a name; or forget the `!`."""
    server.known.write_text(
        f"# comment\n{names.format(port=server.port)} {servers.public(server.host_key)}\n"
    )
    if not openssh:
        monkeypatch.setattr("harness.host.ssh_keys.shutil.which", lambda name: None)
    if known:
        assert connect(server).run(["true"]).status == 0
    else:
        with pytest.raises(HostKeyError, match="unknown"):
            connect(server)


@pytest.mark.parametrize("openssh", [True, False], ids=["ssh-keygen", "by hand"])
def test_hashed_names_are_found(server, connect, monkeypatch, openssh):
    """Mutation: read the first word as a name only."""
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(server.known)], check=True, capture_output=True)
    assert server.known.read_text().startswith("|1|")
    if not openssh:
        monkeypatch.setattr("harness.host.ssh_keys.shutil.which", lambda name: None)
    assert connect(server).run(["true"]).status == 0


def test_none_of_many_connects_to_another_key_is_accepted(server, connect):
    """Mutation: accept a key at random, or the second time that it is seen."""
    server.trust(servers.make_key(server.folder / "other"))
    refused = 0
    for _ in range(50):
        with pytest.raises(HostKeyError):
            connect(server)
        refused += 1
    assert refused == 50 and "Accepted" not in server.log.read_text()


def test_a_wrong_user_key_is_named(server, connect):
    """Mutation: drop the list of the keys that were tried."""
    server.authorized.write_text(servers.public(servers.make_key(server.folder / "other")) + "\n")
    with pytest.raises(SetupError, match="no key of ours is accepted") as caught:
        connect(server)
    assert str(server.identity) in str(caught.value) and "ssh-copy-id" in caught.value.hint


def test_a_passphrase_is_asked_for_once_even_for_two_hops(start, connect):
    """Mutation: ask for each hop; or do not ask at all."""
    jump, server = start("jump"), start("lab")
    locked = server.folder / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(locked)], check=True)
    for each in (jump, server):
        each.authorized.write_text(servers.public(locked) + "\n")
        each.configure(f"IdentityFile {locked}")
    server.configure(f"IdentityFile {locked}\nProxyJump jump")
    server.config.write_text(server.config.read_text() + jump.config.read_text())
    asked = []

    def ask(text):
        asked.append(text)
        return "secret"

    assert connect(server, ask=ask).run(["true"]).status == 0
    assert len(asked) == 1 and str(locked) in asked[0]
    with pytest.raises(SetupError, match="no terminal to ask"):
        connect(server)


def test_a_user_certificate_is_used(server, connect):
    """Mutation: offer the key without its certificate only."""
    authority = servers.make_key(server.folder / "authority")
    server.authorized.write_text(f"cert-authority {servers.public(authority)}\n")
    with pytest.raises(SetupError, match="no key of ours is accepted"):
        connect(server)
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    signed = ["-s", str(authority), "-I", "test", "-n", user, f"{server.identity}.pub"]
    subprocess.run(["ssh-keygen", "-q", *signed], check=True)
    assert connect(server).run(["true"]).status == 0


def test_a_key_of_the_agent_is_used(server, connect, tmp_path):
    """Mutation: ask no agent."""
    path = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        while not path.exists():
            time.sleep(0.02)
        environment = {**os.environ, "SSH_AUTH_SOCK": str(path)}
        subprocess.run(["ssh-add", "-q", str(server.identity)], env=environment, check=True)
        server.configure(f"IdentityFile {tmp_path}/none\nIdentitiesOnly no\nIdentityAgent {path}")
        server.identity.unlink()
        assert connect(server).run(["true"]).status == 0
    finally:
        agent.kill()
        agent.wait()


def test_a_jump_host_carries_the_connection(start, connect):
    """Mutation: connect to the last host directly."""
    jump, server = start("jump"), start("lab")
    server.configure("ProxyJump jump")
    server.config.write_text(server.config.read_text() + jump.config.read_text())
    host = connect(server)
    client = host.run(["sh", "-c", "echo $SSH_CONNECTION"]).output.split()
    assert client[3] == str(server.port)
    jump.stop()
    with pytest.raises(SetupError, match="connection lost|no answer"):
        host.run(["true"], timeout_s=10)


def test_the_key_of_a_jump_host_is_checked(start, connect):
    """Mutation: check the last host's key only."""
    jump, server = start("jump"), start("lab")
    jump.known.unlink()
    server.configure("ProxyJump jump")
    server.config.write_text(server.config.read_text() + jump.config.read_text())
    with pytest.raises(HostKeyError, match="unknown") as caught:
        connect(server)
    assert "a jump host on the way" in str(caught.value)


@pytest.mark.parametrize("banner", [b"", b"SSH-2.0-none\r\n"], ids=["silent", "banner only"])
def test_a_host_that_stops_in_the_handshake_ends_at_its_limit(server, connect, banner):
    """Mutation: take the return of start_client, which returns at its time-out, for success."""
    server.stop()
    with socket.create_server(("127.0.0.1", server.port)) as listener:

        def serve():
            with listener.accept()[0] as connection:
                connection.sendall(banner)
                connection.recv(1 << 16)
                closed.wait(20)

        closed = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        began = time.monotonic()
        with pytest.raises(SetupError, match=r"no connection \(handshake\)") as caught:
            connect(server, limits=Limits(banner_s=1, handshake_s=1))
        assert time.monotonic() - began < 5
        assert "no end of the handshake in 1 s" in str(caught.value) or not banner
        closed.set()
        thread.join()


def test_a_port_without_a_server_is_an_error(server, connect):
    """Mutation: let OSError through."""
    server.stop()
    with pytest.raises(SetupError, match=r"no connection \(connecting\)") as caught:
        connect(server)
    assert "refused" in str(caught.value)


@pytest.mark.parametrize("name", ["-oProxyCommand=true", "", "a b@:", "user@-x", "host:port"])
def test_a_name_that_is_no_host_is_a_usage_error(name):
    """Mutation: hand the name to ssh as it is: an option of it would be taken."""
    from harness.host.ssh_config import resolve

    with pytest.raises(UsageError):
        resolve(name)


def test_a_loop_of_jump_hosts_ends(server, connect):
    """Mutation: follow jumps without a limit."""
    server.configure(f"ProxyJump {server.name}")
    with pytest.raises(UsageError, match="jump hosts"):
        connect(server)


def test_without_openssh_files_that_paramiko_cannot_read_are_refused(server, connect, monkeypatch):
    """Mutation: read a file with Include as if it had none."""
    monkeypatch.setattr("harness.host.ssh_config.shutil.which", lambda name: None)
    assert connect(server).run(["true"]).status == 0
    server.config.write_text(f"Include {server.folder}/more\n{server.config.read_text()}")
    with pytest.raises(SetupError, match="Include, which only OpenSSH") as caught:
        connect(server)
    assert caught.value.hint == "apt-get install openssh-client"


def test_a_wrong_configuration_is_an_error_with_its_line(server, connect):
    """Mutation: ignore ssh's exit status."""
    server.config.write_text("Prot 22\n")
    with pytest.raises(SetupError, match="cannot be read") as caught:
        connect(server)
    assert "line 1" in str(caught.value)
