"""Errors of loading and unloading a module on the host."""

import pytest

from harness.errors import SetupError, Unsupported
from harness.host import LocalHost
from harness.kernel import insmod
from harness.ledger import Ledger


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setattr(insmod, "LOADED", tmp_path / "loaded")
    monkeypatch.setattr(insmod, "MODULES", tmp_path / "modules")
    (tmp_path / "loaded").mkdir()
    ledger = Ledger(tmp_path / "runs")
    yield LocalHost(ledger)
    ledger.close()


def test_a_loaded_module_is_not_loaded_again_nor_a_missing_one_unloaded(host, tmp_path):
    """Mutation: leave it to insmod's message."""
    with pytest.raises(SetupError, match="x is not loaded") as caught:
        insmod.unload("x", host)
    assert caught.value.hint == "odp-harness kmod load"
    (tmp_path / "loaded/x").mkdir()
    with pytest.raises(SetupError, match="already loaded") as caught:
        insmod.load(tmp_path / "x.ko", host)
    assert caught.value.hint == "odp-harness kmod unload"


def test_loading_needs_root(host, tmp_path, monkeypatch):
    """Mutation: try it without root."""
    monkeypatch.setattr(insmod.os, "geteuid", lambda: 1000)
    with pytest.raises(SetupError, match="loading a kernel module needs root"):
        insmod.load(tmp_path / "x.ko", host)


def test_a_kernel_without_headers_is_named(host, tmp_path):
    """Mutation: let make report that a folder is missing."""
    with pytest.raises(Unsupported, match="no headers of the running kernel") as caught:
        insmod.build_here(tmp_path, tmp_path / "into", host)
    assert caught.value.hint == "--file MODULE.ko"
