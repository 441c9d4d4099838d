import time

import pytest

from harness.errors import SetupError
from harness.tests.unit.wire import kernels
from harness.wire import ifc
from harness.wire.ifc_reader import read_headers

SMALL = """
#ifndef X
#define X
#define COUNT (2)
/* a comment; struct in it { */
enum { A = 0x10, B, C = 1 << 3, D = BIT(4) | 1ULL, };
struct mlx5_ifc_inner_bits {
	u8         low[0x4];
	u8         high[0xc];
};
union mlx5_ifc_either_bits {
	struct mlx5_ifc_inner_bits inner;
	u8         whole[0x20];
};
struct mlx5_ifc_outer_bits {
	u8         reserved_at_0[0x10];
	struct mlx5_ifc_inner_bits one;
	union {
		u8 left[0x8];
		struct {
			u8 gap[0x8];
			u8 right[0x8];
		};
	};
	struct {
		u8 deep[0x8];
	} named;
	struct mlx5_ifc_inner_bits some[COUNT];
	u8         bytes[3][0x8];
	union {
		DECLARE_FLEX_ARRAY(struct mlx5_ifc_inner_bits, loose);
	};
	__be64 pas[];
};
#endif
"""


@pytest.fixture
def small():
    return ifc.Layouts(*read_headers([("small.h", SMALL)]))


def test_offsets_count_from_the_most_significant_bit(small):
    """Mutation: add up the members of a union; `right` moves."""
    outer = small["outer"]
    places = {
        name: outer.slot(name)[:2]
        for name in ("one.low", "one.high", "left", "right", "named.deep", "some[1].high")
    }
    assert places == {
        "one.low": (0x10, 4),
        "one.high": (0x14, 12),
        "left": (0x20, 8),
        "right": (0x28, 8),
        "named.deep": (0x30, 8),
        "some[1].high": (0x4C, 12),
    }
    assert outer.slot("bytes[2]")[:2] == (0x68, 8) and outer.slot("bytes").width == 24
    assert outer.slot("pas").offset == 0x70 and outer.slot("pas[2]").offset == 0x70 + 128
    assert outer.slot("loose[1].high").offset == 0x84
    assert outer.size == 14


def test_views_read_and_write_only_their_bits(small):
    """Mutation: do not preserve the other bits in View.__setitem__."""
    view = small["outer"].new(extra=16)
    view["one.high"] = 0xABC
    view["one.low"] = 0xF
    view["some[1].low"] = 1
    assert bytes(view.data[:4]) == b"\0\0\xfa\xbc"
    assert view.at("some[1]")["low"] == 1 and view["one.high"] == 0xABC
    assert len(view.bytes("pas")) == 16 and bytes(view.bytes("bytes")) == bytes(3)
    assert view.nonzero() == {"one.low": 15, "one.high": 0xABC}


def test_values_of_enums_and_defines(small):
    """Mutation: do not count on from the last value of an enum."""
    assert [small.value(name) for name in ("A", "B", "C", "D", "COUNT")] == [0x10, 0x11, 8, 0x11, 2]


def test_a_value_too_wide_and_a_buffer_too_short_are_refused(small):
    """Mutation: drop the length check; a short buffer reads as a small number."""
    with pytest.raises(ValueError, match="4 bits"):
        small["inner"].new()["low"] = 16
    with pytest.raises(ifc.ShortBuffer, match="outer.named.deep"):
        small["outer"].view(bytearray(4))["named.deep"]


