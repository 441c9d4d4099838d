"""No-op changes, the noise band that they measure, and what more builds confirm."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from harness.campaign import noise
from harness.campaign.noise import (
    BAND,
    variants,
)
from harness.campaign.question import RegressRequest
from harness.campaign.result_cache import KEY
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
def test_each_no_op_change_differs_and_keeps_the_code(tmp_path, variant):
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


def test_fifty_no_op_changes_all_differ(tmp_path):
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


def with_checks(minimum_ns):
    """Return two runs in which the minimum of the stage `checks` takes so long."""
    made = []
    for one in runs(2):
        stage = Histogram("checks", "ns", (0, 0, 0, 2), minimum_ns + 15, minimum_ns, 15)
        trace = replace(one.answer.trace, histograms=(stage,))
        made.append(replace(one, answer=replace(one.answer, trace=trace)))
    return tuple(made)


SESSION = SimpleNamespace(say=lambda line: None)


def baseline(tmp_path, parts=(RXE,), minimum_ns=90):
    request = RegressRequest("q", "7.3", (), tmp_path)
    return noise.Baseline(request, None, tmp_path / "stock", parts, with_checks(minimum_ns))


def confirmed(monkeypatch, tmp_path, run):
    """Confirm +16 instructions; `run` returns the records of each build of `stock` or `tree`."""
    monkeypatch.setattr(noise, "_run", lambda session, request, base, tree, *more: run(tree.name))
    base = baseline(tmp_path)
    bands = noise.noise_bands(SESSION, base)
    return noise.confirm(SESSION, base, tmp_path / "tree", with_checks(106), bands)


@pytest.mark.parametrize(
    ("noop_ns", "confirming_ns", "verdict"),
    [
        ((90,) * 10, (106, 107, 106), "regression"),
        ((90,) * 10, (106, 90, 106), "no difference"),
        ((90,) * 10, (74, 74, 74), "no difference"),
        ((90,) * 9 + (96,), (106, 106, 106), "no difference"),
    ],
    ids=["moved", "not in one build", "the other way", "within a band of more builds"],
)
def test_a_metric_that_moves_in_one_build_only_is_dismissed(
    tmp_path, monkeypatch, noop_ns, confirming_ns, verdict
):
    """Mutations: make one build only; take a move the other way for a move; do not widen the band; count no builds."""
    builds = {"stock": iter(noop_ns), "tree": iter(confirming_ns)}
    found = confirmed(monkeypatch, tmp_path, lambda name: with_checks(next(builds[name])))
    differences = found.comparison.differences
    assert found.comparison.verdict == verdict
    assert [each.confirmed_builds for each in differences] == [3] * (verdict == "regression")
    assert len(found.dismissed) == (verdict == "no difference")
    assert all("other builds of the same source differ as much" in line for line in found.dismissed)


def test_a_build_that_fails_contradicts_no_metric(tmp_path, monkeypatch):
    """Mutations: a run without metrics has not moved; forget what failed."""
    reasons = (Reason("console", "KASAN"),)
    broken = tuple(replace(one, verdict="fail", reasons=reasons) for one in with_checks(106))
    found = confirmed(monkeypatch, tmp_path, lambda name: broken if name == "tree" else with_checks(90))
    assert found.comparison.verdict == "regression" and not found.dismissed
    differences = found.comparison.differences
    assert [each.outcome for each in differences] == [False, True]
    assert [each.confirmed_builds for each in differences] == [0, 0]
    text = "another build of the patched source fails in 2 of 2 patched runs, in 0 of 2 baseline runs: console: KASAN"
    assert text in differences[1].text


def test_only_parts_whose_devices_ran_make_a_band(tmp_path, monkeypatch):
    """Linux 6.1 has no rxe_odp.c. Mutation: vary all that is built."""
    asked = []
    monkeypatch.setattr(noise, "_run", lambda *given: asked.append(given[4]) or with_checks(90))
    noise.noise_bands(SESSION, baseline(tmp_path, PARTS))
    assert set(asked) == {RXE, CORE}
    (tmp_path / "rxe.c").write_text(SOURCE)
    noise.padding(tmp_path, RXE, 1)
    assert (tmp_path / "rxe.c").read_text() != SOURCE


@pytest.mark.parametrize("end", ["pass", "error"])
def test_a_band_is_measured_once_for_the_same_records(tmp_path, monkeypatch, end):
    """Mutations: measure again each time; cache that of a build that could not run; that of other records."""
    asked = []
    records = tuple(replace(one, verdict=end) for one in with_checks(95))
    monkeypatch.setattr(noise, "_run", lambda *given: asked.append(given[5]) or records)
    session = SimpleNamespace(say=lambda line: None, store=Store(tmp_path / "cache"))
    base = baseline(tmp_path)
    for answers in ("one", "other"):
        session.store.built("answers", answers, lambda into: None)
        (tmp_path / "baseline").mkdir(exist_ok=True)
        write_atomically(tmp_path / "baseline" / KEY, answers)
        asked.clear()
        found = [noise.noise_bands(session, base) for _ in range(2)]
        assert found[0] == found[1] and (end == "error" or max(found[0].values()) == 5)
        assert len(asked) == len(BAND) * (1 if end == "pass" else 2)
    noise.noise_bands(session, base, noise.CONFIRM)
    assert asked[-len(noise.CONFIRM) :] == list(noise.CONFIRM)
    session.store.discard("answers", "other")
    asked.clear()
    noise.noise_bands(session, base)
    assert len(asked) == len(BAND), "records that are not cached have no cached band"
    session.store.close()
