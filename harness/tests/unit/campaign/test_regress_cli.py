"""The command line of `regress`: exit status for git bisect, default kernel, ranges, reports."""

import argparse
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import kcidb_io
import pytest

from harness.campaign.compare import compare
from harness.campaign.question import RegressRequest
from harness.cli import main, regress
from harness.errors import SetupError, Unsupported, UsageError
from harness.kernel.subsystems import RXE
from harness.results.reports import REPORTS
from harness.tests.unit.campaign.test_mail import REGRESSION_RESULT
from harness.tests.unit.results.sample import ENVIRONMENT, record, stored


def test_each_run_of_both_sides_has_its_reports(tmp_path):
    """Mutations: write the page alone; of the first round only; of a folder without records; both sides one build."""
    folders = ("baseline-round-1", "baseline-round-2", "patched-round-1", "patched-round-2", "noise")
    for number, name in enumerate(folders):
        had = {**ENVIRONMENT, "machine.payload": "rdma_rxe", "payload": name.split("-")[0]}
        stored(tmp_path / name, [record(number, environment=had)])
    (tmp_path / "patched" / "payload").mkdir(parents=True)
    result = replace(REGRESSION_RESULT, comparison=compare([], []))
    page = regress._page(result, RegressRequest("q", "7.3", (), tmp_path))
    assert page.read_text().count('class="pair"') == 4
    made = {str(path.parent.name) for path in tmp_path.glob("*/kcidb.json")}
    assert made == set(folders[:4])
    builds = []
    for name in folders[:4]:
        assert {path.name for path in (tmp_path / name).iterdir() if path.is_file()} == {
            "index.json",
            *REPORTS,
        }
        document = json.loads((tmp_path / name / "kcidb.json").read_text())
        kcidb_io.schema.LATEST.validate(document)
        builds += [build["id"] for build in document["builds"]]
    assert builds[0] == builds[1] != builds[2] == builds[3]


def test_the_command_to_reproduce_names_no_folder_of_results():
    """Mutation: keep the path of another machine in it."""
    argv = ["regress", "--patch", "a b.diff", "--results", "/x", "--mail", "--results=/y", "--seeds", "4"]
    assert regress._reproduce(argv) == ["regress", "--patch", "a b.diff", "--seeds", "4"]


def arguments(**options):
    defaults = {"bisect": True, "tree": None, "patch": None}
    return argparse.Namespace(**{**defaults, **options})


@pytest.mark.parametrize(
    ("raised", "place", "options", "status"),
    [
        (SetupError("does not build"), "_judged", {"tree": Path()}, 125),
        (UsageError("no kernel tree"), "_judged", {"tree": Path()}, 125),
        (UsageError("no such kernel"), "_resolve", {}, 128),
        (Unsupported("no kernel of that series any more"), "_resolve", {}, 125),
        (UsageError("no such plan"), "_question", {}, 128),
        (UsageError("no such plan"), "_question", {"tree": Path()}, 128),
    ],
)
def test_bisect_skips_commits_that_cannot_be_tested(monkeypatch, raised, place, options, status):
    """Mutations: exit 1 for a build failure, which is bad to bisect; 125 for an unknown plan, which skips all."""

    def fail(*ignored):
        raise raised

    monkeypatch.setattr(regress, "_question", lambda arguments: None)
    monkeypatch.setattr(regress, "_check_inputs", lambda *ignored: None)
    monkeypatch.setattr(regress, "_resolve", lambda *ignored: None)
    monkeypatch.setattr(regress, place, fail)
    assert regress.act(arguments(**options)) == status
    assert set(regress.BISECT.values()) == {0, 1, 125}


def test_bisect_never_takes_an_error_of_ours_for_a_bad_commit(monkeypatch, capfd):
    """git takes 1 and 2 for a bad commit. Mutations: argparse's own status; Python's own."""
    assert main(["regress", "--bisect", "--tree", ".", "--sedes", "4"]) == 128
    assert main(["regress", "--tree", ".", "--sedes", "4"]) == 2
    monkeypatch.setattr(regress, "_question", lambda arguments: None)
    monkeypatch.setattr(regress, "_check_inputs", lambda *ignored: None)
    monkeypatch.setattr(regress, "_resolve", lambda *ignored: None)
    monkeypatch.setattr(regress, "_judged", lambda *ignored: {}["x"])
    assert regress.act(arguments(tree=Path())) == 125
    assert "KeyError" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("changed", "kernel"),
    [
        ({"patch": "A..B"}, "own"),
        ({"patch": "A..B", "kernel": "7.2"}, "7.2"),
        ({"patch": "A..B", "base": "7.2"}, "7.2"),
        ({"patch": "p.diff"}, "newest"),
        ({"patch": None}, "newest"),
    ],
)
def test_a_range_of_a_built_tree_runs_its_kernel(changed, kernel, tmp_path, monkeypatch):
    """Mutation: always; never; although another kernel is named."""
    options = {"kernel": None, "base": None, "tree": tmp_path, **changed}
    monkeypatch.setattr(regress, "is_built", lambda folder: folder == tmp_path)
    assert regress._kernel(argparse.Namespace(**options)) == (str(tmp_path) if kernel == "own" else kernel)
    assert regress._kernel(argparse.Namespace(**options | {"tree": Path("/not/built"), **changed})) == (
        "newest" if kernel == "own" else kernel
    )


