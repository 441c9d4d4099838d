import pytest

from harness.tests.unit.connectx.driver import Driver
from harness.tests.unit.connectx.pair import filled
from harness.tests.unit.connectx.rig import Rig


@pytest.fixture
def rig():
    made = Rig()
    yield made
    made.close()


@pytest.fixture
def driver():
    """Return a driver whose card is initialised."""
    return Driver()


@pytest.fixture
def pair():
    """Return an RC pair, its first region filled with PATTERN."""
    return filled()
