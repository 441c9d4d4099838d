"""Whose stages `trace` shows."""

import pytest

from harness.cli.trace import driver_of
from harness.errors import UsageError


def test_a_device_is_known_by_its_driver(tmp_path):
    """Mutation: ask nothing but the name."""
    device = tmp_path / "class/infiniband/rocep1s0"
    driver = tmp_path / "bus/auxiliary/drivers/mlx5_ib.rdma"
    driver.mkdir(parents=True)
    (device / "device").mkdir(parents=True)
    (device / "device/driver").symlink_to(driver)
    assert driver_of("rocep1s0", device.parent) == "mlx5"
    assert [driver_of(name, device.parent) for name in ("", "mlx5_0", "rxe0", "rdma_rxe")] == [
        "",
        "mlx5",
        "rxe",
        "rxe",
    ]
    with pytest.raises(UsageError, match="no driver known for irdma0"):
        driver_of("irdma0", device.parent)
