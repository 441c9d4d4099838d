"""The glossary of CONTRIBUTING.md: text of the repository uses its words, and not those that it replaced."""

import re
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]
SEARCHED = ("harness", "kmod", "testplans", "docs", "vm-images", "README.md", "setup.cfg", "tox.ini")
RECORDINGS = "harness/tests/data/"
"""Logs and packets as they came; programs beside them are searched."""
PROGRAMS = (".py", ".c", ".h", ".sh", ".patch")

INSTEAD = {
    r"\blaws?\b": "expected counts",
    r"\bnull bands?\b": "noise band",
    r"\bchange nothing\b": "no-op change",
    r"\bfail(s|ed)? as known\b": "known failure",
    r"\bstudios?\b": "MachineFactory, snapshots",
    r"\bparcels?\b": "payload disk",
    r"\bwhat (comes|came) of\b": "result, or what is cached",
    r"\b(has|had|have) its way\b": "acted",
    r"\b(gives?|gave|given|giving)( \w+)? back\b": "deregister, free, release",
    r"\banew\b": "again",
    r"\btold\b|\btells? of\b": "reported",
    r"\b(take|takes|took|taken|taking)( \w+)? leave\b": "unregister",
    r"\blet(s|ting)?( \w+)? go\b": "release",
    r"\bnear (end|side)s?\b": "local, requester",
    r"\bfar (end|side)s?\b": "remote, responder",
    r"\bwhoever\b": "the name of the part",
    r"(?<!at)_most\b": "MAX_",
    r"(?<!at)_least\b": "MIN_",
    r"\bdeeds?\b": "override, effect of a rule",
    r"\bforge[ds]?\b": "injected, bogus",
    r"\bovertaken\b": "race, invalidated while faulting",
    r"\bamid\b": "race, during",
    r"\bvictims?\b": "page, region",
    r"\blo(ses?|st|sing) (a|the|its|their) pages?\b": "invalidate, evict, migrate, unmap, discard",
    r"\bshortest way\b": "minimum",
    r"\bpeeked\b": "read_faulted",
    r"\bseed-[\w*-]+\.toml\b": "odp2015-*.toml",
    r"\bwitness(es)?\b": "device report",
    r"\ban order\b|\bthe order `": "request",
}

ALLOWED = {
    # Plans that use a former name get the new one in the error.
    ("harness/plan/schema.py", '"expect.laws": "expect.counts"'),
    ("harness/plan/schema.py", '"expect.card_most": "expect.card_max"'),
    ("harness/plan/schema.py", '("known.kinds", "law"): "count"'),
    ("harness/plan/schema.py", '("page_loss.method", "peeked"): "read_faulted"'),
    ("harness/tests/unit/plan/test_plan.py", "expect.laws: is called expect.counts now"),
    ("harness/tests/unit/plan/test_plan.py", "expect.card_most.faults.open: is called expect.card_max"),
    ("harness/tests/unit/plan/test_plan.py", "known.kinds: 'law' is called 'count' now"),
    ("harness/tests/unit/plan/test_plan.py", "page_loss.method: 'peeked' is called 'read_faulted' now"),
    # A line of TAP that a hostile guest forges.
    ("harness/tests/unit/results/sample.py", "ok 9 forged"),
    # The kernel's order: log2 of a number of pages.
    ("harness/tests/unit/guest/test_fragmented.py", "begin an order lower"),
}


def replaced_words(text):
    """Yield each replaced word of a text, with its line and the word to use."""
    for pattern, instead in INSTEAD.items():
        for match in re.finditer(pattern, text, re.IGNORECASE):
            start = text.rfind("\n", 0, match.start()) + 1
            line = text[start:].partition("\n")[0].strip()
            yield text.count("\n", 0, start) + 1, line, match.group(), instead


@pytest.fixture(scope="module")
def files():
    """Return the searched text files by their path in the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *SEARCHED], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("no git checkout")
    this = str(Path(__file__).relative_to(CHECKOUT))
    paths = [path for path in listed.stdout.split("\0") if path and path != this]
    paths = [path for path in paths if not path.startswith(RECORDINGS) or path.endswith(PROGRAMS)]
    return {path: (CHECKOUT / path).read_text() for path in paths if (CHECKOUT / path).is_file()}


def test_no_file_uses_a_word_that_the_glossary_replaced(files):
    """Mutation: write any word of INSTEAD into a comment or a string."""
    assert len(files) > 500
    wrong = [
        f"{path}:{number}: {word!r}: write {instead}"
        for path, text in files.items()
        for number, line, word, instead in replaced_words(text)
        if not any(path == allowed and part in line for allowed, part in ALLOWED)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_exception_is_in_use(files):
    """Mutation: leave an exception in ALLOWED when its line has gone."""
    assert not [(path, part) for path, part in ALLOWED if part not in files.get(path, "")]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "a law",
            "null bands",
            "builds that change nothing",
            "it failed as known",
            "the studio",
            "a parcel",
        ),
        *(
            "what comes of it",
            "the rule has its way",
            "given back",
            "gives it back",
            "anew",
            "is told",
            "tells of",
        ),
        *(
            "takes its leave",
            "lets it go",
            "the near end",
            "far sides",
            "whoever",
            "FAULTS_MOST",
            "ROUNDS_LEAST",
        ),
        *(
            "deed",
            "forged",
            "overtaken",
            "amid",
            "victim",
            "loses a page",
            "lost its pages",
            "the shortest way",
        ),
        *("peeked", "seed-*.toml", "seed-write-flags.toml", "witness", "an order", "the order `case`"),
    ],
)
def test_a_replaced_word_is_reported(text):
    """Mutation: break its pattern."""
    assert list(replaced_words(f"# one\n# {text}\n"))


@pytest.mark.parametrize(
    "text", ["at most", "at_least = 1", "in this order", "the order of them", "so far", "let the guest run"]
)
def test_plain_english_is_not_reported(text):
    """Mutation: match without word boundaries, or `order` alone."""
    assert not list(replaced_words(text))
