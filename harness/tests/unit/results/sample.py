"""Build records as a run makes them, with the shapes and sizes of soft-RoCE under icount."""

from __future__ import annotations

import random
from dataclasses import replace

from harness.results.record import Run, RunStore, read_run
from harness.values.answer import Answer, DataCheck, Expectation, FaultRecord, Leak, Trace
from harness.values.case import Case, PageLoss, Region, Workload
from harness.values.histogram import Histogram
from harness.values.record import Reason, Record
from harness.values.symptom import Symptom

HOSTILE = "<script>alert(1)</script> \"q\" 'a' &amp; # \x00\x1b[31m\x07\ud800\ufffe]]> "
HOSTILE += "\r\nok 9 forged\n\u2028naïve ✓"

ENVIRONMENT = {
    "kernel": "7.3.4+deb13-amd64",
    "qemu": "11.1.3",
    "image": "sha256:5c1d9a20",
    "clock": "exact",
    "accelerator": "tcg",
}


def histogram(name: str, centre_ns: int, samples: int, seed: int = 1) -> Histogram:
    """Build a skewed latency distribution, as page faults have: a body and a slow tail."""
    generator = random.Random(f"{name}{centre_ns}{seed}")
    values = [int(generator.lognormvariate(0, 0.5) * centre_ns) for _ in range(samples)]
    values += [centre_ns * 37] * (samples // 60)
    counts = [0] * 64
    for value in values:
        counts[max(0, value.bit_length() - 1)] += 1
    used = max(i for i, number in enumerate(counts) if number) + 1
    return Histogram(name, "ns", tuple(counts[:used]), sum(values), min(values), max(values))


def case(number: int, operation: str = "write", how: str = "dontneed", kernel: str = "7.3") -> Case:
    region = Region(
        length=16 * 4096, offset=64 * (number % 3), mapping=("anonymous", "shared", "file")[number % 3]
    )
    workload = Workload(operation, 13, region, region, PageLoss(how, "remote"))
    name = f"soft-roce-{operation}[{kernel}-{how}-{region.mapping}-{region.offset}-{number}]"
    return Case(id=name, device="soft-roce", workload=workload, seed=number)


def answer(case_: Case, seed: int = 1, faults: int = 208) -> Answer:
    stages = (
        histogram("fault: total", 48_000, faults, seed),
        histogram("fault: hmm_range_fault", 21_000, faults, seed),
        histogram("fault: dma map", 6_500, faults, seed),
        histogram("invalidation", 9_000, faults, seed),
    )
    records = tuple(
        FaultRecord(i * 61_000, 40_000 + i * 17, 0x7F0000000000 + i * 4096, 4096, 1, 0) for i in range(faults)
    )
    expectations = (
        Expectation(
            "faults", faults, faults, "ib_umem_odp_map_dma_and_lock", "one fault a page of each round"
        ),
        Expectation(
            "invalidations",
            faults,
            faults,
            "ib_umem_odp_unmap_dma_pages",
            "one a page that MADV_DONTNEED took",
        ),
    )
    return Answer(
        case_id=case_.id,
        status="done",
        expectations=expectations,
        data=DataCheck(bytes_checked=13 * 65536),
        trace=Trace({"fault": faults, "invalidation": faults}, stages, records),
        operations_ns=tuple(1_200_000 + 1_031 * i for i in range(13)),
        elapsed_ns=48_211_337,
    )


def record(number: int, verdict: str = "pass", faults: int = 208, **changes: object) -> Record:
    """Build one record with a verdict and all that belongs to it."""
    operation = ("write", "read", "send", "fetch_add")[number % 4]
    it = case(number, operation, ("dontneed", "remap", "fork", "untouched")[number // 4 % 4])
    full = answer(it, number % 5, faults)
    made = Record(
        plan=f"soft-roce-{operation}",
        case=it,
        verdict=verdict,
        answer=full,
        environment=ENVIRONMENT,
        started="2026-11-24T12:00:00Z",
        wall_s=1.25 + number / 100,
        log=f"logs/{it.id}.console.log",
    )
    return replace(_VERDICTS[verdict](made, full), **changes)  # type: ignore[arg-type]


def panic() -> Symptom:
    return Symptom(
        "oops",
        "BUG: kernel NULL pointer dereference, address: 0000000000000058",
        "oops: rxe_odp_map_range_and_lock < rxe_odp_mr_copy < rxe_mr_copy < send_data_in",
        (
            "BUG: kernel NULL pointer dereference, address: 0000000000000058",
            "#PF: supervisor read access in kernel mode",
            "Oops: 0000 [#1] SMP NOPTI",
            "CPU: 0 UID: 0 PID: 57 Comm: kworker/u4:3 Not tainted 7.3.4+deb13-amd64 #1",
            "RIP: 0010:rxe_odp_map_range_and_lock+0x5c/0x210 [rdma_rxe]",
            "Call Trace:",
            " <TASK>",
            " rxe_odp_mr_copy+0x8e/0x1c0 [rdma_rxe]",
        ),
    )


def _failed(made: Record, full: Answer) -> Record:
    expectations = (
        replace(full.expectations[0], observed=full.expectations[0].expected - 1),
        full.expectations[1],
    )
    data = DataCheck(13 * 65536, 3, "remote, round 4, offset 8192: expected 5a, found 00")
    leaks = (Leak("QP", 2, 3),)
    reasons = (
        Reason("count", "faults: 208 expected (one fault a page of each round), 207 seen"),
        Reason("data", f"3 of 851968 bytes are wrong: {data.first}"),
        Reason("leak", "QP: 2 before, 3 after"),
        Reason("console", panic().headline),
    )
    return replace(
        made,
        reasons=reasons,
        symptoms=(panic(),),
        answer=replace(full, expectations=expectations, data=data, leaks=leaks),
    )


_VERDICTS = {
    "pass": lambda made, full: made,
    "fail": _failed,
    "known": lambda made, full: replace(
        made,
        reasons=(Reason("known", "6.16: a write after a read-only mapping does not fault"),),
        environment={**ENVIRONMENT, "kernel": "6.16.12+deb13-amd64"},
    ),
    "skip": lambda made, full: replace(
        made,
        answer=None,
        log="",
        reasons=(Reason("need", "rxe of 6.1 has no on-demand paging"),),
        environment={**ENVIRONMENT, "kernel": "6.1.0-56-amd64"},
    ),
    "error": lambda made, full: replace(
        made, answer=None, reasons=(Reason("setup", "the image could not be built: No space left on device"),)
    ),
}


def mixed() -> list[Record]:
    """Build records with every verdict."""
    verdicts = ["pass"] * 9 + ["fail", "known", "skip", "skip", "error"]
    return [record(i, verdict) for i, verdict in enumerate(verdicts)]


def hostile() -> Record:
    """Build a record whose every text from a guest or a plan is hostile."""
    it = replace(case(1), id=f"id {HOSTILE}")
    nasty = Symptom(HOSTILE, HOSTILE, HOSTILE, (HOSTILE,) * 3)
    full = answer(it)
    bad = replace(
        full,
        status=HOSTILE,
        problem=HOSTILE,
        expectations=(Expectation(HOSTILE, 1, 2, HOSTILE, HOSTILE),),
        data=DataCheck(1, 1, HOSTILE),
        leaks=(Leak(HOSTILE, 0, 1),),
        notes=(HOSTILE,),
        trace=replace(full.trace, histograms=(replace(histogram("x", 500, 9), name=HOSTILE, unit="<b>"),)),
    )
    return Record(
        plan=f"plan {HOSTILE}",
        case=it,
        verdict="fail",
        reasons=(Reason(HOSTILE, HOSTILE), Reason("count", HOSTILE)),
        answer=bad,
        symptoms=(nasty,),
        environment={HOSTILE: HOSTILE},
        started=HOSTILE,
        log=HOSTILE,
    )


def stored(directory, records, finish: bool = True, **about: str) -> Run:
    """Write a run and read it back."""
    store = RunStore.create(directory, about, expected=len(records))
    for each in records:
        store.add(each)
    if finish:
        store.finish()
    return read_run(directory)
