"""Connect to a host, through its jump hosts, and watch that it answers.

Every phase has a limit of its own and all of them together a deadline; an error names the phase. paramiko's own
limits leave out the handshake, and for a channel are an hour.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import paramiko

from harness.errors import HarnessError, SetupError
from harness.host.ssh_auth import Passphrases, authenticate
from harness.host.ssh_config import Target
from harness.host.ssh_keys import algorithms, check_host_key, known_keys

# paramiko's thread logs tracebacks to the terminal where nobody takes them.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Limits:
    """Limits in seconds: of the phases of a connect, of it as a whole, and of a host's silence afterwards."""

    banner_s: float = 15
    handshake_s: float = 20
    auth_s: float = 30
    channel_s: float = 15
    connect_s: float = 60
    silence_s: float = 30


class Deadline:
    """A point in time; `left` seconds to it, never below 0."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Return the seconds that are left."""
        return max(0.0, self._end - time.monotonic())

    @property
    def over(self) -> bool:
        """Say if it has passed."""
        return not self.left


@contextlib.contextmanager
def closed_at(what: paramiko.Channel | Connection, deadline: Deadline) -> Iterator[None]:
    """Close a channel or a connection at a deadline: paramiko's own waits for a reply mostly have no limit."""
    timer = threading.Timer(deadline.left, what.close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _Carrier:
    """A channel of a jump host as another transport's socket; paramiko's thread closes it when that host is gone."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def close(self) -> None:
        """Close it; the connection that it is part of may have ended before."""
        with contextlib.suppress(paramiko.SSHException, OSError, EOFError):
            self._channel.close()


class Connection:
    """An authenticated connection; `close` ends it and those to its jump hosts."""

    def __init__(self, target: Target, limits: Limits, passphrases: Passphrases) -> None:
        self.target = target
        self.limits = limits
        self._transports: list[paramiko.Transport] = []
        self._answered = time.monotonic()
        self._silent = False
        deadline = Deadline(limits.connect_s)
        try:
            for hop in (*target.jumps, target):
                self._hop(hop, passphrases, deadline)
        except BaseException:
            self.close()
            raise
        self._answered = time.monotonic()
        for work in (self._ask_for_life, self._watch_life):
            threading.Thread(target=work, name=f"ssh {target}", daemon=True).start()

    @property
    def transport(self) -> paramiko.Transport:
        """Return the transport to the host itself."""
        return self._transports[-1]

    @property
    def alive(self) -> bool:
        """Say if the connection stands; it is ended when the host does not answer for `silence_s`."""
        return self.transport.is_active()

    def lost(self, doing: str) -> SetupError:
        """Return the error for a connection that is gone or silent."""
        if self._silent:
            problem = f"no answer for {self.limits.silence_s:.0f} s: the host is frozen, or cut off"
        else:
            problem = "no answer in time" if self.alive else "connection lost"
        error = self.transport.get_exception()
        return SetupError(
            f"{self.target}: {problem}",
            [f"while: {doing}", *([str(error)] if error else [])],
            "is the host up?",
        )

    def channel(self, deadline: Deadline, doing: str) -> paramiko.Channel:
        """Open a session; SetupError if the host refuses it or is gone."""
        try:
            limit_s = max(0.1, min(self.limits.channel_s, deadline.left))
            return self.transport.open_channel("session", timeout=limit_s)
        except paramiko.ChannelException as error:
            raise SetupError(
                f"{self.target}: no further session",
                [f"while: {doing}", error.text],
                "MaxSessions in its sshd_config",
            ) from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self.lost(doing) from error

    def close(self) -> None:
        """End the connection and those that carry it."""
        for transport in reversed(self._transports):
            transport.close()

    def _hop(self, hop: Target, passphrases: Passphrases, deadline: Deadline) -> None:
        phase = "connecting"
        try:
            carrier = self._carrier(hop, deadline)
            phase = "handshake"
            known = known_keys(hop)
            transport = paramiko.Transport(carrier)
            self._transports.append(transport)
            transport.daemon = True
            transport.banner_timeout = max(0.1, min(self.limits.banner_s, deadline.left))
            transport.handshake_timeout = max(0.1, min(self.limits.handshake_s, deadline.left))
            transport.auth_timeout = max(0.1, min(self.limits.auth_s, deadline.left))
            transport.channel_timeout = self.limits.channel_s
            options = transport.get_security_options()
            options.key_types = algorithms(known, tuple(options.key_types))
            transport.start_client(timeout=transport.handshake_timeout)
            # It returns at its time-out as if all were well.
            if not transport.initial_kex_done:
                raise TimeoutError(f"no end of the handshake in {transport.handshake_timeout:.0f} s")
            check_host_key(hop, transport.get_remote_server_key(), known)
            phase = "authentication"
            with closed_at(self, deadline):
                authenticate(transport, hop, passphrases)
        except HarnessError as error:
            if hop is not self.target:
                error.evidence += (f"a jump host on the way to {self.target}",)
            raise
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise SetupError(
                f"{hop}: no connection ({phase})",
                [str(error) or type(error).__name__],
                f"is sshd running there? ssh {self.target.name}",
            ) from error

    def _carrier(self, hop: Target, deadline: Deadline) -> Any:
        """Open what the hop's transport runs on: a channel of the hop before, or a socket."""
        limit_s = max(0.1, min(hop.connect_timeout_s, deadline.left))
        if self._transports:
            # The name is resolved by the jump host, from where it may be another one than from here.
            ends = ((hop.hostname, hop.port), ("127.0.0.1", 0))
            return _Carrier(self._transports[-1].open_channel("direct-tcpip", *ends, timeout=limit_s))
        connection = socket.create_connection((hop.hostname, hop.port), timeout=limit_s)
        # A command on a connection takes 54 ms with Nagle's algorithm, 5 ms without.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self.limits.silence_s * 1000))
        return connection

    def _ask_for_life(self) -> None:
        """Ask the host for an answer again and again: paramiko's keep-alive only sends. Ref: RFC 4254, 4."""
        pause_s = self.limits.silence_s / 4
        while self.alive:
            # Refused by every server, which is an answer; None as well when the connection ended.
            try:
                self.transport.global_request("keepalive@openssh.com", wait=True)
            except (paramiko.SSHException, OSError, EOFError):
                return  # closed meanwhile
            if self.alive:
                self._answered = time.monotonic()
            time.sleep(pause_s)

    def _watch_life(self) -> None:
        """End the connection of a host that is silent: whatever waits for it then ends with an error."""
        while self.alive:
            if time.monotonic() - self._answered > self.limits.silence_s:
                self._silent = True
                self.close()
            time.sleep(min(1, self.limits.silence_s / 8))
