"""The far side's agent: what is shipped there, how an order is offered, how its reply is read.

An order is offered as a text of fixed size: eight digits and a newline, then one line of JSON, then spaces. The
size is fixed because a restored machine finds it in the place of the one it was saved with. Replies are lines
of JSON.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from harness.errors import SetupError
from harness.values import codec
from harness.values.answer import Reply
from harness.values.case import Request

REQUEST_BYTES = 64 << 10
ROOMS = ("guest", "values", "wire")
SUFFIXES = (".py", ".c")


def bundle() -> dict[str, bytes]:
    """What travels: path below the far side's Python path, and content.

    The rooms that run there and the host's own pyroute2 (pure Python).
    """
    here = Path(__file__).parent
    files = {"harness/__init__.py": (here / "__init__.py").read_bytes()}
    for room in ROOMS:
        files.update(_tree(here / room, f"harness/{room}"))
    spec = importlib.util.find_spec("pyroute2")
    if spec is None or spec.origin is None:
        raise SetupError("pyroute2 is not installed", hint="pip install pyroute2")
    files.update(_tree(Path(spec.origin).parent, "pyroute2"))
    return files


def _tree(root: Path, name: str) -> dict[str, bytes]:
    return {
        f"{name}/{path.relative_to(root)}": path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.suffix in SUFFIXES and "__pycache__" not in path.parts
    }


def encode_request(request: Request) -> bytes:
    """The order as the agent reads it, exactly REQUEST_BYTES long."""
    text = f"{request.number:08d}\n{codec.dumps(request)}\n".encode()
    if len(text) > REQUEST_BYTES:
        raise SetupError(f"order {request.number} has {len(text)} bytes, the channel carries {REQUEST_BYTES}")
    return text.ljust(REQUEST_BYTES)


def checked(reply: Reply) -> Reply:
    """Return the reply; SetupError if the agent could not carry out the request."""
    if not reply.ok:
        raise SetupError(f"the agent failed: {reply.problem}", reply.output.splitlines()[-10:])
    return reply


def decode_replies(text: str) -> Iterator[Reply]:
    """Whole lines of a reply stream, as replies; a line that is not one raises SetupError."""
    lines = text.split("\n")[:-1]
    for line in filter(None, (line.strip() for line in lines)):
        try:
            yield codec.loads(Reply, line)
        except codec.DecodeError as error:
            raise SetupError("the agent sent something that is no reply", [str(error), line[:400]]) from error
