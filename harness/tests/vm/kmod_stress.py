"""What a module must survive, in one machine with two cards that checks its slabs: for test_kmod_stress.py."""

import json
import random
import struct
import threading
import time
from functools import partial
from pathlib import Path

from kmod_guest import FILE, MODULE, in_flight, refusal, run, steps, transfer

from harness.guest import bring_up
from harness.guest.kmod import odpnl, session
from harness.guest.rdma import mlx5
from harness.guest.rdma.nldev import NlDev

THREADS = 4
SIZES = {"messages": 0, "loads": 0, "rounds": 0}
CORE = Path("/sys/bus/pci/drivers/mlx5_core")
WAIT_S = 120.0


def ask(what):
    """Tell the host, which reads the console."""
    Path("/dev/kmsg").write_text(f"<1>kmod-test: {what}\n")


def wait(what, ready):
    until = time.monotonic() + WAIT_S
    while not ready():
        assert time.monotonic() < until, f"no {what} after {WAIT_S:g} s"
        time.sleep(0.05)


def cards():
    with odpnl.Family() as family:
        return sorted(device.name for device in family.devices())


def rdma():
    """Return the RDMA device of each card, once all are ready."""
    names = {}
    netlink = NlDev()
    for device in netlink.devices():
        netlink.wait_active(device)
        names[session.card_of(device)] = device
    return names


def without_device():
    """No card, then a card without mlx5_ib: it answers commands and can be owned, and there is nothing to observe."""
    run("modprobe", "mlx5_core")
    run("insmod", FILE)
    none = cards()
    run("rmmod", MODULE)
    ask("plug 1")
    wait("first card", lambda: list(CORE.glob("0*")))
    run("insmod", FILE)
    wait("first card in the module", cards)
    (name,) = cards()
    with odpnl.Family() as family:
        caps = sorted(family.caps(name)["cur"].words["transport"])
        observed = refusal(lambda: family.mode(name, "observe", 96))
        owned = refusal(lambda: family.mode(name, "own"))
    run("rmmod", MODULE)
    return {"none": none, "caps": caps, "observed": observed, "owned": owned}


def two_cards():
    """Each has its own event queue, policies and statistics."""
    run("insmod", FILE)
    ask("plug 2")
    wait("second card", lambda: len(cards()) == 2)
    bring_up.load_modules(mlx5.MODULES, {})
    wait("two RDMA devices", lambda: len(rdma()) == 2)
    devices = rdma()
    ended, stats = {}, {}
    with odpnl.Family() as family:
        for name, action in zip(cards(), ("resume", "fail"), strict=True):
            family.policy(name, action)
            family.mode(name, "own")
            ended[action] = transfer(devices[name], rounds=2)
            stats[action] = family.device(name).stats
        for name in cards():
            family.mode(name, "off")
            family.forget(name)
    return {"ended": ended, "events": {action: counts["events"] for action, counts in stats.items()}}


def noise(chance, names, family):
    """Make a message of the family: attributes of any type and length, nested or not."""
    body = b""
    for _ in range(chance.randrange(6)):
        kind = chance.choice((chance.randrange(48), chance.randrange(1 << 16)))
        name = chance.choice(names).encode() + b"\0"
        payload = chance.choice((name, chance.randbytes(chance.randrange(24)), bytes(8)))
        length = chance.choice((4 + len(payload), 4 + len(payload), chance.randrange(64)))
        body += struct.pack("=HH", length, kind) + payload + bytes(-len(payload) % 4)
    flags = chance.choice((1, 5, 0x301, chance.randrange(1 << 16)))
    # Not the modes: an event queue is real work for the card. They come by the typed calls.
    command = chance.choice([number for number in range(10) if number != 3])
    head = struct.pack("=BBH", command, chance.randrange(3), chance.choice((0, 0, 7)))
    sequence = chance.randrange(1 << 16)
    return struct.pack("=IHHII", 20 + len(body), family.number, flags, sequence, 0) + head + body


