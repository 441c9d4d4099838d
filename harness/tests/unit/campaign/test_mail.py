"""The mail of `regress`: whole examples, line width, and the command to reproduce."""

import os
import shlex
import subprocess
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from harness import __version__
from harness.campaign import mail, side_by_side_html
from harness.campaign.compare import Comparison
from harness.campaign.metrics import Metric
from harness.campaign.outcomes import INCONCLUSIVE, NO_DIFFERENCE, REGRESSION, Difference
from harness.campaign.regress import RegressResult
from harness.tests.unit.results.sample import panic

REMOTE, LOCAL = "odp-write/7.3/soft-roce/remote", "odp-write/7.3/soft-roce/local"
METRIC = Metric(REMOTE, "checks", "minimum", True, 868, 888, (4, 4), 5, 20)
SLOWER = Difference(
    REGRESSION,
    REMOTE,
    f"{METRIC.title}: {METRIC.values}; noise band of no-op builds: +/-5, threshold: 15",
    metric=METRIC.name,
    confirmed_builds=3,
)
CRASH = Difference(
    REGRESSION,
    f"{REMOTE}/seed=0",
    "fails in 4 of 4 patched runs, in 0 of 4 baseline runs: console: BUG: kernel NULL pointer dereference, address: "
    "0000000000000058",
    outcome=True,
    excerpt=panic().excerpt,
)
REGRESSION_RESULT = RegressResult(
    "7.3.4+deb13-amd64",
    "gcc-14 14.2.0-19",
    ("[PATCH rdma-next v3 2/2] RDMA/rxe: Check the access flags of each page",),
    "d97afb3dea453dbc321a1b75a5fe5a4aeb805b45",
    ("rdma_rxe",),
    Comparison(REGRESSION, (SLOWER,), (METRIC, replace(METRIC, case=LOCAL, patched=868, change=0))),
    cases=2,
    notes=("ran 2 of 31 plans: those that execute changed lines (--all: every plan)",),
    not_tested=("lines not executed by any case: rxe_odp.c:170-172, rxe_odp.c:180",),
    environment={
        "kernel": "7.3.4+deb13-amd64",
        "qemu": "11.1.3",
        "image": "sha256:5c1d9a20",
        "clock": "exact",
        "accelerator": "tcg",
        "device": "soft-roce",
    },
    titles={"odp-write": "RDMA write to pages that are absent, in each mapping"},
)
COMMAND = [
    "odp-harness",
    "regress",
    "--patch",
    "v3.mbox",
    "--kernel",
    "7.3",
    "--seeds",
    "4",
    "-k",
    "odp-write",
]

SAME = RegressResult(
    "7.3.4+deb13-amd64", "gcc-14", ("v3.mbox",), "", ("rdma_rxe",), Comparison(NO_DIFFERENCE, ()), cases=1
)

INTRODUCTION = """
odp-harness built the kernel modules below with (patched) and without
(baseline) this change, ran the same RDMA on-demand paging tests with
both in virtual machines, and compared the outcome and the latency of
each case.
"""
PATCH = """
Patch:    [PATCH rdma-next v3 2/2] RDMA/rxe: Check the access flags of
          each page
Patch-id: d97afb3dea453dbc321a1b75a5fe5a4aeb805b45
"""
BUILT = """\
Kernel:   7.3.4+deb13-amd64 (gcc-14 14.2.0-19)
Rebuilt:  rdma_rxe
"""
REPRODUCE = """
To reproduce:
  odp-harness regress --patch v3.mbox --kernel 7.3 --seeds 4 \\
  -k odp-write
"""
NOTES = """
Notes:
  ran 2 of 31 plans: those that execute changed lines (--all: every
    plan)

Environment:
  qemu 11.1.3; image sha256:5c1d9a20; clock exact; accelerator tcg;
  device soft-roce
"""
EXACT = """
Latencies are counted in guest instructions by QEMU (icount), from the
same VM snapshot: exact and repeatable, but not hardware time. The
noise band is how far rebuilds with no-op source changes move a metric.
"""
FOOTER = f"""\
Case names are plan/kernel/device/parameters. Tested with odp-harness
{__version__}.
"""


