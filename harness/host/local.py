"""Run commands on the host of the harness.

Children die with the harness: each has a parent-death signal, by setpriv(1), and a session of its own, and is in the
run's ledger before a signal can interrupt us.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness.errors import SetupError
from harness.ledger import Ledger

TAIL_LINES = 20


@dataclass(frozen=True)
class Finished:
    """A command that ended; `output` is stdout and stderr together."""

    argv: tuple[str, ...]
    status: int
    output: str
    wall_s: float


class CommandError(SetupError):
    """A command that failed, was killed or timed out; `finished` has the details."""

    def __init__(self, finished: Finished, problem: str, hint: str = "") -> None:
        # Of an output of many megabytes the end only is split.
        end = "\n".join(finished.output.rstrip().rsplit("\n", TAIL_LINES)[-TAIL_LINES:])
        tail = end.splitlines()[-TAIL_LINES:]
        super().__init__(f"{Path(finished.argv[0]).name}: {problem}", [" ".join(finished.argv), *tail], hint)
        self.finished = finished


class LocalHost:
    """The host that the harness runs on."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float = 600,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Finished:
        """Run a command to its end; CommandError if it cannot start, times out or (with `check`) fails."""
        require(argv[0])
        began = time.monotonic()
        with self.ledger.scratch_file("output") as path, path.open("w+b") as output:
            child = self.start(argv, stdout=output, stderr=output, env=env, cwd=cwd)
            try:
                status: int | None = child.wait(timeout_s)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                self.stop(child)
            output.seek(0)
            text = output.read().decode("utf-8", "replace")
        finished = Finished(tuple(argv), -1 if status is None else status, text, time.monotonic() - began)
        if status is None:
            raise CommandError(finished, f"timed out after {timeout_s:.0f} s")
        if check and status:
            hint = "odp-harness cache --prune 5G" if "No space left" in text else ""
            raise CommandError(finished, f"exit status {status}", hint)
        return finished

    def start(
        self,
        argv: Sequence[str],
        *,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = subprocess.DEVNULL,
        stderr: int | IO[bytes] = subprocess.DEVNULL,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        own_session: bool = True,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a long-lived child; it is in the ledger until `stop`, and dies with the harness.

        One without its `own_session` shares our terminal and receives Ctrl-C too.
        """
        with _signals_held() as before:
            child = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *argv],
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=dict(os.environ, **(env or {})),
                cwd=cwd,
                start_new_session=own_session,
                # The mask is inherited: signals blocked here would never reach the child.
                preexec_fn=None if own_session else lambda: _masked(before),
                pass_fds=pass_fds,
            )
            self.ledger.add_process(child.pid)
        return child

    def stop(self, child: subprocess.Popen[bytes]) -> None:
        """End a child and its session, and mark it in the ledger; does nothing to one that ended."""
        self.ledger.end_process(child.pid)
        child.wait()


def require(program: str) -> str:
    """Return a program's path, or raise SetupError naming the package that brings it."""
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not path:
        package = PACKAGES.get(Path(program).name, Path(program).name)
        raise SetupError(f"{program} is not installed", hint=f"apt-get install {package}")
    return path


PACKAGES = {
    "mmdebstrap": "mmdebstrap",
    "mkfs.erofs": "erofs-utils",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
    "setpriv": "util-linux",
    "fallocate": "util-linux",
    "unshare": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "newuidmap": "uidmap",
    "newgidmap": "uidmap",
    "patch": "patch",
}


@contextlib.contextmanager
def _signals_held() -> Iterator[set[signal.Signals]]:
    """Block SIGINT and SIGTERM until a child is in the ledger; yield the signals that were blocked before."""
    held = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield {signal.Signals(each) for each in before}
    finally:
        _masked(before)


def _masked(signals: Iterable[int]) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, signals)
