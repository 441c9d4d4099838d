"""A command on a host, run by a small program for sh(1) that goes to its stdin.

The program gives the command a session of its own, prints its pid and at the end its exit status between marks, and
reads its own stdin meanwhile: at the end of that (we are gone, killed, or cut off) it kills the whole session. Closing
a channel alone leaves the command running, and paramiko's exit status is -1 for a lost connection and a signal alike.
"""

from __future__ import annotations

import re
import secrets
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

import paramiko

from harness.errors import SetupError
from harness.host.local import CommandError, Finished
from harness.host.ssh_connect import Connection, Deadline, closed_at

READ_BYTES = 1 << 16
POLL_S = 0.5
MAX_OUTPUT_BYTES = 256 << 20

# Read as a whole before it runs, thanks to the braces: nothing that the command reads can become part of it.
# A job in the background has its stdin from /dev/null, so the channel is file 3. /proc is read without a fork: a busy
# host has thousands of processes. Ref: proc_pid_stat(5), field 6 (session).
_PROGRAM = r"""{
exec 3<&0 2>/dev/null
end_session() {
  kill -KILL -- "-$1"
  for stat in /proc/[0-9]*/stat; do
    { read -r line <"$stat"; } 2>/dev/null || continue
    pid=${stat#/proc/}; pid=${pid%/stat}
    set -- "$1" ${line##*) }
    [ "$5" = "$1" ] && kill -KILL "$pid"
  done
}
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH
@SETTINGS@
setsid sh -c 'echo "$0 begin $$"; exec "$@"' @MARK@ @COMMAND@ </dev/null 2>&1 3<&- &
child=$!
( while read -r line <&3; do :; done; end_session $child ) >/dev/null &
watcher=$!
wait $child
status=$?
kill $watcher
end_session $child
echo @MARK@ end $status
exit
}
"""


