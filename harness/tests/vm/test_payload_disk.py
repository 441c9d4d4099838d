"""Modules that a guest gets after its boot, on the payload disk."""

from harness.plan.session import PREPARE
from harness.values.case import Request

SIGNATURE_MAGIC = b"~Module signature appended~\n"
OLD, NEW = b"description=Soft RDMA transport", b"description=Soft RDMA TRANSPORT"


def _unsigned(module):
    """Strip the signature: a wrong one is refused, a missing one is not. Ref: Linux 7.2 kernel/module/signing.c."""
    if not module.endswith(SIGNATURE_MAGIC):
        return module
    end = len(module) - len(SIGNATURE_MAGIC)
    return module[: end - 12 - int.from_bytes(module[end - 4 : end], "big")]


def test_a_module_on_the_payload_disk_replaces_the_kernels_own(session, booted, tmp_path):
    """Restore the same snapshot with and without it.

    Mutations: do not bind it over the kernel's own; give every machine the empty disk.
    """
    kernel = session.kernel("newest")
    stock = next(kernel.modules.rglob("rdma_rxe.ko"))
    data = _unsigned(stock.read_bytes())
    assert data.count(OLD) == 1
    changed = tmp_path / "rdma_rxe.ko"
    changed.write_bytes(data.replace(OLD, NEW))
    request = Request(PREPARE, "prepare", "soft-roce")
    prepared = session.machines.prepared(
        kernel, booted.shape, request, {"modules/rdma_rxe.ko": changed, "note": tmp_path / "rdma_rxe.ko"}
    )
    assert prepared.facts["payload"] == "rdma_rxe" and prepared.facts["probe faults"]
    script = "modinfo -F description rdma_rxe; test -e /run/payload/note && lsmod | grep -c ^rdma_rxe"
    reply = session.machines.run(prepared, Request(9, "exec", argv=("sh", "-c", script)), 60)
    assert reply.output.split("\n")[:2] == ["Soft RDMA TRANSPORT", "1"]
    plain = session.machines.run(
        booted, Request(9, "exec", argv=("modinfo", "-F", "description", "rdma_rxe")), 60
    )
    assert plain.output == "Soft RDMA transport\n"
