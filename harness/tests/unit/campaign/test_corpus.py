"""Bugs of the past: entries, their edits, and the verdict from records with and without one."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.campaign import corpus, corpus_entry
from harness.campaign.corpus import CANNOT_APPLY, CAUGHT, MISSED, Outcome, verdict
from harness.cli import corpus as cli
from harness.cli import main
from harness.errors import EXIT_INTERRUPTED, SetupError, Unsupported, UsageError
from harness.kernel.subsystems import touched
from harness.tests.unit.results.sample import record
from harness.values.record import Reason

ENTRIES = Path(__file__).parents[4] / "testplans" / "regressions"

GOOD = """\
title = "t"
fix = "0123456789ab"
kernel = "7.3"
device = "soft-roce"
plans = ["odp-x"]

[[edit]]
file = "drivers/x.c"
old = "one"
new = "two"
"""


@pytest.fixture
def written(tmp_path):
    (tmp_path / "odp-x.toml").touch()
    (tmp_path / "regressions").mkdir()

    def write(text):
        path = tmp_path / "regressions" / "bug.toml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("path", sorted(ENTRIES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_entry_is_valid(path):
    """Mutation: misspell a key, a plan or a file of one."""
    bug = corpus_entry.load(path)
    parts, outside = touched(edit.file for edit in bug.edits)
    assert parts and not outside and len(bug.fix) == 12
    assert any(bug.device in part.devices for part in parts)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("fix =", "fixed =", r"bug.toml:2: fixed: unknown key"),
        ('title = "t"\n', "", r"title: missing"),
        ('["odp-x"]', '["odp-y"]', r"bug.toml:5: plans: no plan 'odp-y'"),
        ("new =", "now =", r"edit.now: unknown key"),
        ('new = "two"\n', "", r"edit.new: missing"),
        ('"soft-roce"', '"soft-rose"', r"device: 'soft-rose' is none of"),
    ],
)
def test_a_broken_entry_is_one_clear_error(written, old, new, message):
    """Mutation: leave a check out."""
    corpus_entry.load(written(GOOD))
    with pytest.raises(UsageError, match=message):
        corpus_entry.load(written(GOOD.replace(old, new)))


def test_an_edit_applies_exactly_once_or_is_an_error(written, tmp_path):
    """Mutation: replace every place."""
    bug = corpus_entry.load(written(GOOD))
    file = tmp_path / "drivers" / "x.c"
    with pytest.raises(UsageError, match="this kernel has no drivers/x.c"):
        corpus_entry.apply(bug, tmp_path)
    file.parent.mkdir()
    for text, times in (("none", 0), ("one one", 2)):
        file.write_text(text.replace("none", "zero"))
        with pytest.raises(UsageError, match=f"has 'one' {times} times, not once"):
            corpus_entry.apply(bug, tmp_path)
    file.write_text("a one b")
    corpus_entry.apply(bug, tmp_path)
    assert file.read_text() == "a two b"


def test_a_bug_is_caught_by_cases_that_fail_only_with_it():
    """Mutation: count a failure that is there without the bug; take an error for a miss."""
    good, bad = record(1, "pass"), record(1, "fail")
    bad = replace(bad, reasons=(Reason("data", "7 of 9 bytes are wrong"),))
    before = {good.case.id: good}
    assert verdict(before, [bad]) == (CAUGHT, bad.case.id, "data: 7 of 9 bytes are wrong")
    assert verdict(before, [good])[0] == MISSED
    assert verdict({bad.case.id: bad}, [bad])[0] == MISSED
    assert verdict(before, [record(1, "error")])[0] == CANNOT_APPLY
    assert verdict(before, []) == (CANNOT_APPLY, "", "no case was executed")


def test_a_kernel_that_is_not_available_fails_its_own_entries_only(written, tmp_path):
    """Mutation: let Unsupported end the corpus."""
    bug = corpus_entry.load(written(GOOD))
    bugs = [bug, replace(bug, path=Path("other.toml"), kernel="7.2")]
    errors = {
        "7.3": Unsupported("the archive has no kernel of the series 7.3 any more"),
        "7.2": SetupError("no network", ["apt-get: cannot resolve"]),
    }

    def kernel(series):
        raise errors[series]

    session = SimpleNamespace(say=lambda line: None, kernel=kernel)
    results = list(corpus.run(session, bugs, tmp_path, tmp_path / "r", 1))
    assert [(one.entry, one.outcome, one.reason) for one in results] == [
        ("bug", CANNOT_APPLY, "the archive has no kernel of the series 7.3 any more"),
        ("other", CANNOT_APPLY, "no network; apt-get: cannot resolve"),
    ]


@pytest.mark.parametrize("as_json", [False, True])
def test_outcomes_until_ctrl_c_are_printed(monkeypatch, tmp_path, capfd, as_json):
    """Mutations: print the totals after the loop only; take the interruption for the end."""
    done = Outcome("bug", "0123456789ab", "7.3", CAUGHT, "odp-x/7.3", "data: 7 bytes", 12.0)

    def run(*ignored):
        yield done
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run", run)
    monkeypatch.setattr(cli, "open_session", lambda arguments: contextlib.nullcontext())
    files = sorted(map(str, ENTRIES.glob("*.toml")))[:3]
    argv = ["corpus", *files, "--results", str(tmp_path / "r"), "--cache", str(tmp_path / "cache")]
    assert main([*argv, "--json"] if as_json else argv) == EXIT_INTERRUPTED
    output = capfd.readouterr().out
    if as_json:
        result = json.loads(output)
        assert (result["caught"], result["not_run"], [one["entry"] for one in result["entries"]]) == (
            1,
            2,
            ["bug"],
        )
    else:
        assert "1 caught, 0 missed, 0 cannot_apply, 2 not run" in output and "data: 7 bytes" in output


def test_an_unknown_bug_is_a_usage_error(capsys):
    """Mutation: print the error of open(2)."""
    assert main(["corpus", "rxe-read-onyl"]) == 2
    message = capsys.readouterr().err
    assert "no bug is called rxe-read-onyl" in message and "rxe-read-only" in message
