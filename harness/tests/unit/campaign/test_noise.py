"""Changes that change nothing do change the source."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from harness.campaign import noise
from harness.campaign.noise import (
    BAND,
    variants,
)
from harness.campaign.runs import KEY, RegressRequest
from harness.kernel.subsystems import (
    CORE,
    PARTS,
    RXE,
)
from harness.results.record import write_atomically
from harness.store import Store
from harness.tests.unit.campaign.test_compare import runs
from harness.values.histogram import Histogram
from harness.values.record import Reason

STATIC = (
    "static int part{n}(struct mr *mr,\n\t\t    u64 iova)\n"
    "{{\n\tif (mr) {{\n\t\treturn {n};\n\t}}\n\treturn 0;\n}}\n"
)
OPS = "static const struct ops ops = {\n\t.fault = part0,\n};\n"
FAULT = "int fault(void)\n{\n\treturn 0;\n}\n"
ONLY_SOME = "#ifdef CONFIG_Z\nstatic int only(void)\n{\n\treturn 1;\n}\n#endif\n"
PLACES = "\n".join((*(STATIC.format(n=n) for n in range(11)), OPS, ONLY_SOME, FAULT))
SOURCE = f'// x\n#include <a.h>\n#include "b.h"\n\n{PLACES}'
MAKEFILE = "obj-$(CONFIG_X) += rdma_rxe.o\n\nrdma_rxe-y := \\\n\trxe.o \\\n\trxe_odp.o\nrdma_rxe-$(CONFIG_Y) += y.o\n"


@pytest.mark.parametrize("variant", [*BAND, *variants(10)], ids=str)
def test_each_variant_differs_and_keeps_the_code(tmp_path, variant):
    """Mutation: write the text back as it was; lose an object; cut a function in two."""
    (tmp_path / "rxe_odp.c").write_text(SOURCE)
    (tmp_path / "Makefile").write_text(MAKEFILE)
    variant.apply(tmp_path, RXE)
    source, makefile = (tmp_path / "rxe_odp.c").read_text(), (tmp_path / "Makefile").read_text()
    assert (source, makefile) != (SOURCE, MAKEFILE)
    assert source.startswith("// x\n#include <a.h>\n")
    for code in (*(STATIC.format(n=n) for n in range(11)), OPS, ONLY_SOME, FAULT):
        assert source.count(code) == 1
    moved = [
        name for name in source.replace("\n\t\t   ", "").splitlines() if name.startswith("static int part")
    ]
    assert len(moved) == 11 + (variant.kind is noise.moved_function), "declared where it was"
    assert sorted(makefile.replace("\\\n", " ").split()) == sorted(MAKEFILE.replace("\\\n", " ").split())


def test_fifty_changes_are_fifty_changes(tmp_path):
    """Mutation: let a size change nothing."""
    texts = set()
    for variant in variants(50):
        (tmp_path / "rxe_odp.c").write_text(SOURCE)
        (tmp_path / "Makefile").write_text(
            MAKEFILE.replace("rxe_odp.o", " ".join(f"o{n}.o" for n in range(20)))
        )
        variant.apply(tmp_path, RXE)
        texts.add((tmp_path / "rxe_odp.c").read_text() + (tmp_path / "Makefile").read_text())
    assert len(texts) == 50


def with_checks(least_ns):
    """Two runs whose shortest way through the stage `checks` takes so long."""
    made = []
    for one in runs(2):
        stage = Histogram("checks", "ns", (0, 0, 0, 2), least_ns + 15, least_ns, 15)
        trace = replace(one.answer.trace, histograms=(stage,))
        made.append(replace(one, answer=replace(one.answer, trace=trace)))
    return tuple(made)


@pytest.mark.parametrize(
    ("nothing_ns", "again_ns", "verdict"),
    [
        ((90,) * 10, (106, 107, 106), "worse"),
        ((90,) * 10, (106, 90, 106), "same"),
        ((90,) * 10, (74, 74, 74), "same"),
        ((90,) * 9 + (96,), (106, 106, 106), "same"),
    ],
    ids=["moved", "not in one build", "the other way", "within a band of more builds"],
)
def test_what_moves_in_one_build_only_is_not_counted(tmp_path, monkeypatch, nothing_ns, again_ns, verdict):
    """Mutations: ask one build only; take a move the other way for a move; do not widen the band."""
    stock, tree = tmp_path / "stock", tmp_path / "tree"
    builds = {stock: iter(nothing_ns), tree: iter(again_ns)}
    monkeypatch.setattr(noise, "_run", lambda *given: with_checks(next(builds[given[3]])))
    session = SimpleNamespace(say=lambda line: None)
    question = RegressRequest("q", "7.3", (), tmp_path)
    base = with_checks(90)
    bands = noise.bands(session, question, None, stock, [RXE], base)
    found, notes = noise.judged(session, question, None, (stock, tree), [RXE], base, with_checks(106), bands)
    assert found.verdict == verdict and bool(found.changes) == (verdict == "worse")
    assert [note.startswith("not counted: ") for note in notes] == [True] * (verdict == "same")


def test_a_build_that_fails_speaks_against_no_figure(tmp_path, monkeypatch):
    """Mutations: a run without figures has not moved; forget what failed."""
    stock, tree = tmp_path / "stock", tmp_path / "tree"
    broken = tuple(
        replace(one, verdict="fail", reasons=(Reason("console", "KASAN"),)) for one in with_checks(106)
    )
    monkeypatch.setattr(noise, "_run", lambda *given: broken if given[3] == tree else with_checks(90))
    session = SimpleNamespace(say=lambda line: None)
    question, base = RegressRequest("q", "7.3", (), tmp_path), with_checks(90)
    bands = noise.bands(session, question, None, stock, [RXE], base)
    found, notes = noise.judged(session, question, None, (stock, tree), [RXE], base, with_checks(106), bands)
    assert found.verdict == "worse" and not notes
    assert [change.outcome for change in found.changes] == [False, True]
    assert "built once more, it fails in 2 of 2 runs: console: KASAN" in found.changes[1].text


def test_only_parts_whose_devices_ran_make_a_band(tmp_path, monkeypatch):
    """Linux 6.1 has no rxe_odp.c. Mutation: vary all that is built."""
    asked = []
    monkeypatch.setattr(noise, "_run", lambda *given: asked.append(given[5]) or with_checks(90))
    session = SimpleNamespace(say=lambda line: None)
    noise.bands(session, RegressRequest("q", "7.3", (), tmp_path), None, tmp_path, PARTS, with_checks(90))
    assert set(asked) == {RXE, CORE}
    (tmp_path / "rxe.c").write_text(SOURCE)
    noise.padding(tmp_path, RXE, 1)
    assert (tmp_path / "rxe.c").read_text() != SOURCE


@pytest.mark.parametrize("end", ["pass", "error"])
def test_a_band_is_measured_once_for_the_same_answers(tmp_path, monkeypatch, end):
    """Mutations: ask again each time; keep those of a build that could not run; those of other answers."""
    asked = []
    records = tuple(replace(one, verdict=end) for one in with_checks(95))
    monkeypatch.setattr(noise, "_run", lambda *given: asked.append(given[6]) or records)
    session = SimpleNamespace(say=lambda line: None, store=Store(tmp_path / "cache"))
    question = RegressRequest("q", "7.3", (), tmp_path)
    for answers in ("one", "other"):
        session.store.built("answers", answers, lambda into: None)
        (tmp_path / "base").mkdir(exist_ok=True)
        write_atomically(tmp_path / "base" / KEY, answers)
        asked.clear()
        found = [noise.bands(session, question, None, tmp_path, [RXE], with_checks(90)) for _ in range(2)]
        assert found[0] == found[1] and (end == "error" or max(found[0].values()) == 5)
        assert len(asked) == len(BAND) * (1 if end == "pass" else 2)
    noise.bands(session, question, None, tmp_path, [RXE], with_checks(90), noise.AGAIN)
    assert asked[-len(noise.AGAIN) :] == list(noise.AGAIN)
    session.store.discard("answers", "other")
    asked.clear()
    noise.bands(session, question, None, tmp_path, [RXE], with_checks(90))
    assert len(asked) == len(BAND), "answers that are not kept name nothing"
    session.store.close()
