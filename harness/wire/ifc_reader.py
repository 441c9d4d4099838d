"""Read `mlx5_ifc.h`: C text in, plain tables out. Used through `ifc.load`.

The header describes bits as bytes: `u8 name[0x10]` is a field of 16 bits, `u8 name[4][0x20]` four of 32,
`u8 name[][0x40]` an open array of 64 each. Ref: Linux 7.2 include/linux/mlx5/mlx5_ifc.h.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Iterable
from typing import Any, Callable, NamedTuple, NoReturn, Optional

from harness.errors import SetupError

VERSION = "1"
"""Part of the cache's key: raise it when the tables change their meaning."""


class Member(NamedTuple):
    """A field of a structure: offset and width of one element in bits, structure in it, number of elements.

    `elements` is None for a plain field and 0 for an open array.
    """

    offset: int
    width: int
    type: Optional[str]
    elements: Optional[int]


Structures = dict[str, tuple[int, dict[str, Member]]]

_TYPE = r"(?:struct|union)\s+\w+|u8|__be16|__be32|__be64"
_STATEMENT = re.compile(
    rf"""\s*(?:
      (?P<field>u8|__be16|__be32|__be64)\s+(?P<field_name>\w+)\s*(?P<field_dims>(?:\[[^\]]*\]\s*)*);
    | (?P<held>struct|union)\s+(?P<held_type>\w+)\s+(?P<held_name>\w+)\s*(?P<held_dims>(?:\[[^\]]*\]\s*)*);
    | (?P<open>struct|union)\s*(?P<open_tag>\w*)\s*\{{
    | (?P<close>\}})\s*(?P<close_name>\w*)\s*(?P<close_dims>(?:\[[^\]]*\]\s*)*);
    | (?P<enum>enum)\s*\w*\s*\{{(?P<enum_body>[^}}]*)\}}\s*;
    | (?P<flex>DECLARE_FLEX_ARRAY)\s*\(\s*(?P<flex_type>{_TYPE})\s*,\s*(?P<flex_name>\w+)\s*\)\s*;
    | (?P<forward>struct|union)\s+\w+\s*;
    | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_DIMENSION = re.compile(r"\[([^\]]*)\]")
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_DIRECTIVE = re.compile(r"^[ \t]*#[ \t]*(\w+)((?:\\\n|[^\n])*)", re.MULTILINE)
_SUFFIX = re.compile(r"\b(0[xX][0-9a-fA-F]+|\d+)[uUlL]+\b")
_BYTE_WORDS = {"__be16": 0x10, "__be32": 0x20, "__be64": 0x40}
_OPERATORS: dict[type, Callable[[int, int], int]] = {
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitOr: operator.or_,
    ast.BitAnd: operator.and_,
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}


class _Open:
    """A structure whose closing brace has not come yet."""

    def __init__(self, union: bool, name: str) -> None:
        self.union = union
        self.name = name
        self.size = 0
        self.members: dict[str, Member] = {}

    def add(self, name: str, width: int, type_name: Optional[str], count: Optional[int]) -> None:
        self.members[name] = Member(
            self._place(width * (1 if count is None else count)), width, type_name, count
        )

    def merge(self, inner: _Open) -> None:
        """Take over the fields of an anonymous structure."""
        base = self._place(inner.size)
        for name, member in inner.members.items():
            self.members[name] = member._replace(offset=base + member.offset)

    def _place(self, size: int) -> int:
        if self.union:
            self.size = max(self.size, size)
            return 0
        self.size += size
        return self.size - size


class _Reader:
    """State of one pass over the headers."""

    def __init__(self) -> None:
        self.structures: Structures = {}
        self.values: dict[str, int] = {}
        self._file = ""
        self._text = ""
        self._at = 0
        self._open: list[_Open] = []

    def read(self, file: str, text: str) -> None:
        self._file, self._at = file, 0
        text = _COMMENT.sub(_blank, text)
        self._text = text
        self._text = _DIRECTIVE.sub(self._directive, text)
        end = False
        while not end:
            match = _STATEMENT.match(self._text, self._at)
            if match is None:
                self._refuse()
            end = match.lastgroup == "end"
            self._statement(match)
            self._at = match.end()
        if self._open:
            self._refuse(f"{self._open[-1].name} is not closed")

    def _refuse(self, why: str = "") -> NoReturn:
        start = self._at + len(self._text[self._at :]) - len(self._text[self._at :].lstrip())
        line = self._text.count("\n", 0, start) + 1
        seen = self._text[start:].split("\n", 1)[0].strip()
        raise SetupError(
            f"{self._file}:{line}: the layout reader does not know this construct",
            evidence=[text for text in (seen, why) if text],
            hint="report it with the line; no layout of this kernel can be trusted until it is read",
        )

    def _directive(self, match: re.Match[str]) -> str:
        kind, rest = match[1], match[2].replace("\\\n", " ").strip()
        if kind == "define":
            name, _, expression = rest.partition(" ")
            if expression.strip() and "(" not in name:
                self.values[name] = self._evaluate(expression, match.start())
        elif kind not in ("ifndef", "endif", "include"):
            self._at = match.start()
            self._refuse("only an include guard, #include and #define are expected")
        return _blank(match)

    def _evaluate(self, expression: str, at: Optional[int] = None) -> int:
        text = expression.strip()
        try:
            return int(text, 0)
        except ValueError:
            pass
        try:
            return self._compute(ast.parse(_SUFFIX.sub(r"\1", text), mode="eval").body)
        except (SyntaxError, ValueError, KeyError):
            self._at = self._at if at is None else at
            self._refuse(f"cannot compute {text!r}")

    def _compute(self, node: Any) -> int:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, ast.Name):
            return self.values[node.id]
        if isinstance(node, ast.BinOp):
            return _OPERATORS[type(node.op)](self._compute(node.left), self._compute(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -self._compute(node.operand)
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("BIT", "BIT_ULL")
        ):
            return 1 << self._compute(node.args[0])
        raise ValueError(ast.dump(node))

    def _statement(self, match: re.Match[str]) -> None:
        kind = (
            match["field"]
            or match["held"]
            or match["open"]
            or match["close"]
            or match["enum"]
            or match["flex"]
        )
        if match["field"]:
            self._add_words(kind, match["field_name"], match["field_dims"])
        elif match["held"]:
            self._add_held(match["held_type"], match["held_name"], match["held_dims"])
        elif match["open"]:
            self._open.append(_Open(kind == "union", _short(match["open_tag"])))
        elif match["close"]:
            self._close(match["close_name"], match["close_dims"])
        elif match["enum"]:
            self._enum(match["enum_body"])
        elif match["flex"]:
            base = match["flex_type"].split()
            if len(base) == 2:
                self._add_held(base[1], match["flex_name"], "[]")
            else:
                self._add_words(base[0], match["flex_name"], "[]")

    def _parent(self) -> _Open:
        if not self._open:
            self._refuse("a field outside a structure")
        return self._open[-1]

    def _dims(self, text: str) -> list[int]:
        return [self._evaluate(part) if part.strip() else 0 for part in _DIMENSION.findall(text)]

    def _add_words(self, kind: str, name: str, dims: str) -> None:
        sizes = self._dims(dims)
        width = _BYTE_WORDS.get(kind)
        # u8: the last dimension is the field's width in bits; an open one counts single bits
        if width is None:
            if not sizes:
                self._refuse("u8 without a width")
            width = sizes.pop()
            if not width:
                width, sizes = 1, [0]
        if len(sizes) > 1:
            self._refuse("more dimensions than known")
        self._parent().add(name, width, None, sizes[0] if sizes else None)

    def _add_held(self, type_name: str, name: str, dims: str) -> None:
        held = _short(type_name)
        if held not in self.structures:
            self._refuse(f"{type_name} is not defined before")
        sizes = self._dims(dims)
        if len(sizes) > 1:
            self._refuse("more dimensions than known")
        self._parent().add(name, self.structures[held][0], held, sizes[0] if sizes else None)

    def _close(self, name: str, dims: str) -> None:
        if not self._open:
            self._refuse("a brace too many")
        done = self._open.pop()
        sizes = self._dims(dims)
        if not self._open:
            if name or sizes or not done.name:
                self._refuse("a variable or a structure without a name")
            self.structures[done.name] = (done.size, done.members)
        elif name:
            own = done.name or f"{self._open[-1].name}.{name}"
            self.structures[own] = (done.size, done.members)
            self._open[-1].add(name, done.size, own, sizes[0] if sizes else None)
        else:
            self._open[-1].merge(done)

    def _enum(self, body: str) -> None:
        following = 0
        for item in body.split(","):
            name, equals, expression = item.partition("=")
            if not name.strip():
                continue
            value = self._evaluate(expression) if equals else following
            self.values[name.strip()] = value
            following = value + 1


def _short(tag: str) -> str:
    name = tag[len("mlx5_ifc_") :] if tag.startswith("mlx5_ifc_") else tag
    return name[: -len("_bits")] if name.endswith("_bits") else name


def _blank(match: re.Match[str]) -> str:
    return "\n" * match[0].count("\n")


def read_headers(texts: Iterable[tuple[str, str]]) -> tuple[Structures, dict[str, int]]:
    """Read `(file name, text)` pairs in order; return structures and named values."""
    reader = _Reader()
    for file, text in texts:
        reader.read(file, text)
    return reader.structures, reader.values
