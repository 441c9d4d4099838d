"""Running commands on this machine.

Everything started here dies with the harness: a child gets its parent-death signal through setpriv(1) and a
session of its own, and is written to the run's ledger before anything can go wrong.
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
    """A command that ended: its output is stdout and stderr together, its time wall seconds."""

    argv: tuple[str, ...]
    status: int
    output: str
    wall_s: float


class CommandError(SetupError):
    """A command that failed, was killed or took too long; `finished` has all that is known."""

    def __init__(self, finished: Finished, problem: str, hint: str = "") -> None:
        tail = finished.output.rstrip().splitlines()[-TAIL_LINES:]
        super().__init__(f"{Path(finished.argv[0]).name}: {problem}", [" ".join(finished.argv), *tail], hint)
        self.finished = finished


class LocalHost:
    """This machine."""

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
        """Run a command to its end; CommandError when it cannot start, times out or (with `check`) fails."""
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
            raise CommandError(finished, f"no end after {timeout_s:.0f} s")
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
        """Start a long-lived child; it is in the ledger until `stop`, and dies when the harness dies.

        One that shares our session, so our terminal, is told of Ctrl-C like us.
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
                # A mask is inherited: what is held here would never reach it.
                preexec_fn=None if own_session else lambda: _masked(before),
                pass_fds=pass_fds,
            )
            self.ledger.add_process(child.pid)
        return child

    def stop(self, child: subprocess.Popen[bytes]) -> None:
        """End a child and what it started, and strike it from the ledger; does nothing to one that ended."""
        self.ledger.end_process(child.pid)
        child.wait()


def require(program: str) -> str:
    """Return a program's path, or raise SetupError naming the package that brings it."""
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not found:
        package = PACKAGES.get(Path(program).name, Path(program).name)
        raise SetupError(f"{program} is not installed", hint=f"apt-get install {package}")
    return found


PACKAGES = {
    "mmdebstrap": "mmdebstrap",
    "mkfs.erofs": "erofs-utils",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
    "setpriv": "util-linux",
    "fallocate": "util-linux",
    "unshare": "util-linux",
    "newuidmap": "uidmap",
    "newgidmap": "uidmap",
    "patch": "patch",
}


@contextlib.contextmanager
def _signals_held() -> Iterator[set[signal.Signals]]:
    """Hold SIGINT and SIGTERM between the birth of a child and its entry in the ledger; yields what was held before."""
    held = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield {signal.Signals(each) for each in before}
    finally:
        _masked(before)


def _masked(signals: Iterable[int]) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, signals)
