"""All steps with one card, one after another in one machine: for test_kmod.py."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from kmod_guest import FILE, LIMIT, MODULE, in_flight, refusal, run, steps, transfer

from harness.guest import bring_up
from harness.guest.kmod import odpnl, odpnl_messages, session
from harness.guest.rdma import mlx5
from harness.guest.rdma.nldev import NlDev

bring_up.load_modules(mlx5.MODULES, {})
DEVICE = mlx5.wait(NlDev())
mlx5.warm(DEVICE, on_demand=False)
run("insmod", FILE)
NAME = session.card_of(DEVICE)
TRACE = Path("/sys/kernel/tracing")
PROGRAM = [sys.executable, "-m", "harness.guest.kmod.cli"]


def refusals():
    """Two resumes without a fault, then invalid requests."""
    with odpnl.Family() as family:
        own = family.device(NAME).form
        answers = [vars(family.resume(NAME, own, 0x123456, 1, 7, error)) for error in (False, True)]
        resume = odpnl_messages.RESUME
        errors = {
            "token": refusal(lambda: family.resume(NAME, "transport", 1 << 24, 1, 7)),
            "range": refusal(lambda: family.resume(NAME, "memory", 1 << 48)),
            "field": refusal(lambda: family.request(resume, DEVICE=NAME, FORM=2, TOKEN=1, QUEUE=1)),
            "missing": refusal(lambda: family.request(resume, DEVICE=NAME, FORM=1, TOKEN=1)),
            "name": refusal(lambda: family.device("0000:ff:1f.7")),
            "selector": refusal(lambda: family.policy(NAME, "drop", "qpn", 5)),
            "size": refusal(lambda: family.mode(NAME, "observe", 72)),
        }
        return {"answers": answers, "errors": errors, "stats": family.device(NAME).stats}


UNPRIVILEGED = """
from harness.guest.kmod import odpnl
family = odpnl.Family()
for call in (family.devices, lambda: family.policy("x", "drop"), family.listen):
    try:
        call()
        print("allowed")
    except OSError as error:
        print(error.errno)
"""


def unprivileged():
    """Without CAP_NET_ADMIN: no command, no events; the error of the program."""
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-net_admin"]
    errors = run(*argv, "python3", "-c", UNPRIVILEGED).split()
    program = subprocess.run([*argv, *PROGRAM, "devices"], stderr=subprocess.PIPE, text=True, check=False)
    return {"errors": errors, "status": program.returncode, "program": program.stderr}


def traced(line):
    """Name and fields of a line of the trace."""
    name, _, rest = line.split(": ", 1)[1].partition(": ")
    words = rest.split()
    return {"name": name, "device": words[0], **dict(word.split("=") for word in words[1:])}


def handler():
    """Python lets a write go on; the tracepoints say the same as the events that it heard."""
    if not (TRACE / "events").exists():
        run("mount", "-t", "tracefs", "tracefs", str(TRACE))
    (TRACE / "trace").write_text("")
    (TRACE / f"events/{MODULE}/enable").write_text("1")
    seen = []
    with odpnl.own(NAME, timeout_s=5) as faults:

        def handle():
            for fault in faults:
                answer = fault.resume()
                seen.append({**fault.fields, "raw": fault.fields["raw"].hex(), "status": answer.status})

        thread = threading.Thread(target=handle)
        thread.start()
        ended = transfer(DEVICE)
        with odpnl.Family() as family:
            stats = family.device(NAME).stats
        thread.join()
    (TRACE / f"events/{MODULE}/enable").write_text("0")
    lines = [line for line in (TRACE / "trace").read_text().splitlines() if line and line[0] != "#"]
    return {"ended": ended, "seen": seen, "stats": stats, "trace": [traced(line) for line in lines]}


def losses():
    """Fill a listener's socket, then the module's queue: lost events are counted."""
    with odpnl.Family() as family:
        family.policy(NAME, "resume")
        deaf = family.listen(receive_bytes=1)
        deaf.timeout_s = 1
        before = family.device(NAME).stats
        family.mode(NAME, "own")
        first = transfer(DEVICE, rounds=24)
        heard = len(list(deaf))
        full = family.device(NAME).stats
        LIMIT.write_text("0")
        second = transfer(DEVICE, timeout_s=1)
        LIMIT.write_text("8192")
        family.mode(NAME, "off")
        family.forget(NAME)
        after = family.device(NAME).stats
        deaf.close()
    grown = {name: full[name] - before[name] for name in full}
    later = {name: after[name] - full[name] for name in full}
    return {
        "first": first,
        "heard": heard,
        "lost": deaf.lost,
        "grown": grown,
        "second": second,
        "later": later,
    }


def program():
    """Watch in one process and resume in another."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    argv = [*PROGRAM, "watch", "--mode", "own", "--json", "--count", "1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(argv, env=environment, **pipes) as watching:
        watching.stderr.readline()
        # With the first event the watcher ends and gives the faults back: the resume has to come before.
        ended = []
        thread = threading.Thread(target=lambda: ended.append(transfer(DEVICE, rounds=1)))
        thread.start()
        event = json.loads(watching.stdout.readline())
        numbers = [f"--{name}={event[name]:#x}" for name in ("token", "type", "queue")]
        resumed = run(*PROGRAM, "resume", *numbers)
        thread.join()
    twice = subprocess.run([*PROGRAM, "resume", *numbers], stdout=subprocess.PIPE, text=True, check=False)
    return {
        "ended": ended[0],
        "resumed": resumed,
        "twice": [twice.returncode, twice.stdout],
        "devices": run(*PROGRAM, "devices"),
        "caps": run(*PROGRAM, "caps"),
    }


def gone():
    """Unload and load the card's driver with events in flight, the module loaded all the time."""
    with odpnl.Family() as family:
        in_flight(family, DEVICE)
        run("modprobe", "-r", "mlx5_ib")
        without_ib = [vars(device) for device in family.devices()]
        nothing = refusal(lambda: family.mode(NAME, "observe", 96))
        path = Path("/sys/bus/pci/drivers/mlx5_core")
        (path / "unbind").write_text(NAME)
        left = family.devices()
        (path / "bind").write_text(NAME)
        run("modprobe", "mlx5_ib")
        mlx5.wait(NlDev())
        back = [vars(device) for device in family.devices()]
    run("rmmod", MODULE)
    program = subprocess.run([*PROGRAM, "devices"], stderr=subprocess.PIPE, text=True, check=False)
    return {
        "without_ib": without_ib,
        "nothing": nothing,
        "left": left,
        "back": back,
        "unloaded": [program.returncode, program.stderr],
    }


def main():
    steps(refusals, unprivileged, handler, losses, program, gone)
