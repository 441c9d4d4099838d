"""Mutated cards: each edit of the card's code makes a case of the unmodified driver fail by a count.

The card is a process of its own: it runs from an edited copy of the package, everything else from the checkout.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

import harness
from harness.plan.plan import Expect, Plan, Planned
from harness.plan.runner import CaseRunner
from harness.values.case import Case, PageLoss, Region, Workload

PAGES = 27


@dataclass(frozen=True)
class Edit:
    """`old` (a pattern), once in all of connectx/, becomes `new`; `reason` then fails the case."""

    name: str
    old: str
    new: str
    how: str
    side: str
    reason: str


EDITS = (
    Edit(
        "bytes-committed",
        r"bytes_committed=operation\.done,(\s+wqe_index)",
        r"bytes_committed=max(0, operation.done - 1),\1",
        "holes",
        "local",
        f"page_faults_local: expected {2 * (PAGES - 8)} ",
    ),
    Edit(
        "read-only",
        r"MTT_WRITE if write else MTT_READ",
        "MTT_READ",
        "read_faulted",
        "remote",
        "faults_remote: expected 2 ",
    ),
    Edit(
        "fault-uncounted",
        r"self\.resumed \+= 1",
        "self.resumed += self.raised % 2",
        "dontneed",
        "remote",
        "card: 2 page faults raised, 1 ended or open",
    ),
)


def planned(edit):
    """Plan two rounds of a write, on private memory of a file: nothing else is damaged by a mutated card."""
    region = Region(PAGES * 4096, mapping="file")
    case = Case(
        edit.name, "connectx-5", Workload("write", 2, region, region, PageLoss(edit.how, edit.side), 4096)
    )
    plan = Plan(Path("mutant.toml"), "t", (), ("newest",), ("connectx-5",), {}, {}, Expect(), ())
    return Planned(plan, "newest", case, "real", 120)


def edited(edit, folder):
    """Copy the package with the edit in it; return the folder to run a card from."""
    package = folder / "harness"
    tests = shutil.ignore_patterns("tests", "__pycache__")
    shutil.copytree(Path(harness.__file__).parent, package, ignore=tests)
    hits = [path for path in (package / "connectx").rglob("*.py") if re.search(edit.old, path.read_text())]
    assert len(hits) == 1, f"{edit.old} is in {hits}"
    text, count = re.subn(edit.old, edit.new, hits[0].read_text())
    assert count == 1
    hits[0].write_text(text)
    return folder


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)
def test_a_mutated_card_fails_a_count(session, edit, tmp_path, monkeypatch):
    """Apply the mutation, which is the edit; the same case on the real card passes next."""
    with monkeypatch.context() as patch:
        patch.chdir(edited(edit, tmp_path))
        patch.setenv("PYTHONPATH", str(tmp_path))
        record, logs = CaseRunner(session).run(planned(edit))
    assert record.verdict == "fail", logs.console[-2000:]
    assert any(reason.kind == "count" and edit.reason in reason.text for reason in record.reasons), (
        record.reasons
    )
    record, _ = CaseRunner(session).run(planned(edit))
    assert (record.verdict, record.reasons) == ("pass", ())
