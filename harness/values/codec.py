"""Frozen dataclasses to JSON and back, strictly.

A value that stands at the top of a message carries `VERSION`; reading a message of another version, with an
unknown or a missing key, or with a value of the wrong type raises `DecodeError` with the path of the key.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import typing
from typing import Any, Dict, Type, TypeVar

T = TypeVar("T")


class DecodeError(ValueError):
    """A message that does not match its type; `path` is the key, as `answer.trace.lost`."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


def to_plain(value: Any) -> Any:
    """Turn a value into dicts, lists and scalars; fields keep their names."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        plain: Dict[str, Any] = {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if hasattr(value, "VERSION"):
            plain["version"] = value.VERSION
        return plain
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    return value


def from_plain(cls: Type[T], plain: Any, path: str = "") -> T:
    """Build a `cls` from what `to_plain` made of one."""
    path = path or cls.__name__.lower()
    if not isinstance(plain, dict):
        raise DecodeError(path, f"expected an object, got {type(plain).__name__}")
    rest = dict(plain)
    expected = getattr(cls, "VERSION", None)
    if expected is not None:
        version = rest.pop("version", None)
        if version != expected:
            raise DecodeError(path, f"version {version}, this harness reads {expected}")
    hints = _hints(typing.cast(Any, cls))
    values: Dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.name in rest:
            values[field.name] = _convert(hints[field.name], rest.pop(field.name), f"{path}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise DecodeError(f"{path}.{field.name}", "missing")
    if rest:
        raise DecodeError(f"{path}.{sorted(rest)[0]}", "unknown key")
    return cls(**values)


def dumps(value: Any) -> str:
    """Write one line of JSON."""
    return json.dumps(to_plain(value), separators=(",", ":"), sort_keys=True)


def loads(cls: Type[T], text: str) -> T:
    """Read one line of JSON as a `cls`."""
    try:
        plain = json.loads(text)
    except ValueError as error:
        raise DecodeError(cls.__name__.lower(), f"not JSON: {error}") from error
    return from_plain(cls, plain)


@functools.lru_cache(maxsize=None)
def _hints(cls: Any) -> Dict[str, Any]:
    """Resolve annotations once per class: it is most of the cost of reading a record."""
    return typing.get_type_hints(cls)


def _convert(hint: Any, plain: Any, path: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is tuple:
        return _convert_tuple(typing.get_args(hint), plain, path)
    if origin is dict:
        if not isinstance(plain, dict):
            raise DecodeError(path, "expected an object")
        item_hint = typing.get_args(hint)[1]
        return {key: _convert(item_hint, item, f"{path}.{key}") for key, item in plain.items()}
    if origin is typing.Union:
        if plain is None:
            return None
        return _convert(next(a for a in typing.get_args(hint) if a is not type(None)), plain, path)
    if dataclasses.is_dataclass(hint):
        return from_plain(typing.cast(Any, hint), plain, path)
    return _convert_scalar(hint, plain, path)


def _convert_tuple(args: Any, plain: Any, path: str) -> Any:
    if not isinstance(plain, list):
        raise DecodeError(path, "expected a list")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_convert(args[0], item, f"{path}[{i}]") for i, item in enumerate(plain))
    if len(args) != len(plain):
        raise DecodeError(path, f"expected {len(args)} items, got {len(plain)}")
    return tuple(_convert(arg, item, f"{path}[{i}]") for i, (arg, item) in enumerate(zip(args, plain)))


def _convert_scalar(hint: Any, plain: Any, path: str) -> Any:
    if hint is Any:
        return plain
    if hint is float and isinstance(plain, int) and not isinstance(plain, bool):
        return float(plain)
    if not isinstance(plain, hint) or (hint is int and isinstance(plain, bool)):
        raise DecodeError(path, f"expected {hint.__name__}, got {plain!r}")
    return plain
