"""Resolve a host's name to what a connection needs: by `ssh -G`, without OpenSSH's client by paramiko's parser.

paramiko's parser ignores Include and takes unknown kinds of Match for true, so files with them are refused there.
"""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import SetupError, UsageError

MAX_JUMPS = 8
RESOLVE_TIMEOUT_S = 20
USER_CONFIG = Path("~/.ssh/config")
SYSTEM_CONFIG = Path("/etc/ssh/ssh_config")
SYSTEM_FOLDER = Path("/etc/ssh/ssh_config.d")
_DEFAULT_KEYS = ("~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519")
_DEFAULT_KNOWN = (
    "~/.ssh/known_hosts",
    "~/.ssh/known_hosts2",
    "/etc/ssh/ssh_known_hosts",
    "/etc/ssh/ssh_known_hosts2",
)
_UNREADABLE = re.compile(r"^\s*(include|match)\b", re.I | re.M)
_URI = re.compile(r"^(?:ssh://)?(?:(?P<user>[^@/]+)@)?(?P<host>\[[^\]]+\]|[^:/@]+)(?::(?P<port>\d+))?/?$")


@dataclass(frozen=True)
class Target:
    """One host to connect to. `name` is what the user typed, `key_name` what known_hosts has it under."""

    name: str
    hostname: str
    port: int
    user: str
    key_alias: str = ""
    identities: tuple[Path, ...] = ()
    certificates: tuple[Path, ...] = ()
    identities_only: bool = False
    agent: str = "SSH_AUTH_SOCK"
    known_hosts: tuple[Path, ...] = ()
    connect_timeout_s: float = 10
    jumps: tuple[Target, ...] = ()

    @property
    def key_name(self) -> str:
        """Return the name in known_hosts: a port other than 22 is part of it. Ref: sshd(8), known_hosts."""
        if self.key_alias:
            return self.key_alias
        return self.hostname if self.port == 22 else f"[{self.hostname}]:{self.port}"

    def __str__(self) -> str:
        return f"{self.user}@{self.hostname}" + ("" if self.port == 22 else f":{self.port}")


def resolve(name: str, config: Path | None = None) -> Target:
    """Resolve HOST, USER@HOST, HOST:PORT or ssh://USER@HOST:PORT, with its jump hosts; `config` as `ssh -F`."""
    return _resolve(name, config, None, 0)


def _resolve(name: str, config: Path | None, jumps: Sequence[str] | None, depth: int) -> Target:
    if depth > MAX_JUMPS:
        raise UsageError(f"{name}: more than {MAX_JUMPS} jump hosts", hint="a ProxyJump that names itself?")
    match = _URI.match(name)
    if not match or name.startswith("-") or match["host"].startswith("-"):
        raise UsageError(f"{name!r} is no host", hint="HOST, USER@HOST or USER@HOST:PORT")
    host = match["host"].strip("[]")
    if config is not None and not config.is_file():
        raise UsageError(f"{config} does not exist", hint="another --ssh-config")
    words = (_by_openssh if shutil.which("ssh") else _by_paramiko)(host, match["user"], match["port"], config)
    if _first(words, "proxycommand", "none") != "none":
        raise SetupError(
            f"{name}: ProxyCommand is not supported",
            [f"ProxyCommand {words['proxycommand'][0]}"],
            "ProxyJump HOST in ~/.ssh/config",
        )
    if jumps is None:
        stated = _first(words, "proxyjump", "none")
        jumps = [] if stated.lower() == "none" else [each.strip() for each in stated.split(",")]
    return _target(name, words, _chain(jumps, config, depth))


def _chain(jumps: Sequence[str], config: Path | None, depth: int) -> tuple[Target, ...]:
    """Resolve a list of jump hosts; only the first one's own ProxyJump counts. Ref: ssh_config(5), ProxyJump."""
    hops: list[Target] = []
    for number, jump in enumerate(jumps):
        hop = _resolve(jump, config, None if number == 0 else (), depth + 1)
        hops += [*hop.jumps, hop]
    return tuple(hops)


