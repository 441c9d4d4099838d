"""Judging outputs of a lab host's commands."""

import pytest

from harness.lab import rows
from harness.lab.check import Report
from harness.lab.finding import (
    BOTH,
    CARD,
    MISSING,
    NOTE,
    OK,
    SOFT_ROCE,
    UNKNOWN,
    Finding,
    Row,
    at_least,
    clean,
    present,
    version_at_least,
)


@pytest.mark.parametrize(
    ("judge", "output", "state"),
    [
        (at_least(1, "GiB", 1 << 20), "2097152 kB", OK),
        (at_least(1, "GiB", 1 << 20), "524288 kB", MISSING),
        (at_least(1, "GiB", 1 << 20), "", UNKNOWN),
        (version_at_least((3, 9)), "3.10.1", OK),
        (version_at_least((3, 9)), "3.8.20", MISSING),
        (version_at_least((3, 9)), "", MISSING),
        (rows._lockdown, "[none] integrity confidentiality", OK),
        (rows._lockdown, "none [integrity] confidentiality", NOTE),
        (rows._lockdown, "none integrity [confidentiality]", MISSING),
        (rows._kptr, "2", MISSING),
        (rows._kptr, "1", OK),
        (rows._odp_config, "CONFIG_INFINIBAND_ON_DEMAND_PAGING=y", OK),
        (rows._odp_config, "# CONFIG_INFINIBAND_ON_DEMAND_PAGING is not set", MISSING),
        (rows._soft_odp, "0", MISSING),
        (rows._soft_odp, "1", OK),
        (rows._inbox, "/lib/modules/7.3/kernel/drivers/net/mlx5_core.ko|", OK),
        (rows._inbox, "/lib/modules/7.3/updates/dkms/mlx5_core.ko|24.10-1.1.4", MISSING),
        (rows._inbox, "|", MISSING),
        (rows._over_card, "ens1f0np0 mlx5_core", NOTE),
        (rows._over_card, "eno1 igb", OK),
    ],
)
def test_states(judge, output, state):
    """Mutation: turn a comparison round, or compare versions as text."""
    assert judge(output)[0] == state


def test_a_command_that_fails_is_missing_where_it_is_needed_only():
    """Mutation: take each failure for missing."""
    for needed, state in ((BOTH, MISSING), ((), NOTE)):
        row = Row("programs", "bcc", "", present, "", "python3-bpfcc-{release}", needed)
        found = row.finding(1, "Traceback\nno bcc", {"release": "7.3"})
        assert (found.state, found.text) == (state, "no bcc")
        assert found.hint == ("apt-get install python3-bpfcc-7.3" if needed else "")


def test_text_of_a_host_cannot_control_the_terminal():
    """Mutation: print it as it comes."""
    assert clean("a\x1b[31m\r\nb\u202e" + "x" * 500).startswith("a [31m b x")
    assert len(clean("x" * 500)) == 160


def test_a_report_lists_what_is_in_the_way_of_each_device():
    """Mutation: let a note, or another device's need, count."""
    report = Report(
        "host",
        (
            Finding("kernel", "a", MISSING, "", "", "pkg-b", (SOFT_ROCE,)),
            Finding("kernel", "b", NOTE, "", "", "", (CARD,)),
            Finding("kernel", "c", MISSING, "", "", "pkg-a"),
            Finding("kernel", "d", UNKNOWN, "", needed=(SOFT_ROCE,)),
        ),
    )
    assert report.runs == (CARD,)
    assert [each.name for each in report.missing(SOFT_ROCE)] == ["a", "d"]
    assert report.install == "apt-get install pkg-a pkg-b"
