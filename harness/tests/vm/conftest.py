"""Real machines for the vm tests: one session for all of them, on the user's own cache."""

import os
from pathlib import Path

import pytest

from harness.plan.session import Options, Session

FULL = bool(os.environ.get("ODP_FULL"))


@pytest.fixture(scope="session")
def session():
    cache = os.environ.get("ODP_HARNESS_CACHE")
    with Session(Options(cache=Path(cache) if cache else None), print) as opened:
        yield opened


@pytest.fixture(scope="session")
def booted(session):
    kernel = session.kernel("newest")
    return session.studio.booted(kernel, session.studio.shape("exact"))
