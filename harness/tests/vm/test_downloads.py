"""A mirror that truncates packages: apt notices, we report it, nothing incomplete is left."""

import shutil
import threading
import urllib.request
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from harness.debian import Archive
from harness.store import Store
from harness.tests.vm.conftest import harness

MAX_BYTES = 1 << 20


class Cutter(BaseHTTPRequestHandler):
    """Redirects to the real archive, except for packages, of which it sends less than half.

    If `honest`, the announced length is the truncated one; otherwise the connection ends early.
    """

    mirrors = None
    honest = True
    cut = 0
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with suppress(ConnectionError):  # apt closes the connection at once on a wrong size
            self._answer()

    def _answer(self):
        kind, _, rest = self.path.removeprefix("/").partition("/")
        base = self.mirrors.security if kind == "debian-security" else self.mirrors.main
        address = f"{base.rstrip('/')}/{rest}"
        if not self.path.endswith(".deb"):
            self.send_response(302)
            self.send_header("Location", address)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        with urllib.request.urlopen(address) as source:
            whole = int(source.headers["Content-Length"])
            sent = min(whole // 2, MAX_BYTES)
            self.send_response(200)
            self.send_header("Content-Length", str(sent if self.honest else whole))
            self.send_header("Connection", "close")
            self.end_headers()
            type(self).cut += 1
            self.wfile.write(source.read(sent))

    def log_message(self, *args):
        pass


@contextmanager
def cutter(mirrors, honest):
    handler = type("Handler", (Cutter,), {"mirrors": mirrors, "honest": honest})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/debian", handler
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("honest", [True, False], ids=["short", "broken-off"])
def test_a_truncated_package_is_an_error_with_apts_message(session, tmp_path, honest):
    """Mutation: unpack it in spite of apt's error."""
    with cutter(session.archive.mirrors(), honest) as (mirror, handler):
        result = harness(
            "kernel", "fetch", "newest", "--cache", tmp_path, "--mirror", mirror, no_proxy="127.0.0.1"
        )
    assert handler.cut >= 1, result.stderr
    assert result.returncode == 3, result.stderr
    assert "Traceback" not in result.stderr
    assert "cannot be fetched" in result.stderr
    assert "E: Failed to fetch" in result.stderr
    assert not honest or "unexpected size" in result.stderr
    assert "--mirror" in result.stderr
    assert not (tmp_path / "kernel").is_dir() or list((tmp_path / "kernel").iterdir()) == []
    assert list((tmp_path / "runs").iterdir()) == []
    assert list(tmp_path.rglob("*.deb")) == []


def test_a_moved_cache_is_set_up_again(session, tmp_path):
    """Copy a root whose apt.conf has the old path. Mutation: take it for fresh: apt reads the old lists."""
    moved = tmp_path / "apt" / "root"
    shutil.copytree(session.archive.root, moved)
    archive = Archive(Store(tmp_path), session.host, session.options.mirror)
    assert archive.names("linux-image-") != []
    assert str(session.archive.root) not in (moved / "apt.conf").read_text()