def test_the_mail_of_a_regression():
    """Mutations: leave out the threshold, the builds that confirm it, the command, or what was not tested."""
    expected = f"""Result: regression
{INTRODUCTION}{PATCH}{BUILT}\
Cases:    2, 4 baseline and 4 patched runs each; latency compared in 2

Regression: odp-write/7.3/soft-roce/remote
  Test: RDMA write to pages that are absent, in each mapping
  minimum time in stage `checks` (map and lock pages): 868 -> 888
    instructions, +20; noise band of no-op builds: +/-5, threshold: 15
  Measured in 4 baseline and 4 patched runs; confirmed by 3 more builds
    of the patched source.
{REPRODUCE}
Not tested:
  lines not executed by any case: rxe_odp.c:170-172, rxe_odp.c:180
{NOTES}{EXACT}{FOOTER}"""
    assert mail.text(REGRESSION_RESULT, COMMAND, 4) == expected


def test_the_mail_of_a_crash():
    """Mutations: leave out the console; speak of instructions where none was compared."""
    comparison = Comparison(REGRESSION, (CRASH,), failing=("odp-iova/7.3/soft-roce/zero",))
    expected = f"""Result: regression
{INTRODUCTION}{PATCH}{BUILT}\
Cases:    2, 4 baseline and 4 patched runs each; latency compared in 0

Regression: odp-write/7.3/soft-roce/remote
  Test: RDMA write to pages that are absent, in each mapping
  fails in 4 of 4 patched runs, in 0 of 4 baseline runs: console: BUG:
    kernel NULL pointer dereference, address: 0000000000000058
    | BUG: kernel NULL pointer dereference, address: 0000000000000058
    | #PF: supervisor read access in kernel mode
    | Oops: 0000 [#1] SMP NOPTI
    | CPU: 0 UID: 0 PID: 57 Comm: kworker/u4:3 Not tainted
      7.3.4+deb13-amd64 #1
    | RIP: 0010:rxe_odp_map_range_and_lock+0x5c/0x210 [rdma_rxe]
    | Call Trace:
    | <TASK>
    | rxe_odp_mr_copy+0x8e/0x1c0 [rdma_rxe]

Fails on baseline and patched alike: odp-iova/7.3/soft-roce/zero
{REPRODUCE}{NOTES}
{FOOTER}"""
    assert mail.text(replace(REGRESSION_RESULT, comparison=comparison, not_tested=()), COMMAND, 4) == expected


def test_the_mail_of_no_difference():
    """Mutations: claim that nothing moved; leave out what was compared, or what was not confirmed."""
    metrics = (replace(METRIC, patched=868, change=0), replace(METRIC, case=LOCAL, patched=872, change=4))
    comparison = Comparison(NO_DIFFERENCE, (), metrics, known=("odp-atomic/7.3/soft-roce/odd",))
    dismissed = (
        f"{LOCAL}: minimum time in stage `copies`: 100 -> 120 instructions, +20; but other builds differ"
    )
    result = replace(REGRESSION_RESULT, comparison=comparison, not_tested=(), unconfirmed=(dismissed,))
    expected = f"""Result: no difference
{INTRODUCTION}{PATCH}{BUILT}\
Cases:    2, 4 baseline and 4 patched runs each; latency compared in 2

No new failure, console symptom or leak; no latency moved beyond its
noise band.

Compared, baseline -> patched:
  odp-write/7.3/soft-roce/local
    minimum time in stage `checks` (map and lock pages): 868 -> 872
      instructions, +4; noise band: +/-5
  odp-write/7.3/soft-roce/remote
    minimum time in stage `checks` (map and lock pages): 868 -> 868
      instructions, +0; noise band: +/-5

Known failure on baseline and patched alike:
  odp-atomic/7.3/soft-roce/odd
{REPRODUCE}
Differences that more builds did not confirm:
  odp-write/7.3/soft-roce/local: minimum time in stage `copies`: 100 ->
    120 instructions, +20; but other builds differ
{NOTES}{EXACT}{FOOTER}"""
    assert mail.text(result, COMMAND, 4) == expected


