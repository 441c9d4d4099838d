"""The exception tree and how an error prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import harness.connectx.firmware
import harness.host
import harness.host.ssh_keys
import harness.wire.ifc  # noqa: F401
from harness import errors
from harness.errors import HarnessError


def subclasses(kind):
    own = [child for child in kind.__subclasses__() if ".tests." not in child.__module__]
    return {each for child in own for each in (child, *subclasses(child))}


def test_the_docstring_draws_the_tree():
    """Mutation: leave a class out, or put it below another one."""
    drawn, path = {}, []
    for spaces, name in re.findall(r"^( {4,})([A-Z]\w+)", errors.__doc__, re.M):
        path = [*path[: len(spaces) // 2 - 2], name]
        drawn[name] = path[-2] if len(path) > 1 else ""
    assert drawn.pop("FirmwareError") == "" and drawn.pop("HarnessError") == ""
    assert drawn == {kind.__name__: kind.__bases__[0].__name__ for kind in subclasses(HarnessError)}


def test_an_error_prints_headline_evidence_and_hint():
    """Mutation: leave out the evidence, or its indentation."""
    error = HarnessError("it broke", ["$ make", "no rule"], "make it again")
    assert str(error) == "it broke\n  $ make\n  no rule\n  try: make it again"
    assert error.line == "it broke; make it again" and HarnessError("it broke").render() == "it broke"


@pytest.mark.parametrize(
    ("name", "status"),
    [("UsageError", 2), ("SetupError", 3), ("Unsupported", 0), ("GuestError", 1), ("Crash", 1)],
)
def test_exit_status(name, status):
    """Mutation: let a crash of the guest be an error of the set-up."""
    assert getattr(errors, name).exit_status == status


def test_a_command_that_fails_has_its_command_and_output_as_evidence():
    """Mutation: leave out the command line."""
    finished = harness.host.Finished(("/bin/tar", "-x"), 2, "a\nb\n", 0.1)
    error = harness.host.CommandError(finished, "exit status 2")
    assert error.headline == "tar: exit status 2" and error.evidence == ("/bin/tar -x", "a", "b")


def test_every_class_is_in_a_module_that_the_tree_names():
    """Mutation: define an exception in a module without an entry in the tree."""
    root = Path(errors.__file__).parent
    names = {kind.__name__ for kind in subclasses(HarnessError)}
    pattern = re.compile(
        r"^class (\w+)\((?:HarnessError|UsageError|SetupError|Unsupported|GuestError)\b", re.M
    )
    files = [path for path in root.rglob("*.py") if not {"tests", "guest"} & set(path.parts)]
    assert {name for path in files for name in pattern.findall(path.read_text())} <= names