@pytest.mark.parametrize(
    ("text", "is_range"),
    [
        ("HEAD~1..HEAD", True),
        ("v7.2...mlx5/odp", True),
        ("mlx5/a..mlx5/b", True),
        ("HEAD~3..", True),
        ("..topic", True),
        ("../typo.diff", False),
        ("patches/../typo.diff", False),
        ("../../0001-x.patch", False),
        ("a.diff", False),
    ],
)
def test_a_range_of_commits_is_distinguished_from_a_path(text, is_range):
    """Mutation: ask git about a path that is spelled wrong."""
    assert regress._is_range(text) is is_range


@pytest.mark.parametrize("option", [("--seeds", "0"), ("--real", "0"), ("--real", "-5")])
def test_seeds_and_effect_must_be_positive(option, capsys):
    """Mutation: run for ever, or nothing, and call it no difference."""
    assert main(["regress", "--patch", "x.diff", *option]) == 2
    assert option[0] in capsys.readouterr().err


BAD_PATCHES = {
    "nope.diff": None,
    "words.diff": "no diff in here\n",
    "folder": Path(),
    "broken.diff": "--- a/f\n+++ b/f\n@@ -1,9 +1,9 @@\n x\n",
}


@pytest.mark.parametrize("name", BAD_PATCHES)
def test_a_malformed_patch_ends_a_bisect(tmp_path, name, capsys):
    """Mutation: skip (125), at every commit."""
    content = BAD_PATCHES[name]
    if isinstance(content, str):
        (tmp_path / name).write_text(content)
    elif content is not None:
        (tmp_path / name).mkdir()
    argv = ["regress", "--patch", str(tmp_path / name), "--results", str(tmp_path / "r")]
    assert main([*argv, "--bisect", "--cache", str(tmp_path / "c")]) == 128
    assert str(tmp_path / name) in capsys.readouterr().err


def test_other_usage_errors_end_a_bisect(tmp_path, monkeypatch, capsys):
    """A commit that cannot be tested is skipped. Mutations: take `_check_inputs` or `session.spec` out."""
    monkeypatch.setattr(regress, "_judged", lambda *ignored: 0)
    tree = tmp_path / "linux"
    (tree / RXE.folder).mkdir(parents=True)
    (tree / RXE.folder / "rxe.c").write_text("1\n")
    (tmp_path / "empty").mkdir()
    git = ("git", "-c", "user.name=x", "-c", "user.email=x@y", "-C", str(tree))
    for words in (
        ("init", "-q"),
        ("add", "."),
        ("commit", "-qm", "1"),
        ("commit", "-qm", "2", "--allow-empty"),
    ):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "p.diff").write_text(
        f"--- a/{RXE.folder}/rxe.c\n+++ b/{RXE.folder}/rxe.c\n@@ -1 +1 @@\n-1\n+2\n"
    )

    def status(*words):
        common = [
            "--bisect",
            "--results",
            str(tmp_path / "r"),
            "--cache",
            str(tmp_path / "c"),
            "--kernel",
            "7.3",
        ]
        return main(["regress", *common, *map(str, words)])

    assert status("--tree", tree) == 0
    assert status("--tree", tree, "--patch", "HEAD~1..HEAD") == 0, "an empty commit is one to skip"
    assert status("--patch", tmp_path / "p.diff", "--base", tree) == 0
    assert status("--tree", tmp_path / "nowhere") == 128
    assert status("--tree", tmp_path / "empty") == 128
    assert status("--tree", tree, "--patch", "v9..HEAD") == 128
    assert status("--tree", tmp_path / "empty", "--patch", "HEAD~1..HEAD") == 128
    assert status("--tree", tree, "--patch", tmp_path / "p.diff") == 128
    assert status("--patch", tmp_path / "p.diff", "--base", tmp_path / "empty") == 128
    assert status("--tree", tree, "--image", "nope") == 128
    assert status("--tree", tree, "--vm-images", tmp_path / "nowhere") == 128
    assert status("--tree", tree, "--cache-limit", "much") == 128
    assert status("--tree", tree, "-k", "(") == 128
    assert status("--tree", tree, "--real", "0") == 128
    assert "Traceback" not in capsys.readouterr().err