def test_the_mail_of_an_inconclusive_result():
    """A patch of documentation. Mutations: claim that tests ran; print an empty section."""
    nothing = Difference(INCONCLUSIVE, "v3.mbox", "it changes nothing that is tested here")
    result = RegressResult(
        "7.3.4+deb13-amd64",
        "",
        REGRESSION_RESULT.patches,
        REGRESSION_RESULT.identity,
        (),
        Comparison(INCONCLUSIVE, (nothing,)),
        not_tested=("Documentation/infiniband/index.rst: outside of the tested modules",),
    )
    expected = f"""Result: inconclusive

This change touches no source that is built into the kernel modules
that odp-harness tests. No test ran.
{PATCH}\
Kernel:   7.3.4+deb13-amd64
Rebuilt:  no module

Inconclusive: v3.mbox
  it changes nothing that is tested here
{REPRODUCE}
Not tested:
  Documentation/infiniband/index.rst: outside of the tested modules

{FOOTER}"""
    assert mail.text(result, COMMAND, 4) == expected


WIDE = "\u9801\u9762\u932f\u8aa4"
LONG = "a-directory-of-somebody/" * 8 + "x.diff"


def columns(line):
    """Return the width at which a terminal draws it, at most."""
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in line)


def command_of(text):
    """Return the lines of the command in a mail."""
    return text.partition("To reproduce:\n")[2].partition("\n\n")[0]


def pasted(text, tmp_path):
    """Return the words that a shell makes of the command."""
    (tmp_path / "odp-harness").write_text('#!/bin/sh\nprintf "%s\\0" "$0" "$@"\n')
    (tmp_path / "odp-harness").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    argv = ["sh", "-c", command_of(text)]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    program, *words = done.stdout.split("\0")[:-1]
    return [Path(program).name, *words]


def test_no_line_is_wider_than_a_mail(tmp_path):
    """Mutations: count letters, not columns; wrap at blanks only; let a control character through."""
    subject = f"[PATCH] {WIDE * 20} {LONG} \x1b[31m\udcff"
    difference = replace(
        SLOWER, case=LONG, text=f"{WIDE * 30}: {LONG}", excerpt=(LONG, f"\x1b[31m{WIDE * 30}")
    )
    metric = replace(METRIC, case=WIDE * 30, stage=LONG)
    result = replace(
        REGRESSION_RESULT,
        patches=(subject,),
        notes=(LONG,),
        not_tested=(WIDE * 40,),
        unconfirmed=(LONG,),
        modules=(WIDE * 30,),
        kernel=LONG,
        environment={LONG: WIDE * 40},
        titles={"a-directory-of-somebody": WIDE * 40},
    )
    command = ["odp-harness", "regress", "-k", WIDE * 8, "--patch", WIDE * 8, "--seeds", "16"]
    for verdict, differences in ((REGRESSION, (difference,)), (NO_DIFFERENCE, ())):
        comparison = Comparison(verdict, differences, (metric,), (LONG,), (LONG + WIDE,), (WIDE * 40,))
        text = mail.text(replace(result, comparison=comparison), command, 16)
        assert max(map(columns, text.splitlines())) < 72
        text.encode()
        assert "\x1b" not in text and LONG in "".join(text.split()) and WIDE * 20 in "".join(text.split())
        assert pasted(text, tmp_path) == command


def test_the_command_of_a_mail_can_be_pasted(tmp_path):
    """Mutation: wrap it where a line is full, also within quotes."""
    only = "odp-write and (soft-roce or connectx-5)"
    command = ["odp-harness", "regress", "--patch", "it's a b.diff", "--kernel", "7.3", "-k", only]
    command += ["--seeds", "16", "--plans", "testplans/odp-write.toml", f"--base={'x' * 90}", "-j", "2"]
    text = mail.text(REGRESSION_RESULT, command, 16)
    assert pasted(text, tmp_path) == command
    assert shlex.split(command_of(text).replace("\\\n", "")) == command
    long = [line for line in text.splitlines() if len(line) > 71]
    assert [line.strip(" \\") for line in long] == [f"--base={'x' * 90}"]


