"""Symbols for a debugger: a file of the kernel's own, and the build of a module that has the same code."""

import shutil
import struct
import subprocess
from types import SimpleNamespace

import pytest

from harness.errors import SetupError
from harness.kernel import symbols
from harness.kernel.elf import section
from harness.kernel.subsystems import RXE

KALLSYMS = """\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff8132e8a0 T arch_rethook_trampoline
ffffffff821b8d00 t pv_native_safe_halt
ffffffff83000000 D init_task
"""


@pytest.fixture
def names(tmp_path):
    path = tmp_path / "vmlinux"
    path.write_bytes(symbols.of_kernel(KALLSYMS))
    return path


def test_kallsyms_becomes_a_symbol_file(names):
    """Mutations: take percpu offsets for addresses; forget the trampoline's second symbol."""
    table, strings = section(names, ".symtab"), section(names, ".strtab")
    symbols_of = {}
    for name, _, _, where, value, _ in struct.iter_unpack("<IBBHQQ", table):
        symbols_of.setdefault(strings[name : strings.index(b"\0", name)].decode(), []).append((value, where))
    assert symbols_of["_stext"] == [(0xFFFFFFFF81000000, 1)] and symbols_of["init_task"] == [
        (0xFFFFFFFF83000000, 0xFFF1)
    ]
    assert sorted(value for value, _ in symbols_of["arch_rethook_trampoline"]) == [
        0xFFFFFFFF8132E89F,
        0xFFFFFFFF8132E8A0,
    ]
    assert "fixed_percpu_data" not in symbols_of
    assert section(names, ".nothing") == b""


@pytest.mark.skipif(not shutil.which("nm"), reason="no binutils to read it with")
def test_binutils_read_the_symbol_file(names):
    """Mutation: link the symbols to the wrong strings."""
    listed = subprocess.run(["nm", names], capture_output=True, text=True, check=True)
    assert "ffffffff821b8d00 T pv_native_safe_halt" in listed.stdout and not listed.stderr


@pytest.fixture
def cached(tmp_path):
    """Make a store with one build, and a kernel whose own module is another."""
    entry = tmp_path / "cache" / "module" / "rxe-1"
    entry.mkdir(parents=True)
    (entry / "rdma_rxe.ko").write_bytes(b"as it was built")
    (entry / "rdma_rxe.debug").write_bytes(b"with all")
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "rdma_rxe.ko").write_bytes(b"the distribution's")
    archive = SimpleNamespace(store=SimpleNamespace(root=tmp_path / "cache"))
    return archive, SimpleNamespace(modules=tmp_path / "modules"), entry


def test_a_module_of_ours_is_found_by_its_content(cached, tmp_path):
    """Mutation: find it by its name."""
    archive, kernel, entry = cached
    module = tmp_path / "rdma_rxe.ko"
    module.write_bytes(b"as it was built")
    symbols_of = symbols.debug("rdma_rxe", module, RXE, kernel, archive)
    assert (
        symbols_of.file == entry / "rdma_rxe.debug"
        and symbols_of.sources == entry / "source"
        and not symbols_of.why
    )


def test_other_code_gets_no_lines(cached, tmp_path, monkeypatch, names):
    """Mutations: use the lines of a build with other code; fail if nothing can be built."""
    archive, kernel, _ = cached
    own = tmp_path / "modules" / "rdma_rxe.ko"
    own.write_bytes(names.read_bytes())
    twin = tmp_path / "built" / "rdma_rxe.debug"
    twin.parent.mkdir()
    twin.write_bytes(symbols.of_kernel(KALLSYMS))
    monkeypatch.setattr(symbols, "source", lambda kernel, archive: tmp_path)
    monkeypatch.setattr(
        symbols, "build", lambda *arguments, **more: SimpleNamespace(debug={"rdma_rxe": twin})
    )
    codes = {own: b"same", twin: b"same"}
    monkeypatch.setattr(symbols, "section", lambda file, name: codes[file])
    assert symbols.debug("rdma_rxe", None, RXE, kernel, archive).file == twin
    codes[twin] = b"other"
    symbols_of = symbols.debug("rdma_rxe", None, RXE, kernel, archive)
    assert symbols_of.file == own and symbols_of.sources is None and "neither" in symbols_of.why

    def fail(kernel, archive):
        raise SetupError("no source")

    monkeypatch.setattr(symbols, "source", fail)
    assert symbols.debug("rdma_rxe", None, RXE, kernel, archive).why == "no source"
