import pytest

from harness.errors import UsageError
from harness.kernel.build import messages_of, sources_of


def test_messages_name_the_users_file(tmp_path):
    """Mutation: leave /build/ in the path, which does not exist on the host."""
    (tmp_path / "own.c").touch()
    output = "  CC [M]  /build/own.o\n/build/own.c:7:3: error: x undeclared\n"
    output += "own.c:8: warning: y\nmake: *** [z] Error 2\n"
    assert messages_of(output, tmp_path) == [
        f"{tmp_path}/own.c:7: error: x undeclared",
        f"{tmp_path}/own.c:8: warning: y",
    ]


def test_built_files_are_not_sources(tmp_path):
    """Build the same module from a folder that was built by hand. Mutation: take *.mod.c."""
    for name in ("Kbuild", "a.c", "a.h", "a.mod.c", "a.o", ".a.o.cmd", "a.ko"):
        (tmp_path / name).touch()
    assert sorted(sources_of(tmp_path)) == ["Kbuild", "a.c", "a.h"]
    (tmp_path / "Kbuild").unlink()
    with pytest.raises(UsageError, match="neither Kbuild nor Makefile"):
        sources_of(tmp_path)
