"""Cases run before a machine is saved."""

from harness.guest import rehearsal
from harness.values.case import MAPPINGS, PAGE_LOSSES, TRANSFERS


def test_rehearsal_has_every_operation_method_and_mapping():
    """Mutation: rehearse fewer page-loss methods: a case would read the disk for the first time."""
    workloads = rehearsal.rehearsals()
    assert {w.operation for w in workloads} == set(TRANSFERS) | set(rehearsal.SCENARIOS)
    assert {w.loss.method for w in workloads} == set(PAGE_LOSSES)
    assert {r.mapping for w in workloads for r in (w.local, w.remote)} == set(MAPPINGS)