def hostile():
    """Random messages from many threads while modes change."""
    names = cards()
    log = len(run("dmesg").splitlines())

    def shout(seed):
        chance = random.Random(seed)
        with odpnl.Family() as family:
            for _ in range(SIZES["messages"] // THREADS):
                family.send_raw(noise(chance, names, family))

    workers = [threading.Thread(target=shout, args=(seed,)) for seed in range(THREADS)]
    for worker in workers:
        worker.start()
    turns = 0
    with odpnl.Family() as family:
        while any(worker.is_alive() for worker in workers):
            for name in names:
                family.mode(name, ("own", "off")[turns % 2])
            turns += 1
        for name in names:
            family.mode(name, "off")
            family.forget(name)
    messages = run("dmesg").splitlines()[log:]
    # The kernel's own messages on malformed attributes have a limit of their rate.
    return {
        "turns": turns,
        "messages": [line for line in messages if "netlink: " not in line and "suppressed" not in line],
    }


def crowd():
    """Write on both cards, while threads resume the faults and unknown tokens, and change policies."""
    devices = rdma()
    stop = threading.Event()
    problems, ended = [], []

    def meddle(seed):
        chance = random.Random(seed)
        try:
            with odpnl.Family() as family:
                while not stop.is_set():
                    name = chance.choice(list(devices))
                    token = chance.getrandbits(22) | 1 << 22
                    family.resume(name, "transport", token, chance.randrange(8), 1, chance.random() < 0.5)
                    family.policy(name, "drop", "token", chance.getrandbits(22) | 1 << 22)
                    family.devices()
                    refusal(partial(family.forget, name, "queue", 5))
        except Exception as error:
            problems.append(f"{type(error).__name__}: {error}")

    def work(name):
        ended.append(transfer(devices[name], rounds=SIZES["rounds"], timeout_s=60))

    with odpnl.Family() as family:
        before = [family.device(name).stats for name in devices]
        for name in devices:
            family.policy(name, "resume")
            family.mode(name, "own")
        meddlers = [threading.Thread(target=meddle, args=(seed,)) for seed in range(THREADS)]
        workers = [threading.Thread(target=work, args=(name,)) for name in devices]
        for thread in (*meddlers, *workers):
            thread.start()
        for thread in workers:
            thread.join()
        stop.set()
        for thread in meddlers:
            thread.join()
        stats = [family.device(name).stats for name in devices]
        for name in devices:
            family.mode(name, "off")
            family.forget(name)
    pairs = list(zip(before, stats, strict=True))
    grown = {name: [new[name] - old[name] for old, new in pairs] for name in ("events", "handled")}
    return {"ended": ended, "problems": problems, **grown}


def loads():
    """In and out again; the last time with an event in flight."""
    for _ in range(SIZES["loads"]):
        run("rmmod", MODULE)
        run("insmod", FILE)
    with odpnl.Family() as family:
        in_flight(family, next(iter(rdma().values())))
    run("rmmod", MODULE)
    run("insmod", FILE)
    return cards()


def unbind():
    """With an event in flight; the other card stays."""
    name, device = next(iter(rdma().items()))
    with odpnl.Family() as family:
        in_flight(family, device)
    (CORE / "unbind").write_text(name)
    left = cards()
    (CORE / "bind").write_text(name)
    wait("two RDMA devices", lambda: len(rdma()) == 2)
    return {"left": left, "name": name, "back": cards()}


def reset():
    """Reset the card (devlink reload) with an event in flight."""
    name, device = next(iter(rdma().items()))
    with odpnl.Family() as family:
        in_flight(family, device)
        run("devlink", "dev", "reload", f"pci/{name}")
        wait("two RDMA devices", lambda: len(rdma()) == 2)
        device = family.device(name)
    return {"mode": device.mode, "stats": {key: value for key, value in device.stats.items() if value}}


def unplug():
    """Unplug the second card with an event in flight."""
    name = sorted(rdma())[-1]
    with odpnl.Family() as family:
        in_flight(family, rdma()[name])
    ask("unplug 2")
    wait("end of the second card", lambda: len(cards()) == 1)
    run("rmmod", MODULE)
    return {"left": len(list(CORE.glob("0*")))}


def drivers_go():
    """Nothing of the module's holds them."""
    return run("modprobe", "-r", "mlx5_ib", "mlx5_core")


def main(sizes):
    SIZES.update(json.loads(sizes))
    steps(without_device, two_cards, hostile, crowd, loads, unbind, reset, unplug, drivers_go)
