"""The reproducer of known defects: a plain C program that shows each defect on a stock kernel, and no other.

Its compiler is the one that built the kernel; the program is on the guest's payload disk.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import GuestError
from harness.kernel.toolchain import toolchain
from harness.plan.session import Session
from harness.plan.target import lend
from harness.tests.vm.conftest import FULL
from harness.values.case import Request

SOURCE = Path(__file__).parents[1] / "data" / "known" / "known.c"

pytestmark = pytest.mark.skipif(not FULL, reason="fetches a compiler and the verbs' headers: ODP_FULL=1")


@pytest.fixture(scope="module")
def payload(session, tmp_path_factory):
    """Build a folder with the program, for the payload disk."""
    kernel = session.kernel("7.3")
    tools = toolchain(kernel, session.archive, ("libc6-dev", "linux-libc-dev", "libibverbs-dev"))
    work = tmp_path_factory.mktemp("known")
    shutil.copyfile(SOURCE, work / SOURCE.name)
    flags = ("-O2", "-Wall", "-Wextra", "-Werror", "-o", "/build/known", f"/build/{SOURCE.name}", "-libverbs")
    session.host.run(tools.command(kernel, work, (tools.compiler.split()[0], *flags)))
    (work / SOURCE.name).unlink()
    return work


@pytest.fixture(scope="module")
def tried(session, payload):
    """Return a function that runs a case of the program on a device: (exit status, output)."""
    with Session(replace(session.options, payload=payload), print) as own:

        def run(name, device):
            kernel, snapshot = own.prepared("7.3", device, "real")
            rdma = "soft-roce 1" if device == "soft-roce" else "mlx5_0"
            state = f"/sys/class/infiniband/{rdma.split()[0]}/ports/1/state"
            ready = f"until grep -qs ACTIVE {state} && [ -e /dev/infiniband/uverbs0 ]; do sleep 0.1; done"
            start = f"cp /run/payload/known /tmp; chmod +x /tmp/known; timeout 60 /tmp/known {name} {rdma}"
            script = f"{ready}; {start}"
            reply = lend(own, kernel, snapshot, Request(7, "exec", device, argv=("sh", "-c", script)))
            return reply.exit_status, reply.output

        yield run


@pytest.mark.parametrize(
    ("name", "device", "text"),
    [
        ("rxe-odp-offset", "soft-roce", "success was reported, but byte 0 is"),
        ("rxe-advise-pinned", "soft-roce", "was not refused"),
        ("rereg-toggle", "soft-roce", "success was reported, but byte 0 is 0"),
        ("rereg-toggle", "connectx-5", "success was reported, but byte 0 is 0"),
        ("rxe-local-error", "soft-roce", "ended with: Work Request Flushed Error"),
        ("rxe-advise-read-only", "soft-roce", "was refused: Invalid argument"),
        ("rxe-receive-error", "soft-roce", "ended with: local QP operation error"),
        ("mlx5-dirty-free", "connectx-5", "a page was changed when it was free"),
        ("mlx5-implicit-child", "connectx-7", "into an implicit region whose pages are discarded ended with"),
    ],
)
def test_the_reproducer_shows_a_stock_kernels_defect(tried, name, device, text):
    """Mutation: do not compare; exit with 0."""
    status, output = tried(name, device)
    assert status == 1 and text in output, output


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("rxe-odp-offset", "connectx-5"),
        ("rxe-odp-iova", "connectx-5"),
        ("rxe-advise-pinned", "connectx-5"),
        ("rxe-local-error", "connectx-5"),
        ("rxe-advise-read-only", "connectx-5"),
        ("rxe-receive-error", "connectx-5"),
        ("mlx5-dirty-free", "soft-roce"),
    ],
)
def test_the_reproducer_is_silent_without_the_defect(tried, name, device):
    """Mutation: connect or register wrongly, and call that a defect."""
    assert tried(name, device) == (0, "")


def test_the_wild_index_is_an_oops_or_an_error(tried):
    """Mutation: register at the memory's own address."""
    try:
        status, output = tried("rxe-odp-iova", "soft-roce")
    except GuestError as error:
        assert "BUG: unable to handle page fault" in error.render()
    else:
        assert status == 1 and "the write ended with: " in output
