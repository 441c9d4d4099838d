"""Mutated tracers: each edit of the shipped probes or stages is caught by the count named here.

Each edit has a bundle of its own, so a boot and a preparation of its own: minutes.
"""

from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from harness import agent
from harness.plan.options import Options
from harness.plan.runner import CaseRunner
from harness.plan.session import Session
from harness.tests.vm.conftest import FULL
from harness.tests.vm.test_mutations import planned

pytestmark = pytest.mark.skipif(not FULL, reason="a boot and a preparation for each edit: ODP_FULL=1")

true_bundle = agent.bundle


@dataclass(frozen=True)
class Edit:
    """`old`, there exactly once in a shipped file, becomes `new`."""

    file: str
    old: str
    new: str


@contextmanager
def mutated(session, *edits):
    """Open a session whose machines are made from the bundle with these edits."""
    files = true_bundle()
    for edit in edits:
        path = f"harness/guest/{edit.file}"
        text = files[path].decode()
        assert text.count(edit.old) == 1, f"{edit.old!r} is not once in {path}"
        files[path] = text.replace(edit.old, edit.new).encode()
    with pytest.MonkeyPatch.context() as patch, Session(Options(cache=session.store.root), print) as own:
        patch.setattr(agent, "bundle", lambda: files)
        yield own


TENTH = Edit(
    "trace/probes.c",
    "\tif (records.ringbuf_output(",
    "\tu64 *calls = s->stages[STAGE_WHOLE].calls;\n"
    "\tif ((calls[0] + calls[1] + calls[2]) % 10 == 0)\n"
    "\t\t;\n"
    "\telse if (records.ringbuf_output(",
)
BY_THREAD = (
    Edit("trace/probes.c", "thread * SLOTS + slot;\n\tstruct call call", "thread;\n\tstruct call call"),
    Edit("trace/probes.c", "thread * SLOTS + slot;\n\tstruct call *call", "thread;\n\tstruct call *call"),
)

SWAPPED = (
    Edit("trace/stages.py", '("mlx5r_umr_post_send_wait",)', '("SWAPPED",)'),
    Edit("trace/stages.py", '("mlx5_ib_page_fault_resume",)', '("mlx5r_umr_post_send_wait",)'),
    Edit("trace/stages.py", '("SWAPPED",)', '("mlx5_ib_page_fault_resume",)'),
)


@pytest.mark.parametrize(
    ("edits", "device", "text"),
    [
        ((TENTH,), "soft-roce", "records: "),
        (BY_THREAD, "connectx-5", "works: expected "),
        (SWAPPED, "connectx-5", "resumes: expected "),
    ],
    ids=["every tenth record dropped in silence", "joined by thread only", "two stages swapped"],
)
def test_a_count_catches_a_mutated_tracer(session, edits, device, text):
    """Apply the mutation, which is the edit."""
    with mutated(session, *edits) as changed:
        record, logs = CaseRunner(changed).run(planned("mutated", device=device))
    assert record.verdict == "fail", logs.console[-2000:]
    assert any(text in reason.text for reason in record.reasons), record.reasons
