"""A lab host by ssh, with the verbs of LocalHost: run, start, stop; and put, get, follow, diagnose.

Nothing of it changes the host but what the commands do: no key is accepted by us, no file is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from harness.errors import HarnessError
from harness.host import ssh_files
from harness.host.local import CommandError, Finished
from harness.host.ssh_auth import Passphrases
from harness.host.ssh_config import Target, resolve
from harness.host.ssh_connect import Connection, Deadline, Limits
from harness.host.ssh_process import RemoteProcess

DIAGNOSE_TIMEOUT_S = 20
KERNEL_LOG_LINES = 60
_NO_LIMIT_S = 365 * 24 * 3600.0


class SshHost:
    """A connection to one host, a context manager. Each call has a deadline for all of it, `timeout_s`.

    `limits` are those of the connection, `ask` asks for a passphrase (default: getpass where there is a terminal).
    """

    def __init__(
        self,
        name: str,
        *,
        config: Path | None = None,
        limits: Limits | None = None,
        ask: Callable[[str], str] | None = None,
    ) -> None:
        self.target: Target = resolve(name, config)
        self.connection = Connection(self.target, limits or Limits(), Passphrases(ask))

    def __enter__(self) -> SshHost:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection, and with it every command that it started."""
        self.connection.close()

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float = 600,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        cwd: PurePosixPath | str | None = None,
    ) -> Finished:
        """Run a command to its end, as LocalHost.run does; SetupError when the host is lost meanwhile."""
        deadline = Deadline(timeout_s)
        finished = RemoteProcess(self.connection, argv, deadline, env, cwd).wait(deadline)
        if check and finished.status:
            hint = f"a package of {self.target} that brings {argv[0]}" if finished.status == 127 else ""
            raise CommandError(finished, f"exit status {finished.status}", hint)
        return finished

    def start(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float = 30,
        env: Mapping[str, str] | None = None,
        cwd: PurePosixPath | str | None = None,
    ) -> RemoteProcess:
        """Start a long-lived command; it ends at `stop`, at our end, or when the connection does."""
        return RemoteProcess(self.connection, argv, Deadline(timeout_s), env, cwd)

    def stop(self, process: RemoteProcess) -> None:
        """End a command and its session; does nothing to one that ended."""
        process.stop()

    def follow(self, argv: Sequence[str], *, timeout_s: float = _NO_LIMIT_S) -> Iterator[str]:
        """Yield the lines of a command as they come; it ends when the iterator is closed."""
        deadline = Deadline(timeout_s)
        with RemoteProcess(self.connection, argv, deadline) as process:
            yield from process.lines(deadline)

    def put(self, local: Path, remote: PurePosixPath | str, *, timeout_s: float = 600) -> None:
        """Upload a file: not at all if it is there, else resumed, checked by digest, renamed when whole."""
        ssh_files.put(self, local, PurePosixPath(remote), Deadline(timeout_s))

    def get(self, remote: PurePosixPath | str, local: Path, *, timeout_s: float = 600) -> None:
        """Download a file, checked by digest, renamed when whole."""
        ssh_files.get(self, PurePosixPath(remote), local, Deadline(timeout_s))

    def diagnose(self) -> str:
        """Return the end of the kernel log, or why it cannot be read; never raises for the host's sake."""
        problems = []
        for argv in (["dmesg"], ["journalctl", "-k", "-q", "--no-pager", "-n", str(KERNEL_LOG_LINES)]):
            try:
                text = self.run(argv, timeout_s=DIAGNOSE_TIMEOUT_S).output.strip()
            except HarnessError as error:
                problems.append(error.headline)
                continue
            if text:
                return "\n".join(text.splitlines()[-KERNEL_LOG_LINES:])
        return "kernel log not readable: " + ("; ".join(problems) or "empty for this user")
