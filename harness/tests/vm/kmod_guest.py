"""What test_kmod runs in a guest: a function by name, which prints JSON. Not a test of its own."""

import json
import subprocess
import sys
import threading
from pathlib import Path

MODULE = "/run/parcel/mlx5_odp_test.ko"


def card():
    """The module's name of the card, once mlx5_ib has it; the module is loaded."""
    from harness.guest import mlx5, parcel, prepare
    from harness.guest.nldev import NlDev

    parcel.open_parcel()
    prepare.load_modules(mlx5.MODULES, {})
    device = mlx5.wait(NlDev())
    subprocess.run(["insmod", MODULE], check=True)
    return Path(f"/sys/class/infiniband/{device.name}/device").resolve().name, device


def transfer(device, operation="write", rounds=3, pages=8, odp=False, timeout_s=20.0):
    """The answer to a case between two regions."""
    from harness.guest.cases import run_case
    from harness.guest.nldev import NlDev
    from harness.values.case import Case, Loss, Region, Workload

    region = Region(pages * 4096, odp=odp)
    local = Region(pages * 4096, odp=False)
    loss = Loss("dontneed" if odp else "none")
    work = Workload(operation, rounds, local, region, loss, mtu_bytes=4096)
    return run_case(Case("k", device.name, work, timeout_s=timeout_s, trace=False), None, NlDev())


def tell(**found):
    print(json.dumps(found, default=list))


def caps():
    from harness.guest import odpnl
    from harness.guest.connection import odp_capabilities

    name, device = card()
    with odpnl.Family() as family:
        pages = family.caps(name)
        same = {which: page.raw == page.driver for which, page in pages.items()}
        tell(
            device=vars(family.device(name)),
            words={which: page.words for which, page in pages.items()},
            memory=pages["cur"].memory_scheme,
            same=same,
            verbs=odp_capabilities(device.name),
        )


def resume():
    """The three forms, a token nobody has: the device's own status comes back."""
    from harness.guest import odpnl

    name, _ = card()
    with odpnl.Family() as family:
        own = family.device(name).form
        answers = [vars(family.resume(name, own, 0x123456, 1, 7, error)) for error in (False, True)]
        refusals = {}
        for what, call in {
            "token": lambda: family.resume(name, "transport", 1 << 24, 1, 7),
            "range": lambda: family.resume(name, "memory", 1 << 48),
            "field": lambda: family.request(odpnl.RESUME, DEVICE=name, FORM=2, TOKEN=1, QUEUE=1),
            "missing": lambda: family.request(odpnl.RESUME, DEVICE=name, FORM=1, TOKEN=1),
            "name": lambda: family.device("0000:ff:1f.7"),
            "selector": lambda: family.policy(name, "drop", "queue" if own == "2015" else "qpn", 5),
        }.items():
            try:
                call()
                refusals[what] = None
            except odpnl.Refused as refused:
                refusals[what] = (refused.errno, refused.words, refused.attribute)
        tell(form=own, answers=answers, refusals=refusals, stats=family.device(name).stats)


def python_handler(error=""):
    """A page of an ordinary region is absent by a rule of the card: Python is the page-fault handler."""
    from harness.guest import odpnl

    name, device = card()
    seen, times = [], []
    with odpnl.own(name, timeout_s=None if not error else 30) as faults:

        def handle():
            import time

            for fault in faults:
                answer = fault.resume(error=error == "error")
                times.append(time.monotonic_ns() - fault.fields["seen_ns"])
                seen.append({**fault.fields, "raw": fault.fields["raw"].hex(), "status": answer.status})

        threading.Thread(target=handle, daemon=True).start()
        answer = transfer(device)
        with odpnl.Family() as family:
            stats = family.device(name).stats
    subprocess.run(["rmmod", "mlx5_odp_test"], check=True)
    tell(status=answer.status, problem=answer.problem, seen=seen, stats=stats, times=times)


def policy(action, delay_us="0", selector="any", value="0"):
    """The same, but the module does what a policy says."""
    from harness.guest import odpnl

    name, device = card()
    with odpnl.Family() as family:
        family.policy(name, action, selector, int(value, 0), int(delay_us))
        listener = family.listen()
        listener.timeout_s = 1
        family.mode(name, "own")
        answer = transfer(device, timeout_s=3)
        stats = family.device(name).stats
        family.mode(name, "off")
        events = [(fault.action, fault.sub_type, fault.fields["queue"]) for fault in listener]
    tell(
        status=answer.status, problem=answer.problem, stats=stats, events=events, elapsed_ns=answer.elapsed_ns
    )


def observe():
    """mlx5_ib handles its own page faults; all of them are seen, and nothing else changes."""
    from harness.guest import btf, mlx5, odpnl

    name, device = card()
    with odpnl.Family() as family:
        refused = None
        try:
            family.mode(name, "observe", 72)
        except odpnl.Refused as no:
            refused = no.words
        family.mode(name, "observe", btf.size_of("mlx5_ib", "mlx5_pagefault"))
        mlx5.warm(device)
        listener = family.listen()
        listener.timeout_s = 1
        answer = transfer(device, rounds=17, odp=True)
        try:
            family.mode(name, "own")
            owned = "yes"
        except odpnl.Refused as no:
            owned = no.words
        stats = family.device(name).stats
        faults = [(f.source, f.sub_type, f.fields["token"], f.fields.get("va"), f.error) for f in listener]
    tell(
        status=answer.status, problem=answer.problem, stats=stats, faults=faults, refused=refused, owned=owned
    )


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
