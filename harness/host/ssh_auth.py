"""Authenticate by public key: identity files, their certificates, ssh-agent; a passphrase is asked for once.

sshd ends a connection after a few keys (MaxAuthTries, 6), so the configured keys come first.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import paramiko
from paramiko.agent import AgentSSH

from harness.errors import SetupError
from harness.host.ssh_config import Target

AGENT_TIMEOUT_S = 30
"""Some agents ask the user."""

_NAME_OF_SOCKET = "SSH_AUTH_SOCK"


class Passphrases:
    """Ask for a key's passphrase, once a file; `ask` is getpass on a terminal, else nobody is asked."""

    def __init__(self, ask: Callable[[str], str] | None = None) -> None:
        self._ask = ask or (getpass.getpass if sys.stdin.isatty() else None)
        self._known: dict[Path, str] = {}

    def get(self, path: Path) -> str | None:
        """Return the passphrase of a key file, None where there is nobody to ask."""
        if path not in self._known and self._ask:
            self._known[path] = self._ask(f"Passphrase for {path}: ")
        return self._known.get(path)


class _Agent(AgentSSH):
    """An ssh-agent at a socket of ours to choose; one that hangs ends in TimeoutError."""

    def __init__(self, path: str) -> None:
        super().__init__()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(AGENT_TIMEOUT_S)
        connection.connect(path)
        self._socket = connection
        self._connect(connection)  # type: ignore[attr-defined]

    def close(self) -> None:
        """End it; its keys sign no more."""
        self._socket.close()


def authenticate(transport: paramiko.Transport, target: Target, passphrases: Passphrases) -> None:
    """Try key after key; SetupError that says what was tried with what result."""
    tried: list[str] = []
    with contextlib.ExitStack() as agents:
        _try_all(transport, target, _keys(target, passphrases, tried, agents), tried)


def _try_all(
    transport: paramiko.Transport, target: Target, keys: Iterable[tuple[str, paramiko.PKey]], tried: list[str]
) -> None:
    for name, key in keys:
        try:
            further = transport.auth_publickey(target.user, key)
        except paramiko.BadAuthenticationType as error:
            raise SetupError(
                f"{target}: the host takes no public keys", [f"it takes {', '.join(error.allowed_types)}"]
            ) from error
        except paramiko.AuthenticationException as error:
            tried.append(f"{name}: {str(error).rstrip('.') or 'refused'}")
            if not transport.is_active():
                tried.append("the host ended the connection (MaxAuthTries?)")
                break
            continue
        except paramiko.SSHException as error:
            tried.append(f"{name}: {error}")
            break
        if not further:
            return
        raise SetupError(
            f"{target}: {name} is accepted, but the host wants {' or '.join(further)} besides",
            hint="a user who logs in by key alone",
        )
    raise SetupError(
        f"{target}: no key of ours is accepted",
        tried or ["no key was found: no identity file exists and no ssh-agent answers"],
        f"ssh-copy-id {'' if target.port == 22 else f'-p {target.port} '}{target.user}@{target.hostname}, "
        "or IdentityFile and IdentitiesOnly in ~/.ssh/config",
    )


def _keys(
    target: Target, passphrases: Passphrases, tried: list[str], agents: contextlib.ExitStack
) -> Iterator[tuple[str, paramiko.PKey]]:
    """Yield keys in the order of trying, named; problems with a key go to `tried`.

    The order is: the agent's keys that are also identity files, files without a passphrase, other keys of the agent
    (not with IdentitiesOnly), files with a passphrase.
    """
    agent = _agent_keys(target, tried, agents)
    files = [path for path in target.identities if path.is_file()]
    blobs = {blob for path in target.identities for blob in _public_blobs(path)}
    blobs |= {blob for path in target.certificates for blob in _public_blobs(path)}
    for key in agent:
        if key.blob in blobs:
            yield f"agent's key {key.fingerprint}", key
    locked: list[Path] = []
    for path in files:
        try:
            yield from _with_certificates(path, paramiko.PKey.from_path(path), target)
        except (paramiko.PasswordRequiredException, TypeError):
            locked.append(path)
        except Exception as error:  # a broken file gives any error of cryptography or paramiko
            tried.append(f"{path}: not readable: {error}")
    for key in agent:
        if key.blob not in blobs and not target.identities_only:
            yield f"agent's key {key.fingerprint}", key
    for path in locked:
        yield from _unlocked(path, target, passphrases, tried)


def _unlocked(
    path: Path, target: Target, passphrases: Passphrases, tried: list[str]
) -> Iterator[tuple[str, paramiko.PKey]]:
    phrase = passphrases.get(path)
    if phrase is None:
        tried.append(f"{path}: has a passphrase, and there is no terminal to ask for it: ssh-add {path}")
        return
    key: paramiko.PKey | None = None
    # PKey.from_path of paramiko 5.1 takes no passphrase that is text.
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        with contextlib.suppress(Exception):  # of another type: any error of cryptography or paramiko
            key = kind.from_private_key_file(str(path), phrase)
            break
    if key is None:
        tried.append(f"{path}: wrong passphrase, or not a key")
        return
    with contextlib.suppress(OSError, ValueError):
        key.load_certificate(f"{path}-cert.pub")
    yield from _with_certificates(path, key, target)


def _with_certificates(path: Path, key: paramiko.PKey, target: Target) -> Iterator[tuple[str, paramiko.PKey]]:
    """Yield the key with its certificate (FILE-cert.pub, or a CertificateFile), then alone."""
    beside = key.public_blob
    for certificate in target.certificates if not beside else ():
        try:
            key.load_certificate(str(certificate))
        except (OSError, ValueError):
            continue
        if _is_for(key):
            break
        key.public_blob = None
    if key.public_blob:
        yield f"{path} with its certificate", key
        key.public_blob = None
    yield str(path), key


def _is_for(key: paramiko.PKey) -> bool:
    """Say if a certificate holds this key: its blob holds the key's own numbers."""
    if key.public_blob is None:
        return False
    # Both begin with the type as a string; the key's own fields stand in the certificate as they are.
    name_bytes = 4 + len(key.get_name())
    return key.asbytes()[name_bytes:] in key.public_blob.key_blob


def _public_blobs(path: Path) -> list[bytes]:
    """Read the public halves beside an identity file, or a certificate itself."""
    found = []
    for name in (path, Path(f"{path}.pub"), Path(f"{path}-cert.pub")):
        try:
            found.append(paramiko.pkey.PublicBlob.from_file(str(name)).key_blob)
        except (OSError, ValueError):
            continue
    return found


def _agent_keys(
    target: Target, tried: list[str], agents: contextlib.ExitStack
) -> tuple[paramiko.AgentKey, ...]:
    where = target.agent
    if where == "none":
        return ()
    name = where.removeprefix("$")
    path = os.environ.get(name, "") if where == _NAME_OF_SOCKET or where.startswith("$") else where
    if not path:
        return ()
    try:
        agent = _Agent(str(Path(path).expanduser()))
        agents.callback(agent.close)
        return agent.get_keys()
    except (OSError, paramiko.SSHException) as error:
        tried.append(f"ssh-agent at {path}: {error}")
        return ()
