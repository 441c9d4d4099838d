"""The host's end of the guest agent: files to ship, requests to encode, replies to decode.

A request is a text of fixed size: eight digits and a newline, then one line of JSON, then spaces. The size is fixed
because a restored machine reads it in place of the request with which it was saved. Replies are lines of JSON.
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
PACKAGES = ("guest", "values", "wire")
SUFFIXES = (".py", ".c")


def bundle() -> dict[str, bytes]:
    """Return the files to ship, by path below the target's Python path: our packages and the host's pyroute2."""
    here = Path(__file__).parent
    files = {"harness/__init__.py": (here / "__init__.py").read_bytes()}
    for package in PACKAGES:
        files.update(_tree(here / package, f"harness/{package}"))
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
    """Encode a request for the agent, exactly REQUEST_BYTES long."""
    text = f"{request.number:08d}\n{codec.dumps(request)}\n".encode()
    if len(text) > REQUEST_BYTES:
        raise SetupError(
            f"request {request.number} has {len(text)} bytes, the channel carries {REQUEST_BYTES}"
        )
    return text.ljust(REQUEST_BYTES)


def checked(reply: Reply) -> Reply:
    """Return the reply; SetupError if the agent could not carry out the request."""
    if not reply.ok:
        raise SetupError(f"the agent failed: {reply.problem}", reply.output.splitlines()[-10:])
    return reply


def decode_replies(text: str) -> Iterator[Reply]:
    """Decode the whole lines of a reply stream; a line that is no reply raises SetupError."""
    lines = text.split("\n")[:-1]
    for line in filter(None, (line.strip() for line in lines)):
        try:
            yield codec.loads(Reply, line)
        except codec.DecodeError as error:
            raise SetupError("the agent sent something that is no reply", [str(error), line[:400]]) from error
