"""Check a kernel tree of the user and copy it into one entry."""

import os
import shutil
import subprocess
from types import SimpleNamespace

import pytest

from harness.errors import SetupError, UsageError
from harness.host import LocalHost
from harness.kernel import config, host_toolchain, local_tree
from harness.kernel.packages import Kernel, Kernels
from harness.kernel.source import source
from harness.ledger import Ledger
from harness.store import Store

MODULES = ("drivers/infiniband/sw/rxe/rdma_rxe.ko", "lib/a.ko")
RXE = "drivers/infiniband/sw/rxe"


def write(path, text="", mode=0o644):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def make_tree(folder, release="7.3.4-mine"):
    """Make a tree with all that is checked, of a kernel that our guests can boot."""
    for name in (
        "Makefile",
        "Kbuild",
        "Module.symvers",
        "scripts/mod/modpost",
        "scripts/a.o",
        "arch/x86/kernel/x.c",
    ):
        write(folder / name, name)
    (folder / "scripts/dummy-tools").mkdir()
    (folder / "scripts/dummy-tools/nm").symlink_to("ld")
    write(folder / "drivers/infiniband/core/Makefile")
    write(folder / "arch/x86/Makefile")
    write(folder / "arch/x86/include/generated/asm/a.h")
    write(folder / "include/linux/a.h", "int a;")
    write(folder / f"{RXE}/rxe.c", "int a;")
    write(folder / f"{RXE}/rxe.o")
    write(folder / "arch/x86/boot/bzImage", "kernel")
    write(folder / "include/config/kernel.release", f"{release}\n")
    write(folder / "include/config/ZRAM")
    write(folder / "include/generated/utsversion.h", '#define UTS_VERSION "#5 SMP Fri"\n')
    lines = (
        *config.settings(),
        "CONFIG_X86=y",
        "CONFIG_X86_64=y",
        'CONFIG_CC_VERSION_TEXT="gcc (A 1) 12.2.0"',
    )
    for name in (".config", "include/config/auto.conf"):
        write(folder / name, "\n".join(lines) + "\n")
    write(folder / "modules.order", "".join(f"{name[:-3]}.o\n" for name in MODULES))
    # The commands that copy a module want true ones.
    write(folder / "empty.c", "int symbol;")
    subprocess.run(["gcc", "-g", "-c", "empty.c", "-o", "vmlinux"], cwd=folder, check=True)
    for name in MODULES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "vmlinux", folder / name)
    return folder


@pytest.fixture
def built(tmp_path):
    local_tree.called.cache_clear()
    return make_tree(tmp_path / "linux")


@pytest.fixture
def archive(tmp_path):
    """Make as much of an archive as a tree needs."""
    ledger = Ledger(tmp_path / "runs")
    store = Store(tmp_path / "cache")
    yield SimpleNamespace(store=store, host=LocalHost(ledger))
    ledger.close()
    store.close()


def option(folder, text, name=".config"):
    path = folder / name
    path.write_text(path.read_text() + text + "\n")


@pytest.mark.parametrize(
    ("spoil", "headline", "more"),
    [
        (lambda at: (at / "Kbuild").unlink(), "is no kernel tree", "it has no Kbuild"),
        (lambda at: shutil.rmtree(at), "does not exist", "`make` has built Linux"),
        (lambda at: (at / ".config").unlink(), "has no .config", "odp-harness kernel config >>.config"),
        (lambda at: (at / "arch/x86/boot/bzImage").unlink(), "is not built", "no arch/x86/boot/bzImage"),
        (lambda at: (at / "include/config/kernel.release").unlink(), "is not built", "make -C"),
        (lambda at: (at / MODULES[0]).unlink(), "not completely built", MODULES[0]),
        (lambda at: option(at, "CONFIG_X86_64=n"), "configured for 32 bits", "make x86_64_defconfig"),
        (
            lambda at: option(at, "# CONFIG_ZRAM is not set\nCONFIG_ZRAM=n", "include/config/auto.conf"),
            "changed since it was built",
            "make",
        ),
    ],
)
def test_each_mistake_has_its_own_error(built, spoil, headline, more):
    """Mutation: take out any of the checks."""
    spoil(built)
    with pytest.raises(UsageError) as error:
        local_tree.find(built)
    assert headline in error.value.headline
    assert more in error.value.render()


