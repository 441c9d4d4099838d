"""A lab host is played by an sshd of ours on this machine."""

import os
import shutil

import pytest

from harness.errors import SetupError
from harness.host.ssh import SshHost
from harness.host.ssh_connect import Limits
from harness.tests.lab import server as servers


@pytest.fixture(scope="session", autouse=True)
def usable(tmp_path_factory):
    for name, found in (("openssh-server", servers.sshd()), ("openssh-client", shutil.which("ssh-keygen"))):
        if not found:
            pytest.skip(f"{name} is not installed")
    if os.geteuid() == 0:
        # Debian's service makes it at its start.
        servers.PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)

    folder = tmp_path_factory.mktemp("probe") / "lab"
    server = servers.Server(folder)
    try:
        SshHost(server.name, config=server.config).close()
    except SetupError:
        # Without PAM, which only root can use, sshd refuses an account whose password begins with "!".
        if "account is locked" in server.log.read_text():
            pytest.skip("this user's account is locked, so sshd lets nobody in")
        raise
    finally:
        server.stop()


@pytest.fixture
def start(tmp_path):
    """Start servers, and end them after the test."""
    started = []

    def start(name="lab", further=""):
        started.append(servers.Server(tmp_path / name, name, further))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def server(start):
    return start()


@pytest.fixture
def connect():
    """Connect to a server, and end the connection after the test; silence is noticed in 2 s."""
    hosts = []

    def connect(server, **options):
        options.setdefault("limits", Limits(silence_s=2))
        hosts.append(SshHost(server.name, config=server.config, **options))
        return hosts[-1]

    yield connect
    for host in hosts:
        host.close()


@pytest.fixture
def host(server, connect):
    return connect(server)
