"""The monitor of a machine: QEMU's own protocol library without asyncio for the caller."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qemu.qmp import ExecuteError, QMPClient, QMPError

from harness.errors import HarnessError, SetupError

CONNECT_S = 10.0
# Ref: Linux 7.3 include/uapi/linux/un.h, UNIX_PATH_MAX, with the zero at its end
PATH_BYTES = 107


class Qmp:
    """A connection to a QMP socket; `dead` makes the error to raise if QEMU has exited."""

    def __init__(self, socket: Path, dead: Callable[[], HarnessError]) -> None:
        if len(os.fsencode(socket)) > PATH_BYTES:
            raise SetupError(f"{socket}: too long a path for a socket", hint="--cache with a shorter one")
        self._dead = dead
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient("odp-harness")
        until = time.monotonic() + CONNECT_S
        while True:
            try:
                self._loop.run_until_complete(self._client.connect(str(socket)))
                return
            except QMPError as error:
                if time.monotonic() > until:
                    raise SetupError("QEMU's monitor does not answer", [str(error)]) from error
                time.sleep(0.01)

    def command(self, name: str, **arguments: Any) -> Any:
        """Run a command and return its result; SetupError with QEMU's message if it is refused."""
        try:
            return self._loop.run_until_complete(self._client.execute(name, arguments or None))
        except ExecuteError as error:
            raise SetupError(f"QEMU refused {name}", [str(error)]) from error
        except QMPError as error:
            raise self._dead() from error

    def migrate(self, uri: str, deadline_s: float = 60.0) -> None:
        """Write the machine's state to `uri` and wait until it is complete."""
        self.command("migrate", uri=uri)
        until = time.monotonic() + deadline_s
        while True:
            status = self.command("query-migrate")
            if status.get("status") == "completed":
                return
            if status.get("status") in ("failed", "cancelled") or time.monotonic() > until:
                raise SetupError("the machine could not be saved", [str(status)])
            time.sleep(0.005)

    def close(self) -> None:
        """Disconnect."""
        try:
            self._loop.run_until_complete(self._client.disconnect())
        except (QMPError, EOFError, OSError):
            pass
        self._loop.close()
