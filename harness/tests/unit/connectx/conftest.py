import pytest

from harness.tests.unit.connectx.rig import Rig


@pytest.fixture
def rig():
    made = Rig()
    yield made
    made.close()
