"""Test boot times where virtme-ng does not run."""

import pytest

from harness.bench import boot
from harness.bench.boot import BootTimes
from harness.errors import SetupError


def test_missing_udev_is_a_setup_error(monkeypatch, tmp_path):
    """Look for udev: virtme-ng itself exits with status 255 and prints nothing. Mutation: do not look for udevd."""
    monkeypatch.setattr(boot, "UDEV", (str(tmp_path / "systemd-udevd"),))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="needs udev") as caught:
        boot.need_udev()
    assert caught.value.evidence == (f"not there: {tmp_path}/systemd-udevd",)
    assert caught.value.hint == "apt-get install udev"
    (tmp_path / "systemd-udevd").touch(0o755)
    boot.need_udev()


def test_the_other_times_are_reported_without_virtme_ng():
    """Mutation: divide by a missing time."""
    plain = BootTimes("7.3.4", 1, 20.0, 0.5, 0.4, None, "virtme-ng needs udev").plain()
    assert (plain["prepared_s"], plain["vng_s"], plain["ratio_prepared_to_vng"]) == (0.4, None, None)
    assert plain["vng_error"] == "virtme-ng needs udev"
    assert BootTimes("7.3.4", 1, 20.0, 0.5, 0.4, 12.0).plain()["ratio_prepared_to_vng"] == 30.0
