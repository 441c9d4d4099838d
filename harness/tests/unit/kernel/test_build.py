import pytest

from harness.debian import Archive
from harness.errors import Unsupported, UsageError
from harness.kernel.build import messages_of, sources_of
from harness.kernel.toolchain import compiler_of


@pytest.mark.parametrize(
    "stated, found",
    [
        ('"gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0"', ("gcc-12", "12.2.0-14+deb12u1")),
        ('"x86_64-linux-gnu-gcc-16 (Debian 16.2.0-4) 16.2.0"', ("gcc-16", "16.2.0-4")),
    ],
)
def test_kernel_states_its_compiler(stated, found):
    """Mutation: take the last number, which is the upstream version."""
    assert compiler_of(f"CONFIG_X=y\nCONFIG_CC_VERSION_TEXT={stated}\n") == found


def test_other_compilers_are_said():
    with pytest.raises(Unsupported) as caught:
        compiler_of('CONFIG_CC_VERSION_TEXT="clang version 19.1.7"')
    assert "clang" in caught.value.evidence[0]


def test_messages_name_the_users_file(tmp_path):
    """Mutation: keep /build/, which is nowhere on this machine."""
    (tmp_path / "own.c").touch()
    output = "  CC [M]  /build/own.o\n/build/own.c:7:3: error: x undeclared\n"
    output += "own.c:8: warning: y\nmake: *** [z] Error 2\n"
    assert messages_of(output, tmp_path) == [
        f"{tmp_path}/own.c:7: error: x undeclared",
        f"{tmp_path}/own.c:8: warning: y",
    ]


def test_what_was_built_is_no_source(tmp_path):
    """A folder that was built by hand gives the same module. Mutation: take *.mod.c."""
    for name in ("Kbuild", "a.c", "a.h", "a.mod.c", "a.o", ".a.o.cmd", "a.ko"):
        (tmp_path / name).touch()
    assert sorted(sources_of(tmp_path)) == ["Kbuild", "a.c", "a.h"]
    (tmp_path / "Kbuild").unlink()
    with pytest.raises(UsageError, match="neither Kbuild nor Makefile"):
        sources_of(tmp_path)


MADISON = """\
    gcc-12 |   12.4.0-5 | MIRROR trixie/main amd64 Packages
    gcc-12 | 12.2.0-14+deb12u1 | MIRROR bookworm/main amd64 Packages
"""


def test_offers_have_their_suite(monkeypatch):
    """Mutation: sort them."""
    archive = Archive.__new__(Archive)
    archive.refresh = lambda: None
    archive._env = dict
    archive.host = type("Host", (), {"run": lambda *a, **k: type("Done", (), {"output": MADISON})})()
    assert list(archive.offers("gcc-12").items()) == [
        ("12.4.0-5", "trixie"),
        ("12.2.0-14+deb12u1", "bookworm"),
    ]
