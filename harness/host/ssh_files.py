"""Files to and from a host: whole and right, or not there.

An upload goes to NAME.DIGEST.part beside its name, so that what a cut left of the same content is gone on with, and
takes the name when its digest is right. paramiko keeps many writes in flight: the size alone proves nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

import paramiko

from harness.errors import SetupError
from harness.host.local import CommandError
from harness.host.ssh_connect import Deadline, closed_at

if TYPE_CHECKING:
    from harness.host.ssh import SshHost

BLOCK_BYTES = 32 << 10
"""What every sftp server takes in one request."""
REQUESTS = 64
_ATTEMPTS = 2


def put(host: SshHost, local: Path, remote: PurePosixPath, deadline: Deadline) -> None:
    """Upload `local` to the path `remote`, with its permissions."""
    try:
        digest = _digest(local)
    except OSError as error:
        raise SetupError(f"{local} cannot be read: {error.strerror}") from error
    if _remote_digest(host, remote, deadline) == digest:
        return
    part = PurePosixPath(f"{remote}.{digest[:16]}.part")
    mode = local.stat().st_mode & 0o777
    for _ in range(_ATTEMPTS):
        with _sftp(host, f"upload of {local.name}", deadline) as sftp:
            _upload(sftp, local, str(part))
            sftp.chmod(str(part), mode)
        if _remote_digest(host, part, deadline) == digest:
            host.run(["mv", "-f", "--", str(part), str(remote)], timeout_s=max(1, deadline.left))
            return
        # Begun by a cut that left something else: from nothing.
        host.run(["rm", "-f", "--", str(part)], timeout_s=max(1, deadline.left))
    raise SetupError(f"{host.target}: {remote} differs from {local} after the upload", [f"sha256 {digest}"])


def get(host: SshHost, remote: PurePosixPath, local: Path, deadline: Deadline) -> None:
    """Download the file `remote` to `local`."""
    digest = _remote_digest(host, remote, deadline)
    if not digest:
        raise SetupError(f"{host.target}: {remote} does not exist or cannot be read")
    part = local.with_name(f"{local.name}.{digest[:16]}.part")
    try:
        with _sftp(host, f"download of {remote}", deadline) as sftp, part.open("wb") as file:
            _download(sftp, str(remote), file)
        if _digest(part) != digest:
            raise SetupError(f"{host.target}: {remote} changed while it was downloaded", [f"sha256 {digest}"])
        part.replace(local)
    finally:
        part.unlink(missing_ok=True)


def _upload(sftp: paramiko.SFTPClient, local: Path, part: str) -> None:
    try:
        there = sftp.stat(part).st_size or 0
    except FileNotFoundError:
        there = 0
    size = local.stat().st_size
    resume = min(there, size) // BLOCK_BYTES * BLOCK_BYTES
    with local.open("rb") as file, sftp.open(part, "r+b" if there else "wb") as far:
        file.seek(resume)
        far.seek(resume)
        far.set_pipelined(True)
        while block := file.read(BLOCK_BYTES):
            far.write(block)
        far.truncate(size)


def _download(sftp: paramiko.SFTPClient, remote: str, file: BinaryIO) -> None:
    with sftp.open(remote, "rb") as far:
        far.prefetch(far.stat().st_size, REQUESTS)
        while block := far.read(BLOCK_BYTES):
            file.write(block)


def _check_deadline(host: SshHost, doing: str, deadline: Deadline) -> None:
    if deadline.over and host.connection.alive:
        raise SetupError(f"{host.target}: {doing} timed out after {deadline.seconds:g} s")


@contextlib.contextmanager
def _sftp(host: SshHost, doing: str, deadline: Deadline) -> Iterator[paramiko.SFTPClient]:
    """Open an sftp session; its errors become SetupError."""
    channel = host.connection.channel(deadline, doing)
    try:
        with closed_at(channel, deadline):
            channel.invoke_subsystem("sftp")
            sftp = paramiko.SFTPClient(channel)
    except (paramiko.SSHException, OSError, EOFError) as error:
        channel.close()
        if not host.connection.alive:
            raise host.connection.lost(doing) from error
        raise SetupError(
            f"{host.target}: no sftp there",
            [f"while: {doing}"],
            "Subsystem sftp internal-sftp in its sshd_config",
        ) from error
    try:
        with closed_at(channel, deadline):
            yield sftp
    except (paramiko.SSHException, EOFError, TimeoutError) as error:
        _check_deadline(host, doing, deadline)
        raise host.connection.lost(doing) from error
    except OSError as error:
        # "Socket is closed": at our deadline, or by the host.
        if channel.closed:
            _check_deadline(host, doing, deadline)
            raise host.connection.lost(doing) from error
        raise SetupError(
            f"{host.target}: {doing} failed: {error.strerror or error}", hint="disk full, or no permission?"
        ) from error
    finally:
        sftp.close()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remote_digest(host: SshHost, path: PurePosixPath, deadline: Deadline) -> str:
    """Return a remote file's sha256, empty if there is no such file."""
    script = f"[ -e {shlex.quote(os.fspath(path))} ] && exec sha256sum < {shlex.quote(os.fspath(path))}"
    finished = host.run(["sh", "-c", script], timeout_s=max(1, deadline.left), check=False)
    if finished.status == 1 and not finished.output:
        return ""
    if finished.status:
        raise CommandError(finished, f"exit status {finished.status}")
    return finished.output.split()[0]
