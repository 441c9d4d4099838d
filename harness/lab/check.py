"""Check a lab host row by row: what it has, and which devices could run there. Read-only.

Works on any Linux host that ssh reaches; nothing but sh(1) and setsid(1) is needed there.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from harness.host import CommandError
from harness.host.ssh import SshHost
from harness.lab import cards
from harness.lab.finding import BOTH, CARD, NOTE, OK, UNKNOWN, Finding, Row, clean, install_command
from harness.lab.rows import ROWS

ROW_TIMEOUT_S = 20
MAX_SKEW_S = 2
ROUND_TRIPS = 3
SESSIONS = 4


@dataclass(frozen=True)
class Report:
    """All findings about a host."""

    host: str
    findings: tuple[Finding, ...]

    def missing(self, device: str) -> list[Finding]:
        """Return what keeps a device from running, empty if nothing does."""
        return [each for each in self.findings if device in each.needed and each.in_the_way]

    @property
    def runs(self) -> tuple[str, ...]:
        """Return the devices that could run there."""
        return tuple(device for device in BOTH if not self.missing(device))

    @property
    def install(self) -> str:
        """Return the command that installs all that is missing and is a package."""
        return install_command(self.findings)

    def plain(self) -> dict[str, Any]:
        """Return it as JSON's types."""
        return {
            "host": self.host,
            "rows": [asdict(each) for each in self.findings],
            "devices": {
                device: {
                    "could_run": device in self.runs,
                    "missing": [each.name for each in self.missing(device)],
                }
                for device in BOTH
            },
            "install": self.install,
        }


def check(host: SshHost) -> Report:
    """Run every row; SetupError only when the connection is lost."""
    facts = {"release": clean(host.run(["uname", "-r"], timeout_s=ROW_TIMEOUT_S).output)}
    findings = list(_connection(host))
    # A command is mostly waiting; sshd allows 10 sessions a connection.
    with ThreadPoolExecutor(SESSIONS) as pool:
        by_card = pool.submit(_cards, host)
        rows = list(pool.map(lambda row: _row(host, row, facts), ROWS))
    first = next(number for number, each in enumerate(rows) if each.section == "cards")
    return Report(str(host.target), (*findings, *rows[:first], *by_card.result(), *rows[first:]))


def _connection(host: SshHost) -> Iterator[Finding]:
    transport = host.connection.transport
    key = transport.get_remote_server_key()
    text = f"{key.get_name()} {key.fingerprint}, {transport.remote_version}"
    yield Finding("ssh", "host key", OK, clean(text))
    times_ms = []
    for _ in range(ROUND_TRIPS):
        began = time.monotonic()
        host.run(["true"], timeout_s=ROW_TIMEOUT_S)
        times_ms.append((time.monotonic() - began) * 1000)
    yield Finding("ssh", "a command", NOTE, f"{statistics.median(times_ms):.0f} ms")
    before = time.time()
    there = int(host.run(["date", "+%s"], timeout_s=ROW_TIMEOUT_S).output)
    # Its clock was read between `before` and now, to a whole second.
    skew_s = there - before if there < int(before) else max(0, there - time.time())
    state, text = (OK, "as ours") if abs(skew_s) <= MAX_SKEW_S else (NOTE, f"{skew_s:+.0f} s against ours")
    yield Finding("ssh", "clock", state, text)


def _row(host: SshHost, row: Row, facts: dict[str, str]) -> Finding:
    try:
        status, output = _output(host, row.command)
    except CommandError as error:
        return Finding(row.section, row.name, UNKNOWN, clean(error.headline), needed=row.needed)
    return row.finding(status, output, facts)


def _cards(host: SshHost) -> list[Finding]:
    try:
        return cards.card_findings(_output(host, cards.COMMAND)[1])
    except CommandError as error:
        return [Finding("cards", "ConnectX", UNKNOWN, clean(error.headline), needed=(CARD,))]


def _output(host: SshHost, command: str) -> tuple[int, str]:
    finished = host.run(["sh", "-c", command], timeout_s=ROW_TIMEOUT_S, check=False, env={"LC_ALL": "C"})
    return finished.status, finished.output