def test_another_architecture_is_named(built):
    """Mutation: look at the options only, half of which are then missing."""
    write(
        built / ".config",
        "# Automatically generated file; DO NOT EDIT.\n# Linux/arm64 7.3.4 Kernel Configuration\n",
    )
    with pytest.raises(UsageError, match="configured for arm64"):
        local_tree.find(built)


def test_all_missing_options_are_reported_at_once(built):
    """Try built-in for a module, a module for built-in, and unset. Mutation: stop at the first."""
    option(
        built,
        "CONFIG_INFINIBAND=y\nCONFIG_SERIAL_8250=m\nCONFIG_MODULE_SIG_FORCE=y\n# CONFIG_ZRAM is not set",
    )
    text = (built / ".config").read_text().replace("CONFIG_ZRAM=m\n", "")
    (built / ".config").write_text(text)
    with pytest.raises(UsageError) as error:
        local_tree.find(built)
    assert len(error.value.evidence) == 4
    for beside in ("-e DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT", "-e X86_MCE"):
        assert beside in config.commands(config.lacking({}))
    for flag in ("-m INFINIBAND", "-e SERIAL_8250", "-m ZRAM", "-d MODULE_SIG_FORCE"):
        assert flag in error.value.hint


def test_one_device_is_enough():
    """Mutation: need both, or none."""
    options = config.read("\n".join(config.settings()))
    assert config.lacking(options) == ()
    without_card = {name: value for name, value in options.items() if not name.startswith("MLX5")}
    assert config.lacking(without_card) == ()
    assert [lack.name for lack in config.lacking_for("connectx", without_card)] == list(
        config.DEVICES["connectx"]
    )
    del without_card["RDMA_RXE"]
    assert [lack.name for lack in config.lacking(without_card)] == ["RDMA_RXE"]


def test_an_entry_is_like_a_debian_kernels(built, archive):
    """Mutation: leave out a part; copy objects; do not strip the modules."""
    kernel = Kernels(archive).get(str(built))
    assert (kernel.release, kernel.tree) == ("7.3.4-mine", built)
    assert kernel.version == f"{built} #5 SMP Fri"
    assert kernel.vmlinuz.read_text() == "kernel"
    assert (kernel.headers / "include/linux/a.h").is_file()
    assert (kernel.modules / "build").readlink().name == kernel.build.name
    assert (kernel.modules / "modules.dep").read_text().count("kernel/") == 2
    names = {str(path.relative_to(kernel.build)) for path in kernel.build.rglob("*") if path.is_file()}
    assert {
        ".config",
        "Makefile",
        "scripts/mod/modpost",
        "include/config/auto.conf",
        "arch/x86/Makefile",
    } <= names
    assert not names & {"include/config/ZRAM", "arch/x86/kernel/x.c", "arch/x86/boot/bzImage", "scripts/a.o"}
    module = (kernel.modules / "kernel" / MODULES[0]).read_bytes()
    assert b"symbol" in module and b".debug_info" not in module


def test_another_build_is_another_kernel(built, archive):
    """Mutation: key it by the release; key it by the image only."""
    kernels = Kernels(archive)
    first = kernels.get(str(built)).folder
    assert kernels.get(str(built)).folder == first
    os.utime(built / MODULES[1], (1, 1))
    second = kernels.get(str(built)).folder
    (built / "arch/x86/boot/bzImage").write_text("Kernel")
    assert len({first, second, kernels.get(str(built)).folder}) == 3


