"""A mirror between us and the archive that cuts packages: apt notices, we say so, nothing half made stays."""

import shutil
import threading
import urllib.request
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from harness.debian import Archive
from harness.store import Store
from harness.tests.vm.conftest import harness

MOST_BYTES = 1 << 20


class Cutter(BaseHTTPRequestHandler):
    """Sends everything to the real archive but the packages, of which it hands out less than half.

    `honest` says so in the length that it announces; otherwise the connection ends before its time.
    """

    mirrors = None
    honest = True
    cut = 0
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with suppress(ConnectionError):  # apt hangs up at once when it is told a wrong size
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
            sent = min(whole // 2, MOST_BYTES)
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
def test_truncated_package_is_told_in_apts_words(session, tmp_path, honest):
    """Mutation: unpack what came, whatever apt said."""
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


def test_moved_cache_is_set_up_anew(session, tmp_path):
    """apt's own settings name the place of its lists. Mutation: call a copied root fresh: it reads the old one."""
    moved = tmp_path / "apt" / "root"
    shutil.copytree(session.archive.root, moved)
    archive = Archive(Store(tmp_path), session.host, session.options.mirror)
    assert archive.names("linux-image-") != []
    assert str(session.archive.root) not in (moved / "apt.conf").read_text()