@pytest.mark.parametrize(
    ("look", "words"),
    [
        (lambda known: known["outr"], ["outr", "nearest: outer"]),
        (lambda known: known["outer"].slot("one.lw"), ["inner", "lw", "nearest: low"]),
        (lambda known: known.value("E"), ["'E'"]),
        (lambda known: known["outer"].slot("some[2]"), ["no element 2"]),
    ],
)
def test_a_missing_name_is_reported_with_similar_names(small, look, words):
    """Mutation: leave out the hint."""
    with pytest.raises(ifc.UnknownName) as caught:
        look(small)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("struct mlx5_ifc_x_bits {\n\tu8 a[0x8];\n\tint b;\n};\n", 3),
        ("/* two\nlines */\nstruct mlx5_ifc_x_bits {\n\tstruct mlx5_ifc_later_bits b;\n};\n", 4),
        ("\n#if X\n#endif\n", 2),
        ("enum {\n\tA = sizeof(int),\n};\n", 1),
        ("struct mlx5_ifc_x_bits {\n\tu8 a[0x8];\n", 3),
        ("u8 lost[0x8];\n", 1),
        ("struct mlx5_ifc_x_bits {\n\tu8 a[2][2][0x8];\n};\n", 2),
        ("typedef u8 word;\n", 1),
    ],
)
def test_an_unknown_construct_names_file_and_line(text, line):
    """Mutation: let the reader skip to the next semicolon."""
    with pytest.raises(SetupError, match=rf"odd\.h:{line}: "):
        read_headers([("odd.h", text)])


def test_a_missing_header_hints_at_its_package(tmp_path):
    """Mutation: let OSError through."""
    with pytest.raises(SetupError, match="headers package"):
        ifc.load(tmp_path)


def test_the_cache_is_keyed_by_the_headers(tmp_path):
    """Mutation: leave the text out of the digest; the second header gives the layouts of the first."""
    header = tmp_path / "a.h"
    header.write_text(SMALL)
    first, second = (ifc.load_headers([header], cache=tmp_path / "cache") for _ in range(2))
    assert first["outer"].slot("some[1].high") == second["outer"].slot("some[1].high")
    assert first.values == second.values
    header.write_text(SMALL.replace("0x4", "0x8"))
    assert ifc.load_headers([header], cache=tmp_path / "cache")["inner"].slot("high").offset == 8


def test_a_damaged_cache_is_replaced(tmp_path):
    """Mutation: let the JSON error through."""
    header = tmp_path / "a.h"
    header.write_text(SMALL)
    ifc.load_headers([header], cache=tmp_path)
    stored = next(tmp_path.glob("ifc-*.json"))
    stored.write_text(stored.read_text()[:100])
    assert ifc.load_headers([header], cache=tmp_path)["outer"].size == 14
    assert len(stored.read_text()) > 100


@kernels.each_kernel
def test_every_structure_of_a_kernel_resolves(kernel):
    """Check reserved fields, which have their offset in their name. Mutation: count bits from the other end."""
    known = kernels.layouts(kernel)
    assert len(known) > 600
    wrong, right = [], 0
    for name in known.names():
        for member, place in known[name].members.items():
            if member.startswith("reserved_at_"):
                stated = member.removeprefix("reserved_at_")
                if stated.isalnum() and int(stated, 16) == place.offset:
                    right += 1
                else:
                    wrong.append((name, member, hex(place.offset)))
    assert right > 2000
    assert len(wrong) < right / 10  # the kernel has typing errors and nested structures that count from 0


@kernels.each_kernel
def test_layouts_equal_those_of_the_compiler(kernel):
    """Compare with BTF of mlx5_core and mlx5_ib, which have the same structures; a byte there is a bit here.

    Mutation: count an anonymous union's size as the sum of its members.
    """
    known, fields = kernels.layouts(kernel), 0
    for types in kernels.btf(kernel):
        for tag in types.structures:
            if not tag.startswith("mlx5_ifc_") or not tag.endswith("_bits"):
                continue
            name = tag[len("mlx5_ifc_") : -len("_bits")]
            if name not in known:  # the module's own structures, of other headers
                continue
            layout = known[name]
            for path, (offset, size) in types.members(tag).items():
                if "__empty_" in path:  # left by DECLARE_FLEX_ARRAY
                    continue
                slot = layout.slot(path)
                assert slot.offset == offset, (tag, path)
                assert slot.elements == 0 or slot.width == size, (tag, path)
                fields += 1
    assert fields > 500


@kernels.each_kernel
def test_reading_is_fast(kernel, tmp_path):
    """Measure the CPU time in ms, cold and cached, with a margin (aims: 60 and 10). Mutation: drop the cache."""
    include = ifc.find(kernel)[0].parents[2]
    took = []
    for _ in range(4):
        start = time.process_time()
        ifc.load(include, cache=tmp_path)
        took.append(1e3 * (time.process_time() - start))
    assert took[0] < 400 and min(took[1:]) < 40
