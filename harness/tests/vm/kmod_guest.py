"""What kmod_tour.py and kmod_stress.py share; they run in a machine under test. Not a test of its own."""

import json
import subprocess
import traceback
from pathlib import Path

from harness.guest.kmod import odpnl, session
from harness.guest.rdma.nldev import NlDev
from harness.values.case import Case, PageLoss, Region, Workload

MODULE = "mlx5_odp_test"
FILE = f"/run/payload/{MODULE}.ko"
LIMIT = Path(f"/sys/module/{MODULE}/parameters/queue_limit")


def run(*argv):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stdout}")
    return done.stdout


def transfer(device, rounds=3, pages=8, odp=False, timeout_s=20.0):
    """How a write between two regions ended: status and problem."""
    from harness.guest.cases import run_case

    region = Region(pages * 4096, odp=odp)
    loss = PageLoss("dontneed" if odp else "none")
    work = Workload("write", rounds, Region(pages * 4096, odp=False), region, loss, mtu_bytes=4096)
    answer = run_case(Case("k", device.name, work, timeout_s=timeout_s, trace=False), None, NlDev())
    return answer.status, answer.problem


def in_flight(family, device):
    """Leave a page fault of a queue that has gone in the module's hands, for a minute."""
    name = session.card_of(device)
    family.policy(name, "delay", delay_us=60_000_000)
    family.mode(name, "own")
    before = family.device(name).stats["delayed"]
    transfer(device, rounds=1, timeout_s=0.5)
    waiting = family.device(name).stats["delayed"] - before
    assert waiting == 1, f"{waiting} events wait"
    return name


def steps(*functions):
    """Return each step by name with its result, or with the error that ended it."""
    results = {}
    for function in functions:
        try:
            results[function.__name__] = function()
        except Exception as error:
            results[function.__name__] = {"error": f"{error}", "where": traceback.format_exc()[-600:]}
    print(json.dumps(results, default=list))


def refusal(call):
    """Return the module's message, or None if it took it."""
    try:
        call()
    except odpnl.Refused as refused:
        return refused.errno, refused.words, refused.attribute
    return None
