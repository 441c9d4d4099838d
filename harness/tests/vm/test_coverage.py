"""Block coverage of a case, from a real guest and a real module."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from harness.campaign.builds import build_modules
from harness.kernel import line_tables
from harness.kernel.build import SECTIONS
from harness.kernel.source import source
from harness.kernel.subsystems import RXE
from harness.plan.answer_diff import first_difference
from harness.plan.plan import load
from harness.plan.runner import CaseRunner
from harness.plan.session import Session
from harness.tests.vm.conftest import FULL, harness, interrupted

PLAN = Path(__file__).parents[3] / "testplans" / "odp-write.toml"

pytestmark = pytest.mark.skipif(not FULL, reason="builds rdma_rxe: ODP_FULL=1")


def test_coverage_changes_no_answer_and_finds_the_lines(session, tmp_path):
    """Mutations: log blocks from before the case; map offsets to another section; log inside of the guest."""
    kernel = session.kernel("7.3")
    built = build_modules(session, kernel, source(kernel, session.archive), [RXE])
    files, tables = built.files, built.line_tables
    for place, path in files.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(path.read_bytes())
    planned = next(load(PLAN).cases(("7.3",), devices=("soft-roce",)))
    answers, ran = {}, {}
    for blocks in ((), ("rdma_rxe",)):
        with Session(replace(session.options, payload=tmp_path, blocks=blocks), print) as own:
            record, logs = CaseRunner(own).run(planned)
        assert record.verdict == "pass", record.reasons
        answers[blocks] = record.answer
        ran = logs.blocks or ran
    assert not first_difference(*answers.values())
    table = line_tables.read(tables["rdma_rxe"], source(kernel, session.archive) / RXE.folder)
    reached = table.ran(ran["rdma_rxe"])["rxe_odp.c"]
    functions = {each.name: each.lines for each in table.functions}
    assert len(reached & functions["rxe_odp_map_range_and_lock"]) > 10
    assert reached & functions["rxe_ib_invalidate_range"]
    assert not reached & functions["rxe_ib_advise_mr"]


def test_interrupted_coverage_is_resumed(session, tmp_path):
    """Mutation: need another --results; run all cases again."""
    argv = ["coverage", PLAN, "--kernel", "7.3", "-k", "soft-roce", "-j", 1, "--file", "rxe_odp.c"]
    before = interrupted(tmp_path / "r", "coverage", 1, tmp_path / "log", *argv)
    done = harness(*argv, "--resume", tmp_path / "r", timeout=900)
    assert done.returncode == 0 and "resuming the cases" in done.stderr, done.stderr
    assert before == {path: path.read_bytes() for path in before}
    assert "rxe_odp_map_range_and_lock" in done.stdout


def test_functions_keep_their_sections(session):
    """Use 6.1, whose modules have cold code in .text.unlikely. Mutation: link by ld's own script: it is in .text."""
    kernel = session.kernel("6.1")
    built = build_modules(session, kernel, source(kernel, session.archive), [RXE])
    files, tables = built.files, built.line_tables
    (module,) = (path for path in files.values() if path.stem == "rdma_rxe")

    def symbols(path):
        output = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout.split("\n")
        return {tuple(line.split()[::2]) for line in output if line.split()[1:2] in (["t"], ["T"])}

    listed = [line.split() for line in tables["rdma_rxe"].read_text().splitlines()]
    placed = {(words[0], words[3]) for words in listed if len(words) == 4 and words[2] in ("t", "T")}
    places = {(f"{int(start, 16) % SECTIONS['.text']:016x}", name) for start, name in placed}
    assert any(SECTIONS[".text.unlikely"] <= int(start, 16) < SECTIONS[".exit.text"] for start, _ in placed)
    assert len(places) > 100 and places <= symbols(module)
