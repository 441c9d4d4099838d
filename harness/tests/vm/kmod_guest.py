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
    from harness.guest import odpnl, odpnl_messages

    name, _ = card()
    with odpnl.Family() as family:
        own = family.device(name).form
        answers = [vars(family.resume(name, own, 0x123456, 1, 7, error)) for error in (False, True)]
        refusals = {}
        for what, call in {
            "token": lambda: family.resume(name, "transport", 1 << 24, 1, 7),
            "range": lambda: family.resume(name, "memory", 1 << 48),
            "field": lambda: family.request(odpnl_messages.RESUME, DEVICE=name, FORM=2, TOKEN=1, QUEUE=1),
            "missing": lambda: family.request(odpnl_messages.RESUME, DEVICE=name, FORM=1, TOKEN=1),
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


def losses():
    """A listener without room, then no room for events at all: both are counted."""
    from harness.guest import odpnl

    name, device = card()
    with odpnl.Family() as family:
        family.policy(name, "resume")
        deaf = family.listen(receive_bytes=1)
        deaf.timeout_s = 1
        family.mode(name, "own")
        first = transfer(device, rounds=24)
        heard = len(list(deaf))
        full = family.device(name).stats
        Path("/sys/module/mlx5_odp_test/parameters/queue_limit").write_text("0")
        second = transfer(device, timeout_s=2)
        tell(
            first=(first.status, first.problem),
            heard=heard,
            told_lost=deaf.lost,
            full=full,
            second=second.status,
            stats=family.device(name).stats,
        )


UNPRIVILEGED = """
from harness.guest import odpnl
family = odpnl.Family()
for call in (family.devices, lambda: family.policy("x", "drop"), family.listen):
    try:
        call()
        print("allowed")
    except OSError as error:
        print(error.errno)
"""


def unprivileged():
    """Without CAP_NET_ADMIN: no command, no events."""
    card()
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-net_admin"]
    done = subprocess.run(
        [*argv, "python3", "-c", UNPRIVILEGED],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    tell(said=done.stdout.split())


def _noise(random, name, family):
    """A message of the family that may make sense: attributes of any type and length, nested or not."""
    import struct

    body = b""
    for _ in range(random.randrange(6)):
        kind = random.choice((random.randrange(48), random.randrange(1 << 16)))
        payload = random.choice((name.encode() + b"\0", random.randbytes(random.randrange(24)), bytes(8)))
        length = random.choice((4 + len(payload), 4 + len(payload), random.randrange(64)))
        body += struct.pack("=HH", length, kind) + payload + bytes(-len(payload) % 4)
    flags = random.choice((1, 5, 0x301, random.randrange(1 << 16)))
    command = random.randrange(10)
    # Not the modes: an event queue is real work for the card. They come by the typed calls.
    if command == 3:
        command = 4
    head = struct.pack("=BBH", command, random.randrange(3), random.choice((0, 0, 7)))
    return (
        struct.pack("=IHHII", 20 + len(body), family.number, flags, random.randrange(1 << 16), 0)
        + head
        + body
    )


def stress(messages, loads, threads="4"):
    """Hostile messages from many threads while the mode changes, then the module in and out."""
    import random

    from harness.guest import odpnl

    name, _ = card()

    def shout(seed):
        chance = random.Random(seed)
        with odpnl.Family() as family:
            for _ in range(int(messages) // int(threads)):
                family.send_raw(_noise(chance, name, family))

    workers = [threading.Thread(target=shout, args=(seed,)) for seed in range(int(threads))]
    for worker in workers:
        worker.start()
    with odpnl.Family() as family:
        turns = 0
        while any(worker.is_alive() for worker in workers):
            family.mode(name, ("own", "off")[turns % 2])
            turns += 1
        family.mode(name, "off")
        family.forget(name)
        device = family.device(name)
    for _ in range(int(loads)):
        subprocess.run(["rmmod", "mlx5_odp_test"], check=True)
        subprocess.run(["insmod", MODULE], check=True)
    subprocess.run(["rmmod", "mlx5_odp_test"], check=True)
    tell(mode=device.mode, turns=turns)


def gone():
    """The card's driver is taken out and put back with events in flight, the module loaded all the time."""
    from harness.guest import mlx5, odpnl
    from harness.guest.nldev import NlDev

    name, device = card()
    with odpnl.Family() as family:
        family.policy(name, "delay", delay_us=60_000_000)
        family.mode(name, "own")
        failing = threading.Thread(target=transfer, args=(device,), kwargs={"timeout_s": 1.0}, daemon=True)
        failing.start()
        failing.join()
        delayed = family.device(name).stats["delayed"]
        subprocess.run(["modprobe", "-r", "mlx5_ib"], check=True)
        without_ib = [vars(device) for device in family.devices()]
        path = Path("/sys/bus/pci/drivers/mlx5_core")
        (path / "unbind").write_text(name)
        left = family.devices()
        (path / "bind").write_text(name)
        subprocess.run(["modprobe", "mlx5_ib"], check=True)
        mlx5.wait(NlDev())
        tell(
            delayed=delayed,
            without_ib=without_ib,
            left=left,
            back=[vars(device) for device in family.devices()],
        )


def two_queues():
    """The module has the page faults, then mlx5_ib makes an event queue for them, too."""
    from harness.guest import odpnl

    name, device = card()
    with odpnl.Family() as family:
        family.policy(name, "fail")
        family.mode(name, "own")
        answer = transfer(device, rounds=2, odp=True)
        tell(status=answer.status, problem=answer.problem, events=family.device(name).stats["events"])


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
