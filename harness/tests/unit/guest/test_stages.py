"""The table of stages: symbols of a kernel, and their probes in probes.c."""

import re
from pathlib import Path

import pytest

from harness.guest.trace import stages

KALLSYMS = """\
ffffffff81000000 T schedule
ffffffffc0000000 t mlx5_ib_eqe_pf_action.cold\t[mlx5_ib]
ffffffffc0000001 t mlx5_ib_eqe_pf_action.constprop.0\t[mlx5_ib]
ffffffffc0000002 t mlx5r_umr_update_xlt.isra.0\t[mlx5_ib]
ffffffffc0000003 T mlx5r_umr_update_xlt\t[mlx5_ib]
ffffffffc0000004 T ib_umem_odp_map_dma_and_lock\t[ib_core]
ffffffffc0000005 t mlx5_ib_invalidate_range_more\t[mlx5_ib]
ffffffffc0000006 T mlx5_eq_get_eqe\t[mlx5_core]
"""


def test_symbols_are_found_bare_first_then_with_a_suffix():
    """Mutation: take any symbol that begins with the name; prefer the suffix; take a `.cold` part."""
    places = stages.places(stages.MLX5, KALLSYMS)
    assert places["works"] == stages.Place("mlx5_ib_eqe_pf_action.constprop.0", "mlx5_ib", 0xFFFFFFFFC0000001)
    assert (
        places["translations"]
        == places["zaps"]
        == stages.Place("mlx5r_umr_update_xlt", "mlx5_ib", 0xFFFFFFFFC0000003)
    )
    assert places["faults"] == stages.Place("ib_umem_odp_map_dma_and_lock", "ib_core", 0xFFFFFFFFC0000004)
    assert "invalidations" not in places and "resumes" not in places


def test_first_existing_symbol_is_used():
    """Mutation: sort the candidates."""
    stage = stages.Stage("x", "x", ("newer", "mlx5_eq_get_eqe", "schedule"), "")
    driver = stages.Driver("d", (stage,), "x", "m")
    assert stages.places(driver, KALLSYMS)["x"].symbol == "mlx5_eq_get_eqe"


@pytest.mark.parametrize("driver", stages.DRIVERS.values(), ids=lambda driver: driver.name)
def test_every_stage_has_a_probe(driver):
    """Mutation: a stage whose line in probes.c is missing, or under another name."""
    names = ("probes.c", f"probes_{driver.name}.c")
    source = "".join((Path(stages.__file__).parent / name).read_text() for name in names)
    spans = set(re.findall(r"^SPAN(?:_OF_WORK)?\((\w+), ", source, re.MULTILINE))
    spans |= set(re.findall(r"^SPAN_WHEN\(.*?, 0, (\w+),", source, re.MULTILINE))
    used = set(re.findall(r"STAGE_([A-Z_]+)", source))
    slots = set(re.findall(r"SLOT_(\w+),", source))
    for stage in driver.stages:
        assert stage.name in stages.names()
        if stage.shape == stages.QUEUE:
            assert f"SPAN_OF_WORK({stage.probe}, " in source
            continue
        assert stage.name.upper() in used, stage.name
        if stage.shape == stages.SPAN:
            assert stage.probe in spans and stage.probe in slots, stage.probe
        else:
            assert f"({stage.probe.upper()}_MODULE, {stage.probe.upper()}_SYMBOL, " in source
    assert driver.whole in [stage.name for stage in driver.stages]


def test_declarations_depend_on_no_kernel():
    """Mutation: leave a trampoline's module out."""
    text = stages.declarations(stages.MLX5)
    assert "#define STAGE_WHOLE STAGE_WORKS" in text and "#define STAGE_QUEUED STAGE_QUEUES\n" in text
    assert "#define EVENT_MODULE mlx5_core\n#define EVENT_SYMBOL mlx5_eq_get_eqe\n" in text
    assert "#define INTERRUPT_MODULE mlx5_ib\n#define INTERRUPT_SYMBOL mlx5_ib_eq_pf_int\n" in text
    assert "EVENT_MODULE" not in stages.declarations(stages.RXE)


def test_symbol_of_two_modules_is_ignored():
    """Mutation: take the last one: another driver's `do_work` would be counted."""
    twice = "ffffffffc0000001 t do_work\t[rdma_rxe]\nffffffffc0000002 t do_work\t[other]\n"
    assert "tasks" not in stages.places(stages.RXE, twice)
    assert stages.places(stages.RXE, twice.splitlines()[0])["tasks"].module == "rdma_rxe"