def _target(name: str, words: Mapping[str, Sequence[str]], jumps: tuple[Target, ...]) -> Target:
    known = [
        path for key in ("userknownhostsfile", "globalknownhostsfile") for path in _split(words.get(key, ()))
    ]
    timeout = _first(words, "connecttimeout", "none")
    try:
        port = int(_first(words, "port", "22"))
        timeout_s = float(timeout) if timeout != "none" else Target.connect_timeout_s
    except ValueError as error:
        raise SetupError(f"{name}: ssh's configuration: {error}") from error
    return Target(
        name=name,
        hostname=_first(words, "hostname", name),
        port=port,
        user=_first(words, "user", getpass.getuser()),
        key_alias=_first(words, "hostkeyalias", ""),
        identities=_paths(words.get("identityfile", ())),
        certificates=_paths(words.get("certificatefile", ())),
        identities_only=_first(words, "identitiesonly", "no") == "yes",
        agent=_first(words, "identityagent", "SSH_AUTH_SOCK"),
        known_hosts=_paths(known),
        connect_timeout_s=timeout_s,
        jumps=jumps,
    )


def _first(words: Mapping[str, Sequence[str]], key: str, default: str) -> str:
    return words[key][0] if words.get(key) else default


def _split(lines: Sequence[str]) -> list[str]:
    # ssh -G prints a name with a space as it is: a further name begins at its root.
    return [word.strip('"') for line in lines for word in re.split(r'\s+(?="?[/~])', line)]


def _paths(names: Sequence[str]) -> tuple[Path, ...]:
    return tuple(Path(name).expanduser() for name in dict.fromkeys(names) if name != "none")


def _by_openssh(host: str, user: str | None, port: str | None, config: Path | None) -> dict[str, list[str]]:
    """Ask OpenSSH itself; it names the line of a file that is wrong."""
    argv = ["ssh", "-G"]
    for option, value in (("-F", config), ("-l", user), ("-p", port)):
        argv += [option, str(value)] if value else []
    try:
        result = subprocess.run(
            [*argv, "--", host],
            capture_output=True,
            text=True,
            timeout=RESOLVE_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise SetupError(
            f"ssh -G {host}: no answer in {RESOLVE_TIMEOUT_S} s", hint="a Match exec that hangs?"
        ) from error
    if result.returncode:
        raise SetupError(
            f"ssh's configuration for {host} cannot be read", result.stderr.splitlines(), f"ssh -G {host}"
        )
    words: dict[str, list[str]] = {}
    for line in result.stdout.splitlines():
        key, _, value = line.partition(" ")
        words.setdefault(key.lower(), []).append(value)
    return words


def _by_paramiko(host: str, user: str | None, port: str | None, config: Path | None) -> dict[str, list[str]]:
    """Read the files as paramiko does, refusing what it would read wrongly."""
    import paramiko

    parsed = paramiko.SSHConfig()
    for path in [config] if config else [USER_CONFIG.expanduser(), SYSTEM_CONFIG]:
        text = path.read_text(errors="replace") if path.is_file() else ""
        # Debian's own file includes a folder, which is empty there.
        empty = path == SYSTEM_CONFIG and not any(SYSTEM_FOLDER.glob("*.conf"))
        found = None if empty else _UNREADABLE.search(text)
        if found:
            raise SetupError(
                f"{path} has {found[1].capitalize()}, which only OpenSSH's client can read",
                hint="apt-get install openssh-client",
            )
        parsed.parse(text.splitlines())
    words: dict[str, list[str]] = {
        key: value if isinstance(value, list) else [value] for key, value in parsed.lookup(host).items()
    }
    words.setdefault("identityfile", list(_DEFAULT_KEYS))
    if not {"userknownhostsfile", "globalknownhostsfile"} & words.keys():
        words["userknownhostsfile"] = list(_DEFAULT_KNOWN)
    words.update({key: [value] for key, value in (("user", user), ("port", port)) if value})
    return words
