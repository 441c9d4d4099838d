"""Commands for gdb, from the output of a guest and of QEMU's monitor."""

from pathlib import Path

from harness.machine import gdb

ANSWER = """\
rdma_rxe .bss 0xffffffffc02bd8b0
rdma_rxe .data 0xffffffffc02bd8e0
rdma_rxe .note.gnu.build-id 0xffffffffc02d6000
rdma_rxe .text 0xffffffffc0470000
rdma_rxe .text.unlikely 0xffffffffc0483b20
ib_core .text 0xffffffffc0436000
"""


def test_sections_are_by_module():
    """Mutation: mix the modules; read decimals."""
    addresses = gdb.sections(ANSWER)
    assert list(addresses) == ["rdma_rxe", "ib_core"]
    assert addresses["rdma_rxe"][".text.unlikely"] == 0xFFFFFFFFC0483B20 and len(addresses["ib_core"]) == 1


def test_the_commands_place_each_module_and_then_attach():
    """Mutations: attach first (gdb would assume 32 bits); name every note; let gdb page its output."""
    addresses = gdb.sections(ANSWER)
    modules = [
        gdb.Loaded("rdma_rxe", Path("/c/rdma_rxe.debug"), Path("/c/source"), addresses["rdma_rxe"]),
        gdb.Loaded("ib_core", Path("/c/ib_core.ko"), None, addresses["ib_core"]),
    ]
    lines = gdb.script(Path("/run/gdb"), Path("/c/vmlinux"), modules).splitlines()
    rxe = next(line for line in lines if "rdma_rxe.debug" in line)
    assert rxe.startswith("add-symbol-file /c/rdma_rxe.debug 0xffffffffc0470000 -s .bss 0xffffffffc02bd8b0")
    assert "-s .text.unlikely 0xffffffffc0483b20" in rxe and ".note" not in rxe
    assert "directory /c/source" in lines and len([line for line in lines if "directory" in line]) == 1
    assert lines[1] == "set pagination off" and lines[-3:] == ["if $paged", "set pagination on", "end"]
    assert lines[-4] == "target remote /run/gdb" and "symbol-file /c/vmlinux" in lines


def test_a_connected_debugger_is_seen_by_the_monitor():
    """Mutation: look at another socket."""
    there = [
        {"label": "qmp", "filename": "unix:/x/qmp,server=on"},
        {"label": "gdb", "filename": "unix:/x/gdb,server=on"},
    ]
    gone = [there[0], {"label": "gdb", "filename": "disconnected:unix:/x/gdb,server=on"}]
    assert gdb.connected(there) and not gdb.connected(gone) and not gdb.connected(there[:1])
