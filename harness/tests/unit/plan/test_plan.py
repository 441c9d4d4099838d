import pytest

from harness.errors import UsageError
from harness.plan.plan import load

GOOD = """\
title = "t"
needs = ["odp.rc.write"]

[matrix]
kernel = ["7.2", "7.3"]
"remote.offset" = [0, 100]

[workload]
operation = "write"
rounds = 2
pages = 3

[faults]
how = "dontneed"
side = "remote"

[expect.latency]
fault_p99_ns = 20000
"""


def _load(tmp_path, text):
    path = tmp_path / "x.toml"
    path.write_text(text)
    return load(path)


def test_matrix_is_the_product(tmp_path):
    """Mutation: zip the axes."""
    cases = list(_load(tmp_path, GOOD).cases())
    assert [planned.case.id for planned in cases] == [
        "x/7.2/soft-roce/remote.offset=0",
        "x/7.2/soft-roce/remote.offset=100",
        "x/7.3/soft-roce/remote.offset=0",
        "x/7.3/soft-roce/remote.offset=100",
    ]
    work = cases[1].case.workload
    assert (work.remote.offset, work.local.offset, work.remote.length) == (100, 0, 3 * 4096)
    assert cases[0].plan.expect.latency == {"fault_p99_ns": 20000}
    assert cases[0].clock == "exact"


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ("rounds = 2", "round = 2", r"x.toml:10: workload.round: unknown key", "'rounds'?"),
        (
            'how = "dontneed"',
            'how = "dontned"',
            r"x.toml:14: faults.how: 'dontned' is none of",
            "'dontneed'?",
        ),
        ("rounds = 2", "rounds = 0", r"x.toml:10: workload.rounds: 0 is not in 1", ""),
        ("rounds = 2", 'rounds = "2"', r"x.toml:10: workload.rounds: expected int", ""),
        ("rounds = 2", "rounds = 2 3", r"x.toml:10: not TOML", ""),
        ('kernel = ["7.2", "7.3"]', 'kernel = ["7.9"]', r"x.toml:5: matrix.kernel: '7.9' is none of", ""),
        ('"remote.offset" = [0, 100]', '"remote.ofset" = [0]', r"x.toml:6: matrix.remote.ofset", "offset"),
        ("[0, 100]", "[0, 5000]", r"x.toml:6: matrix.remote.offset: 5000 is not in 0..4095", ""),
        ("pages = 3", "pages = 3\nlength = 7", r"x.toml:12: workload.length: contradicts", ""),
        (
            'side = "remote"',
            'side = "both"\n[workload.local]\nodp = false',
            r"faults.side: loses pages of the local",
            "",
        ),
        ('title = "t"', "", r"title: missing", ""),
        ("fault_p99_ns = 20000", "fault_p98_ns = 1", r"expect.latency.fault_p98_ns: unknown key", ""),
    ],
)
def test_errors_name_file_line_and_key(tmp_path, old, new, message, hint):
    """Mutation: drop the line search, or one of the checks."""
    assert old in GOOD
    with pytest.raises(UsageError, match=message) as caught:
        _load(tmp_path, GOOD.replace(old, new))
    assert hint in caught.value.hint


def test_known_needs_all_three_keys(tmp_path):
    """Mutation: accept an entry without a text."""
    entry = '\n[[known]]\nkernel = "7.2"\nkinds = ["law"]\n'
    with pytest.raises(UsageError, match="known.text: missing"):
        _load(tmp_path, GOOD + entry)
    assert _load(tmp_path, GOOD + entry + 'text = "why"\n').known[0].kinds == ("law",)
