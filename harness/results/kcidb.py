"""Write records as KCIDB JSON, the kernel community's format of results: a build per kernel, a test per record.

A kernel with replaced modules is another build, of another checkout, than the distribution's.

Ref: kcidb-io schema 5.3
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Any

from harness.results.record import Run
from harness.results.text import clean, one_line, why
from harness.values.record import Record

MAJOR, MINOR = 5, 3
ORIGIN = "odp_harness"
NO_MODULES = "no modules"
"""Fact of a guest whose payload disk replaces none. Ref: guest/payload.py"""

# A known failure is the kernel's; a case that could not run is no result of it.
_STATUS = {"pass": "PASS", "fail": "FAIL", "known": "FAIL", "skip": "SKIP", "error": "MISS"}


def render(run: Run) -> str:
    """Write the whole run; identifiers are the same each time."""
    builds = sorted({_built(record) for record in run.records}, key=astuple)
    document = {
        "version": {"major": MAJOR, "minor": MINOR},
        "checkouts": [{"id": built.id("checkout"), "origin": ORIGIN} for built in builds],
        "builds": [_build(built) for built in builds],
        "tests": [_test(record, run.index.started) for record in run.records],
    }
    return json.dumps(document, indent=1) + "\n"


@dataclass(frozen=True)
class _Built:
    """The tested build: a kernel and its package; the replaced modules, and the key of their payload disk."""

    kernel: str
    modules: str = ""
    payload: str = ""

    def id(self, kind: str) -> str:
        """Compute the identifier of its build or checkout; equal for the distribution's kernel on any host."""
        own = (self.modules, self.payload) if self.modules else ()
        return _id(kind, self.kernel, *own)


def _built(record: Record) -> _Built:
    environment = record.environment
    kernel = f"{environment.get('kernel', 'unknown')} {environment.get('kernel_package', '')}".strip()
    modules = environment.get("machine.payload") or NO_MODULES
    if modules == NO_MODULES:
        return _Built(kernel)
    # The key of the snapshot depends on the payload disk, too.
    return _Built(kernel, modules, environment.get("payload") or environment.get("snapshot", ""))


def _build(built: _Built) -> dict[str, Any]:
    release, _, package = built.kernel.partition(" ")
    made: dict[str, Any] = {
        "id": built.id("build"),
        "origin": ORIGIN,
        "checkout_id": built.id("checkout"),
        "architecture": "x86_64",
        "comment": f"Debian's {release}",
    }
    misc = {"package_version": package} if package else {}
    if built.modules:
        names = ", ".join(clean(built.modules).split())
        made["comment"] = f"not Debian's {release} as it is: modules {names} are replaced"
        misc |= {"modules": names, "payload": clean(built.payload)}
    return {**made, "misc": misc} if misc else made


def _test(record: Record, started: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "id": _id("test", started, record.case.id),
        "origin": ORIGIN,
        "build_id": _built(record).id("build"),
        "path": ".".join(_word(part) for part in (ORIGIN, *record.case.id.split("/"))),
        "status": _STATUS[record.verdict],
        "duration": record.wall_s,
        "environment": {"comment": "QEMU machine of odp-harness", "misc": _clean(record.environment)},
        "misc": {"case": clean(record.case.id), "verdict": record.verdict},
    }
    if why(record):
        made["comment"] = one_line(why(record))
    with contextlib.suppress(ValueError):
        made["start_time"] = datetime.fromisoformat(record.started).isoformat()
    return made


def _id(*parts: str) -> str:
    named = chr(0).join(parts).encode(errors="surrogatepass")
    return f"{ORIGIN}:{hashlib.sha256(named).hexdigest()[:32]}"


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text) or "_"


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    return {clean(name): clean(value) for name, value in environment.items()}