def test_the_folder_of_make_O_is_a_tree(built, archive):
    """Mutation: look for the source where it was built."""
    out = built.parent / "out"
    for name in (".config", "include/config", "include/generated", "arch/x86/boot", "vmlinux"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (built / name).rename(out / name)
    more = ("Module.symvers", "modules.order", "arch/x86/include/generated", *MODULES)
    for name in more:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (built / name).rename(out / name)
    write(out / "Makefile", "include ../linux/Makefile")
    write(out / "scripts/basic/fixdep")
    (out / "source").symlink_to(built)
    kernel = Kernels(archive).get(str(out))
    assert (kernel.build / "Makefile").read_text() == "Makefile"
    assert all((kernel.build / f"scripts/{name}").is_file() for name in ("mod/modpost", "basic/fixdep"))
    with pytest.raises(UsageError, match="no .config"):
        local_tree.find(built)


def test_the_source_is_the_current_tree(built, archive):
    """Mutation: cache the source by its path; take files that make left for source."""
    kernel = Kernels(archive).get(str(built))
    stock = source(kernel, archive)
    assert [path.name for path in (stock / RXE).iterdir()] == ["rxe.c"]
    write(built / f"{RXE}/rxe.c", "int b;")
    assert (source(kernel, archive) / f"{RXE}/rxe.c").read_text() == "int b;"


def test_names_that_are_folders(built, monkeypatch):
    """Mutation: take any name for a folder; forget ~; let a folder take the name of a series."""
    monkeypatch.chdir(built.parent)
    (built.parent / "7.3").mkdir()
    assert local_tree.named("7.3") is None and local_tree.named("./7.3") == built.parent / "7.3"
    monkeypatch.setenv("HOME", str(built.parent))
    assert local_tree.named("newest") is None
    assert local_tree.named("linux") == local_tree.named("./linux") == local_tree.named("~/linux") == built
    assert local_tree.distinct(["7.3", "linux", "./linux"]) == ("7.3", str(built))
    assert local_tree.called("./linux") == "7.3.4-mine"


def test_two_trees_of_one_release_are_refused(built):
    """Refuse them because their cases have the same names. Mutation: let the second replace the first."""
    make_tree(built.parent / "other")
    with pytest.raises(UsageError, match=r"both called 7\.3\.4-mine"):
        local_tree.distinct([str(built), str(built.parent / "other")])


@pytest.mark.parametrize(
    ("stated", "names"),
    [
        ("gcc (Debian 12.2.0-14) 12.2.0", ["gcc", "gcc-12"]),
        ("x86_64-linux-gnu-gcc-14 (Debian 14.2.0-19) 14.2.0", ["x86_64-linux-gnu-gcc-14", "gcc", "gcc-14"]),
        ("Debian clang version 19.1.7 (3)", ["clang", "clang-19"]),
    ],
)
def test_possible_names_of_a_compiler(stated, names):
    """Mutation: take the distribution's version for the compiler's."""
    assert host_toolchain.candidates(stated) == names


def test_another_compiler_is_refused_by_name(built, archive):
    """Mutation: build with whatever gcc is there."""
    kernel = Kernels(archive).get(str(built))
    with pytest.raises(SetupError) as error:
        host_toolchain.find(kernel, archive, ())
    assert "gcc (A 1) 12.2.0" in error.value.headline
    assert any(line.startswith("gcc: gcc ") for line in error.value.evidence)


def test_the_compiler_of_the_host_is_found(built, archive):
    """Find it under another name, too. Mutation: compare the names."""
    version = subprocess.run(["gcc", "--version"], capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )[0]
    option(built, f'CONFIG_CC_VERSION_TEXT="my-{version}"')
    tools = host_toolchain.find(Kernels(archive).get(str(built)), archive, ())
    assert tools.make == ("CC=gcc",)
    assert "usr/bin" in tools.folders and "usr/src" not in tools.folders
    assert (tools.root / "usr/src").is_dir()


def test_a_kernel_of_the_archive_has_no_tree():
    """Mutation: let an archive's kernel have a tree by default."""
    assert Kernel("7.3", "7.3.4", "7.3.4-1", None).tree is None
