"""Host keys: compare a server's key with known_hosts; nothing is ever added by us.

Files are read by `ssh-keygen -F`, OpenSSH's own reader of hashed names, wildcards and markers: paramiko's reader takes
wildcards for names, and fails on a file with a single marker line.
"""

from __future__ import annotations

import fnmatch
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import paramiko

from harness.errors import SetupError
from harness.host.ssh_config import Target

LOOKUP_TIMEOUT_S = 20
_RSA = ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")


class HostKeyError(SetupError):
    """A host's key is unknown, changed or revoked: nothing was sent to it but the key exchange."""


@dataclass(frozen=True)
class KnownKey:
    """One line of a known_hosts file that is about our host; `marker` is @revoked, @cert-authority or empty."""

    marker: str
    kind: str
    base64: str
    path: Path


def known_keys(target: Target) -> list[KnownKey]:
    """Return the lines for a host of all its known_hosts files, in their order."""
    look_up = _by_openssh if shutil.which("ssh-keygen") else _by_hand
    found: list[KnownKey] = []
    for path in target.known_hosts:
        if path.is_file():
            for line in look_up(target.key_name, path):
                key = _parse(line, path)
                found += [key] if key else []
    return found


def algorithms(known: list[KnownKey], offered: tuple[str, ...]) -> tuple[str, ...]:
    """Order host key algorithms, types that are known first: the server is to show a key that we can check."""
    types = {key.kind for key in known if not key.marker}
    types |= set(_RSA) if "ssh-rsa" in types else set()
    return tuple(sorted(offered, key=lambda each: each not in types))


def check_host_key(target: Target, key: paramiko.PKey, known: list[KnownKey]) -> None:
    """Accept a server's key that is known; else HostKeyError with the command that adds it."""
    shown = (key.get_name(), key.get_base64())
    same = [each for each in known if (each.kind, each.base64) == shown]
    revoked = [each for each in same if each.marker == "@revoked"]
    if revoked:
        raise HostKeyError(
            f"{target}: its host key is revoked in {revoked[0].path}",
            [f"{key.get_name()} {key.fingerprint}"],
            "connect to another host, or ask who revoked the key",
        )
    if any(not each.marker for each in same):
        return
    own = [each for each in known if not each.marker]
    evidence = [f"it shows {key.get_name()} {key.fingerprint}"]
    compare = f"compare with `ssh-keygen -lf /etc/ssh/ssh_host_{_short(key)}_key.pub` on the host, then: "
    add = _add_command(target, key)
    if own:
        evidence += [f"{each.path} has {each.kind} {_fingerprint(each)}" for each in own]
        path = shlex.quote(str(own[0].path))
        remove = f"ssh-keygen -R {shlex.quote(target.key_name)} -f {path}"
        raise HostKeyError(
            f"{target}: its host key has changed; it was installed again, or somebody answers in its place",
            evidence,
            f"{compare}{remove}; {add}",
        )
    if any(each.marker == "@cert-authority" for each in known):
        evidence.append(
            "known_hosts has an authority for this host; host certificates cannot be checked here"
        )
    raise HostKeyError(f"{target}: its host key is unknown", evidence, compare + add)


def _add_command(target: Target, key: paramiko.PKey) -> str:
    line = f"{target.key_name} {key.get_name()} {key.get_base64()}"
    path = str(target.known_hosts[0]) if target.known_hosts else "~/.ssh/known_hosts"
    return f"echo {shlex.quote(line)} >> {path if path.startswith('~') else shlex.quote(path)}"


def _short(key: paramiko.PKey) -> str:
    """Return the type as in the names of sshd's key files."""
    name = key.get_name()
    return "ecdsa" if name.startswith("ecdsa") else name.removeprefix("ssh-")


def _fingerprint(known: KnownKey) -> str:
    try:
        return str(paramiko.PKey.from_type_string(known.kind, _decoded(known.base64)).fingerprint)
    except Exception:  # any type that paramiko does not know
        return known.base64[:32] + "..."


def _decoded(text: str) -> bytes:
    import base64

    return base64.b64decode(text)


def _parse(line: str, path: Path) -> KnownKey | None:
    words = line.split()
    marker = words.pop(0) if words and words[0].startswith("@") else ""
    return KnownKey(marker, words[1], words[2], path) if len(words) >= 3 else None


def _by_openssh(name: str, path: Path) -> list[str]:
    try:
        result = subprocess.run(
            ["ssh-keygen", "-F", name, "-f", str(path)],
            capture_output=True,
            text=True,
            timeout=LOOKUP_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"ssh-keygen -F: no answer in {LOOKUP_TIMEOUT_S} s", [str(path)]) from error
    # Status 1 without a message: no line for this host.
    if result.returncode and result.stderr.strip():
        raise SetupError(f"{path} cannot be read", result.stderr.splitlines())
    return [line for line in result.stdout.splitlines() if line and not line.startswith("#")]


def _by_hand(name: str, path: Path) -> Iterator[str]:
    """Find the lines as `ssh-keygen -F` does, where there is none. Ref: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        names = words[1] if len(words) > 1 and words[0].startswith("@") else (words or [""])[0]
        if names and not names.startswith("#") and _names_host(names, name):
            yield line


def _names_host(patterns: str, name: str) -> bool:
    if patterns.startswith("|1|"):
        return bool(paramiko.HostKeys.hash_host(name, patterns) == patterns)
    matches = False
    for pattern in patterns.split(","):
        # Brackets are part of a name with a port, not a set of characters.
        literal = pattern.removeprefix("!").replace("[", "[[]")
        if fnmatch.fnmatchcase(name.lower(), literal.lower()):
            if pattern.startswith("!"):
                return False
            matches = True
    return matches
