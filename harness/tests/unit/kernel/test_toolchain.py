import pytest

from harness.errors import Unsupported
from harness.kernel.toolchain import compiler_of


@pytest.mark.parametrize(
    "stated, compiler",
    [
        ('"gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0"', ("gcc-12", "12.2.0-14+deb12u1")),
        ('"x86_64-linux-gnu-gcc-16 (Debian 16.2.0-4) 16.2.0"', ("gcc-16", "16.2.0-4")),
    ],
)
def test_kernel_states_its_compiler(stated, compiler):
    """Mutation: take the last number, which is the upstream version."""
    assert compiler_of(f"CONFIG_X=y\nCONFIG_CC_VERSION_TEXT={stated}\n") == compiler


def test_another_compiler_is_unsupported():
    """Mutation: take any version text for a Debian gcc."""
    with pytest.raises(Unsupported) as caught:
        compiler_of('CONFIG_CC_VERSION_TEXT="clang version 19.1.7"')
    assert "clang" in caught.value.evidence[0]