@pytest.mark.parametrize("joined", [False, True])
def test_a_long_path_of_a_patch_is_shortened_to_its_name(tmp_path, joined):
    """Mutations: keep it; take a range of commits for a path; shorten what fits."""

    def shown(patch):
        words = [f"--patch={patch}"] if joined else ["--patch", str(patch)]
        text = mail.text(REGRESSION_RESULT, ["odp-harness", "regress", *words], 16)
        return shlex.split(command_of(text).replace("\\\n", ""))[-1].removeprefix("--patch=")

    patch = tmp_path / ("d" * 60) / "v3 2.mbox"
    patch.parent.mkdir()
    patch.touch()
    assert shown(patch) == "v3 2.mbox"
    commits = f"{'a' * 30}/{'b' * 30}..{'c' * 30}/{'d' * 30}"
    assert shown(commits) == commits
    assert shown("/dev/null") == "/dev/null"


def lines_of(*metrics):
    comparison = Comparison(NO_DIFFERENCE, (), metrics)
    return mail.text(replace(SAME, comparison=comparison), ["odp-harness"], 16).splitlines()


STILL = replace(METRIC, patched=868, change=0)


@pytest.mark.parametrize(
    ("metrics", "claim"),
    [
        ((), "no latency was compared"),
        ((STILL,), "no latency moved."),
        ((STILL, replace(METRIC, noise_band=9)), "no latency moved beyond its noise band"),
        ((replace(METRIC, exact=False),), "no latency differs by more than chance"),
    ],
)
def test_a_mail_of_no_difference_claims_no_more_than_was_compared(metrics, claim):
    """Mutation: claim that nothing moved beyond a band, whatever was measured."""
    text = " ".join(" ".join(lines_of(*metrics)).split())
    claim = f"No new failure, console symptom or leak; {claim}"
    assert claim in text
    comparison = Comparison(NO_DIFFERENCE, (), metrics)
    result = replace(SAME, comparison=comparison)
    assert claim in side_by_side_html.render(comparison, [], [], result)
    # `compare` measures no noise band.
    assert "beyond its noise band" not in side_by_side_html.render(comparison, [], [])


def test_a_mail_of_no_difference_lists_some_metrics():
    """Mutations: list none; inconclusive ones first; those that moved least; a band that was not measured."""
    moved = replace(METRIC, noise_band=9)
    mean = replace(METRIC, statistic="mean", change=900, noise_band=40)
    many = [replace(STILL, case=f"odp-{n}/7.3/soft-roce") for n in range(9)]
    lines = lines_of(*many, mean, moved)
    at = lines.index("Compared, baseline -> patched:")
    title = "    minimum time in stage `checks` (map and lock pages): 868 ->"
    assert lines[at + 1 : at + 4] == [
        "  odp-0/7.3/soft-roce",
        f"{title} 868",
        "      instructions, +0; noise band: +/-5",
    ]
    assert "      instructions, +20; noise band: +/-9" in lines
    assert "And 5 more metrics." in lines and not any("mean time" in line for line in lines)
    assert "      instructions, +0" in lines_of(STILL)
    real = replace(
        STILL, exact=False, stage="fault", statistic="median", baseline=4200, patched=4400, change=200
    )
    text = " ".join(" ".join(lines_of(real)).split())
    assert "median time of one page fault, as the driver resolves it: 4.2 -> 4.4 us, +0.2 " in text


def test_a_mail_claims_nothing_where_no_case_ran():
    """A tree equal to the baseline. Mutation: report that there is no new failure."""
    text = mail.text(replace(SAME, cases=0, modules=()), ["odp-harness"], 16)
    assert "Result: no difference" in text and "No test ran." in text
    assert "No new failure" not in text and "Cases:" not in text
