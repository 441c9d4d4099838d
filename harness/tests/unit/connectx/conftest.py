import pytest

from harness.tests.unit.connectx.pair import PATTERN, Pair
from harness.tests.unit.connectx.rig import Rig


@pytest.fixture
def rig():
    made = Rig()
    yield made
    made.close()


@pytest.fixture
def pair():
    """An RC pair, its first region filled with PATTERN."""
    made = Pair()
    made.memory.write(made.at[0], PATTERN)
    return made
