"""Command line for the page faults of this machine's cards, through the module mlx5_odp_test.

    python3 -m harness.guest.kmod.cli devices|caps|watch|resume ...

Exit status: 0 done, 1 the card refused, 2 usage, 3 no module, no permission or no card.
"""

from __future__ import annotations

import argparse
import errno
import json
import sys
from typing import Any, Dict, List, Optional

from harness.guest.kmod import odpnl
from harness.guest.kmod.odpnl_messages import (
    FORMS,
    STATS,
)
from harness.guest.trace import btf

NUMBERS = ("token", "type", "queue", "key", "rkey", "va")
HINTS = {
    errno.ENOENT: "odp-harness kmod load",
    errno.EPERM: "the same as root: the module wants CAP_NET_ADMIN",
    errno.EACCES: "the same as root: the module wants CAP_NET_ADMIN",
    errno.ENODEV: "odp-harness pagefault devices",
}
HEADLINES = {
    errno.ENOENT: "the module mlx5_odp_test is not loaded here",
    errno.EPERM: "not permitted",
    errno.EACCES: "not permitted",
}


def devices(family: odpnl.Family, arguments: argparse.Namespace) -> int:
    """Print a line a card: name, form of its faults, mode, statistics that are not 0."""
    cards = family.devices()
    if not cards:
        raise OSError(errno.ENODEV, "no card that mlx5_core drives")
    for device in cards:
        counted = {name: device.stats[name] for name in STATS if device.stats[name]}
        plain = {"name": device.name, "form": device.form, "mode": device.mode, "stats": counted}
        stats = " ".join(f"{name}={value}" for name, value in counted.items())
        _print(arguments, plain, f"{device.name}  {device.form}  {device.mode}  {stats}".rstrip())
    return 0


def caps(family: odpnl.Family, arguments: argparse.Namespace) -> int:
    """Print the capability pages of a card."""
    for which, page in family.caps(_card(family, arguments)).items():
        plain: Dict[str, Any] = {"page": which, "words": page.words, "same": page.raw == page.driver}
        lines = [
            f"{which}  {scheme}  {name}: {' '.join(words)}"
            for scheme, rows in page.words.items()
            for name, words in rows.items()
        ]
        _print(arguments, plain, "\n".join(lines) or f"{which}: nothing")
    return 0


def watch(family: odpnl.Family, arguments: argparse.Namespace) -> int:
    """Print events as they come; restore the mode at the end."""
    card = _card(family, arguments)
    listener = family.listen()
    listener.timeout_s = arguments.timeout
    before = family.device(card).mode
    if arguments.mode:
        size = btf.size_of("mlx5_ib", "mlx5_pagefault") if arguments.mode == "observe" else None
        if arguments.mode == "own":
            family.policy(card, "forward")
        family.mode(card, arguments.mode, size)
    print(f"watching {card}, mode {family.device(card).mode}; Ctrl-C ends", file=sys.stderr, flush=True)
    try:
        events = 0
        for fault in listener:
            if fault.device == card:
                events += 1
                _print(arguments, {**fault.fields, "raw": fault.fields.get("raw", b"").hex()}, _line(fault))
                if events == arguments.count:
                    break
    except KeyboardInterrupt:
        pass
    finally:
        if arguments.mode and before != arguments.mode:
            family.mode(card, before if before != "observe" else "off")
    if listener.lost:
        print(f"lost: the socket buffer was full {listener.lost} times", file=sys.stderr)
    return 0


def resume(family: odpnl.Family, arguments: argparse.Namespace) -> int:
    """Issue one PAGE_FAULT_RESUME; return 1 if the card refuses it."""
    card = _card(family, arguments)
    form = arguments.form or family.device(card).form
    answer = family.resume(
        card, form, arguments.token, arguments.type, arguments.queue, error=arguments.error
    )
    result = (
        "taken" if not answer.status else f"refused: status {answer.status:#x}, syndrome {answer.syndrome:#x}"
    )
    _print(arguments, {"status": answer.status, "syndrome": answer.syndrome}, f"{card}: {result}")
    return 1 if answer.status else 0


def _card(family: odpnl.Family, arguments: argparse.Namespace) -> str:
    """Return the card of --device, or the only one."""
    if arguments.device:
        return str(arguments.device)
    names = [device.name for device in family.devices()]
    if len(names) != 1:
        raise OSError(errno.ENODEV, f"{len(names)} cards here; name one: {' '.join(names)}")
    return names[0]


def _line(fault: odpnl.Fault) -> str:
    fields = fault.fields
    numbers = " ".join(f"{name}={fields[name]:#x}" for name in NUMBERS if name in fields)
    error = " error" if fault.error else ""
    return f"{fields['seen_ns'] / 1e9:.6f} {fault.source} {fault.sub_type} {fault.action} {numbers}{error}"


def _print(arguments: argparse.Namespace, plain: Dict[str, Any], text: str) -> None:
    print(json.dumps(plain) if arguments.json else text, flush=True)


def parser_of() -> argparse.ArgumentParser:
    """Define the command line."""
    parser = argparse.ArgumentParser(
        prog="odp-harness pagefault",
        description="Page faults of this machine's mlx5 cards, through the module mlx5_odp_test.",
        epilog="exit status: 0 done, 1 the card refused, 2 usage, 3 no module, no permission or no card",
    )
    verbs = parser.add_subparsers(required=True, metavar="ACTION")
    for act, text in (
        (devices, "the cards, their modes and statistics"),
        (caps, "capability pages, as the card itself answers"),
        (watch, "print each page fault (and with observe each resume) as it comes"),
        (resume, "let a card go on after a page fault, or fail what faulted"),
    ):
        verb = verbs.add_parser(act.__name__, help=text, description=text[0].upper() + text[1:] + ".")
        verb.set_defaults(act=act, device="")
        verb.add_argument("--json", action="store_true", help="a JSON object a line")
        if act is not devices:
            verb.add_argument(
                "--device", default="", metavar="BUS", help="as 0000:01:00.0 (default: the only one)"
            )
    watching, resuming = verbs.choices["watch"], verbs.choices["resume"]
    watching.add_argument(
        "--mode",
        choices=("observe", "own"),
        help="set this mode meanwhile: watch mlx5_ib, or take its faults over",
    )
    watching.add_argument("--count", type=int, default=0, metavar="N", help="end after N events")
    watching.add_argument("--timeout", type=float, metavar="S", help="end when nothing came for S seconds")
    resuming.add_argument("--form", choices=FORMS, help="default: the card's own")
    for name, text in (
        ("token", "of the event"),
        ("type", "three bits; of 2015 the flags"),
        ("queue", "or QPN"),
    ):
        resuming.add_argument(f"--{name}", type=lambda word: int(word, 0), default=0, metavar="N", help=text)
    resuming.add_argument("--error", action="store_true", help="what faulted fails")
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Run the command line; errors print a headline and a hint."""
    arguments = parser_of().parse_args(argv)
    try:
        with odpnl.Family() as family:
            return int(arguments.act(family, arguments))
    except (OSError, LookupError) as error:
        number = getattr(error, "errno", None) or 0
        message = getattr(error, "words", "") or getattr(error, "strerror", "") or str(error)
        print(f"error: {HEADLINES.get(number, message)}", file=sys.stderr)
        if number in HINTS:
            print(f"  try: {HINTS[number]}", file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
