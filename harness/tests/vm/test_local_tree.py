"""--kernel DIR: a kernel tree of the user, made from a Debian kernel's files or (ODP_FULL=1) built for the test."""

import json
import os
import re
import subprocess

import pytest

from harness.errors import SetupError
from harness.kernel import config
from harness.kernel.toolchain import toolchain
from harness.results.record import read_run
from harness.tests.vm.conftest import FULL, harness
from harness.tests.vm.trees import set_options, tree_of

PLAN = "testplans/odp-write.toml"
GIT = ("git", "-c", "user.name=x", "-c", "user.email=x@y")


def run(session, tree, tmp_path, *more, timeout=1800):
    """Run a case on the tree and return its records."""
    argv = ("--kernel", tree, "--cut", 1, "-j", 1, "--results", tmp_path / "r", "--cache", session.store.root)
    done = harness("run", PLAN, *argv, *more, timeout=timeout)
    records = read_run(tmp_path / "r").records if (tmp_path / "r/records").is_dir() else ()
    return done, records


def test_a_tree_runs_as_newest_does(session, tmp_path):
    """Mutation: name its cases by its folder; leave out the modules' index; forget the headers' link."""
    kernel = session.kernel("newest")
    tree = tree_of(kernel, session, tmp_path / "linux", sources=False)
    done, (record,) = run(session, tree, tmp_path, "--device", "soft-roce")
    assert done.returncode == 0, done.stdout + done.stderr
    assert record.case.id.startswith(f"odp-write/{kernel.release}/soft-roce/")
    assert record.environment["series"] == str(tree)
    assert record.environment["kernel_package"].startswith(f"{tree} #1 ")


def test_missing_options_of_a_tree_are_a_usage_error_or_a_skip(session, tmp_path):
    """Mutation: boot it and wait for the agent."""
    tree = tree_of(session.kernel("newest"), session, tmp_path / "linux", sources=False)
    set_options(tree, MLX5_INFINIBAND=None)
    done, (record,) = run(session, tree, tmp_path, "--device", "connectx-5")
    assert record.verdict == "skip" and "CONFIG_MLX5_INFINIBAND=m" in record.reasons[0].text, done.stdout
    set_options(tree, EROFS_FS=None, BPF_SYSCALL=None)
    done = harness("shell", "--kernel", tree, "--cache", session.store.root)
    assert done.returncode == 2 and "scripts/config -e BPF_SYSCALL -m EROFS_FS &&" in done.stderr


@pytest.fixture
def built_by_the_host(session, tmp_path):
    """Make a tree whose compiler is the host's: Debian 12's own kernel, on Debian 12."""
    tree = tree_of(session.kernel("6.1"), session, tmp_path / "linux")
    try:
        toolchain(session.kernel(str(tree)), session.archive)
    except SetupError as error:
        pytest.skip(error.headline)
    return tree


def test_modules_for_a_tree_are_built_by_the_hosts_compiler(session, built_by_the_host):
    """Mutation: build against the archive's headers; by the archive's compiler."""
    done = harness("kmod", "build", "--kernel", built_by_the_host, "--cache", session.store.root)
    assert done.returncode == 0, done.stderr
    shown = subprocess.run(
        ["modinfo", "-F", "vermagic", done.stdout.strip()], capture_output=True, text=True, check=True
    )
    assert shown.stdout.split()[0] == session.kernel("6.1").release


@pytest.mark.skipif(not FULL, reason="builds modules twice and runs them on a card")
@pytest.mark.timeout(3600)
def test_a_range_of_a_built_tree_runs_in_its_own_kernel(session, built_by_the_host, tmp_path):
    """Mutation: run it in the newest kernel of the archive."""
    tree = built_by_the_host
    place = "drivers/infiniband/hw/mlx5/odp.c"
    subprocess.run([*GIT, "init", "-q"], cwd=tree, check=True)
    subprocess.run(
        [*GIT, "add", "drivers/infiniband", "include/rdma", "include/uapi/rdma"], cwd=tree, check=True
    )
    subprocess.run([*GIT, "commit", "-qm", "before"], cwd=tree, check=True)
    text = (tree / place).read_text()
    (tree / place).write_text(
        re.sub(r"(\n\tnp = ib_umem_odp_map)", r'\n\tpr_info_once("a fault\\n");\1', text, count=1)
    )
    subprocess.run([*GIT, "commit", "-qam", "after"], cwd=tree, check=True)
    argv = (
        "--patch",
        "HEAD~1..HEAD",
        "--tree",
        tree,
        "--plans",
        PLAN,
        "-k",
        "connectx-5",
        "--seeds",
        1,
        "-j",
        1,
    )
    more = ("--json", "--results", tmp_path / "r", "--cache", session.store.root)
    result = json.loads(harness("regress", *argv, *more, timeout=3500).stdout)
    assert result["kernel"] == session.kernel("6.1").release
    assert result["compiler"].startswith("gcc")
    assert result["modules"] == ["mlx5_ib"]


@pytest.mark.skipif(not FULL, reason="builds a kernel: some twenty minutes of two cores")
@pytest.mark.timeout(4 * 3600)
def test_a_minimal_kernel_boots(session, tmp_path):
    """Build the archive's source from allnoconfig. Mutation: leave an option out of BUILT_IN that a guest needs."""
    kernel = session.kernel("newest")
    series = ".".join(kernel.release.split(".")[:2])
    session.archive.unpack([f"linux-source-{series}"], tmp_path / "deb")
    (packed,) = (tmp_path / "deb/usr/src").glob("linux-source-*.tar.*")
    tree = tmp_path / "linux"
    tree.mkdir()
    subprocess.run(["tar", "-xf", packed, "-C", tree, "--strip-components=1"], check=True)
    packed.unlink()

    def make(*argv):
        subprocess.run(["make", "-s", f"-j{os.cpu_count()}", *argv], cwd=tree, check=True)

    make("allnoconfig")
    with (tree / ".config").open("a") as file:
        file.writelines(f"{line}\n" for line in (*config.settings(), 'CONFIG_LOCALVERSION="-own"'))
    make("olddefconfig")
    make()
    for device in ("soft-roce", "connectx-5"):
        done, (record,) = run(session, tree, tmp_path / device, "--device", device)
        assert done.returncode == 0, done.stdout + done.stderr
        assert record.environment["kernel"].endswith("-own")
