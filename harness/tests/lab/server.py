"""An sshd of the test's own: on a loopback port, as the test's user, all its files and the home in one folder."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PRIVILEGE_SEPARATION = Path("/run/sshd")


class Server:
    """`config` is an ssh_config that knows it by `name`; `identity` is the user's key, `known` known_hosts."""

    def __init__(self, folder: Path, name: str = "lab", further: str = "") -> None:
        self.folder = folder
        self.name = name
        folder.mkdir()
        self.host_key = make_key(folder / "host_key")
        self.identity = make_key(folder / "identity")
        self.authorized = folder / "authorized_keys"
        self.authorized.write_text(public(self.identity) + "\n")
        self.known = folder / "known hosts"
        self.port = free_port()
        self.log = folder / "log"
        (folder / "sshd_config").write_text(
            f"""Port {self.port}
ListenAddress 127.0.0.1
HostKey {self.host_key}
AuthorizedKeysFile {self.authorized}
PidFile none
SetEnv HOME={folder}
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
{further}
"""
        )
        self.config = folder / "ssh_config"
        self.configure()
        self.trust(self.host_key)
        self.start()

    def configure(self, further: str = "") -> None:
        """Write the ssh_config; what is first in it wins, so `further` comes first."""
        self.config.write_text(
            f"""Host {self.name}
{further}
HostName 127.0.0.1
Port {self.port}
User {getpass.getuser()}
IdentityFile {self.identity}
IdentitiesOnly yes
IdentityAgent none
UserKnownHostsFile "{self.known}"
GlobalKnownHostsFile none
"""
        )

    def trust(self, key: Path, marker: str = "") -> None:
        """Make known_hosts have this key and no other."""
        self.known.write_text(f"{marker} [127.0.0.1]:{self.port} {public(key)}\n".lstrip())

    def start(self) -> None:
        """Start it and wait until it listens."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sshd(), "-D", "-e", "-f", str(self.folder / "sshd_config")],
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def processes(self) -> list[int]:
        """Return its processes: itself and those of its connections, but not what users started."""
        return [
            self.process.pid,
            *(pid for pid in below(self.process.pid) if name_of(pid).startswith("sshd")),
        ]

    def signal(self, number: int) -> None:
        """Send a signal to all its processes."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> None:
        """End it and what it started."""
        started = below(self.process.pid)
        self.signal(signal.SIGCONT)
        for pid in [self.process.pid, *started]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def sshd() -> str | None:
    """Return the path of sshd, which must be absolute; None if there is none."""
    return shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin:/sbin")


def make_key(path: Path, *options: str) -> Path:
    """Make a key pair without a passphrase."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path), *options], check=True)
    return path


def public(key: Path) -> str:
    """Return a key's type and public half."""
    return " ".join(Path(f"{key}.pub").read_text().split()[:2])


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def below(parent: int) -> list[int]:
    """Return the processes below one, at any depth."""
    try:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    except OSError:
        return []
    return [each for child in map(int, children) for each in (child, *below(child))]


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def alive(pid: int) -> bool:
    """Say if a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ended(pid: int, timeout_s: float = 5) -> bool:
    """Wait for the end of a process that is not our child."""
    for _ in range(int(timeout_s / 0.05)):
        if not alive(pid):
            return True
        time.sleep(0.05)
    return False