class RemoteProcess:
    """A running command: `lines` or `read` its output, `wait` for its end, `stop` it; a context manager that stops it.

    stdout and stderr come together. `pid` is its process and session there.
    """

    def __init__(
        self,
        connection: Connection,
        argv: Sequence[str],
        deadline: Deadline,
        env: Mapping[str, str] | None = None,
        cwd: PurePosixPath | str | None = None,
    ) -> None:
        self.argv = tuple(argv)
        self.status: int | None = None
        self._connection = connection
        self._began = time.monotonic()
        self._mark = secrets.token_hex(16)
        self._end = re.compile(rb"%s end (\d+)\n" % self._mark.encode())
        self._buffer = b""
        self._channel = connection.channel(deadline, self._doing)
        try:
            self._channel.set_combine_stderr(True)
            with closed_at(self._channel, deadline):
                self._send(env or {}, cwd)
            self.pid = self._started(deadline)
        except BaseException as error:
            self.stop()
            if isinstance(error, TimeoutError):
                raise CommandError(self._finished([], -1), str(error)) from None
            raise

    def __enter__(self) -> RemoteProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def read(self, deadline: Deadline) -> bytes:
        """Return some output, b"" at the end; TimeoutError at the deadline, SetupError when the host is lost."""
        while True:
            found = self._end.search(self._buffer)
            if found:
                output, self._buffer = self._buffer[: found.start()], self._buffer[found.start() :]
                if not output:
                    self.status = int(found[1])
                    self._channel.close()
                return output
            split = self._mark_at()
            if split:
                output, self._buffer = self._buffer[:split], self._buffer[split:]
                return output
            if not self._receive(deadline):
                raise self._connection.lost(self._doing)

    def lines(self, deadline: Deadline) -> Iterator[str]:
        """Yield the output line by line, until the end; CommandError at the deadline."""
        rest = b""
        while output := self._read_or_fail(deadline):
            *whole, rest = (rest + output).split(b"\n")
            yield from (line.decode("utf-8", "replace") for line in whole)
        if rest:
            yield rest.decode("utf-8", "replace")

    def wait(self, deadline: Deadline) -> Finished:
        """Read to the end and return the result; the command is stopped if that does not come."""
        pieces: list[bytes] = []
        try:
            size = 0
            while output := self.read(deadline):
                pieces.append(output)
                size += len(output)
                if size > MAX_OUTPUT_BYTES:
                    raise SetupError(
                        f"{self.argv[0]}: more than {MAX_OUTPUT_BYTES >> 20} MiB of output", [self._doing]
                    )
        except TimeoutError as error:
            raise CommandError(self._finished([*pieces, self._buffer], -1), str(error)) from None
        finally:
            self.stop()
        return self._finished(pieces, -1 if self.status is None else self.status)

    def stop(self) -> None:
        """Kill the command and its session there, which their end of our channel does."""
        self._channel.close()

    @property
    def _doing(self) -> str:
        return shlex.join(self.argv)

    def _read_or_fail(self, deadline: Deadline) -> bytes:
        try:
            return self.read(deadline)
        except TimeoutError as error:
            raise CommandError(self._finished([self._buffer], -1), str(error)) from None

    def _mark_at(self) -> int:
        """Return where the end mark, or a first part of it, begins in the buffer; its length without one."""
        mark = self._mark.encode()
        if mark in self._buffer:
            return self._buffer.index(mark)
        held = (count for count in range(len(mark) - 1, 0, -1) if self._buffer.endswith(mark[:count]))
        return len(self._buffer) - next(held, 0)

    def _finished(self, pieces: list[bytes], status: int) -> Finished:
        text = b"".join(pieces).decode("utf-8", "replace")
        return Finished(self.argv, status, text, time.monotonic() - self._began)

    def _send(self, env: Mapping[str, str], cwd: PurePosixPath | str | None) -> None:
        settings = [f"export {name}={shlex.quote(value)}" for name, value in env.items()]
        if any(not re.fullmatch(r"[A-Za-z_]\w*", name) for name in env):
            raise ValueError(f"not names of the environment: {list(env)}")
        settings += [f"cd -- {shlex.quote(str(cwd))} || exit" for _ in [0] if cwd]
        words = {"@SETTINGS@": "\n".join(settings), "@COMMAND@": self._doing, "@MARK@": self._mark}
        program = re.sub("@[A-Z]+@", lambda match: words[match[0]], _PROGRAM)
        try:
            # By stdin: the login shell may be any, and an argument has a limit of 128 KiB.
            self._channel.exec_command("exec /bin/sh")
            self._channel.sendall(program.encode())
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._connection.lost(self._doing) from error

    def _started(self, deadline: Deadline) -> int:
        begin = re.compile(rb"%s begin (\d+)\n" % self._mark.encode())
        while not (found := begin.search(self._buffer)):
            if not self._receive(deadline):
                if not self._connection.alive:
                    raise self._connection.lost(self._doing)
                raise SetupError(
                    f"{self._connection.target}: the login shell there runs no command",
                    [self._doing, *self._buffer.decode("utf-8", "replace").splitlines()[-5:]],
                    "a user whose shell is sh, bash, zsh or fish; a folder that exists",
                )
        self._buffer = self._buffer[found.end() :]
        return int(found[1])

    def _receive(self, deadline: Deadline) -> bool:
        """Add to the buffer what comes next; False at the end of the stream, TimeoutError at the deadline."""
        while True:
            # In small steps: Ctrl-C is noticed, and a host that froze.
            self._channel.settimeout(max(0.01, min(POLL_S, deadline.left)))
            try:
                data = self._channel.recv(READ_BYTES)
            except TimeoutError:
                data = None
            if data is None and not self._connection.alive:
                raise self._connection.lost(self._doing)
            # A chatty command keeps no read waiting: its data counts no more than silence.
            if data != b"" and deadline.over:
                raise TimeoutError(f"timed out after {deadline.seconds:g} s")
            if data is not None:
                self._buffer += data
                return bool(data)
