"""Records as KCIDB JSON, the kernel community's common form of test results: a build per kernel, a test per record.

Ref: kcidb-io schema 5.3
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from harness.results.record import Run
from harness.results.wording import clean, one_line, why
from harness.values.record import Record

MAJOR, MINOR = 5, 3
ORIGIN = "odp_harness"

# A known defect is the kernel's; one that we could not run says nothing of it.
_STATUS = {"pass": "PASS", "fail": "FAIL", "known": "FAIL", "skip": "SKIP", "error": "MISS"}


def render(run: Run) -> str:
    """The whole run; identifiers are the same whenever it is made again."""
    kernels = sorted({_kernel(record) for record in run.records})
    document = {
        "version": {"major": MAJOR, "minor": MINOR},
        "checkouts": [{"id": _id("checkout", kernel), "origin": ORIGIN} for kernel in kernels],
        "builds": [_build(kernel) for kernel in kernels],
        "tests": [_test(record, run.index.started) for record in run.records],
    }
    return json.dumps(document, indent=1) + "\n"


def _build(kernel: str) -> dict[str, Any]:
    release, _, package = kernel.partition(" ")
    made: dict[str, Any] = {
        "id": _id("build", kernel),
        "origin": ORIGIN,
        "checkout_id": _id("checkout", kernel),
        "architecture": "x86_64",
        "comment": f"Debian's {release}",
    }
    return {**made, "misc": {"package_version": package}} if package else made


def _test(record: Record, started: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "id": _id("test", started, record.case.id),
        "origin": ORIGIN,
        "build_id": _id("build", _kernel(record)),
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


def _kernel(record: Record) -> str:
    environment = record.environment
    return f"{environment.get('kernel', 'unknown')} {environment.get('kernel_package', '')}".strip()


def _id(*parts: str) -> str:
    named = chr(0).join(parts).encode(errors="surrogatepass")
    return f"{ORIGIN}:{hashlib.sha256(named).hexdigest()[:32]}"


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text) or "_"


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    return {clean(name): clean(value) for name, value in environment.items()}
