"""The table of stages: symbols of a kernel, and what probes.c has of them."""

import re
from pathlib import Path

import pytest

from harness.guest import stages

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
    """Mutation: take any symbol that begins with the name; prefer the suffix; take what the compiler split off."""
    found = stages.places(stages.MLX5, KALLSYMS)
    assert found["works"] == stages.Place("mlx5_ib_eqe_pf_action.constprop.0", "mlx5_ib")
    assert found["translations"] == found["zaps"] == stages.Place("mlx5r_umr_update_xlt", "mlx5_ib")
    assert found["faults"] == stages.Place("ib_umem_odp_map_dma_and_lock", "ib_core")
    assert "invalidations" not in found and "resumes" not in found


def test_the_first_candidate_that_exists_counts():
    """Mutation: sort the candidates."""
    stage = stages.Stage("x", "x", ("newer", "mlx5_eq_get_eqe", "schedule"), "")
    driver = stages.Driver("d", (stage,), "x")
    assert stages.places(driver, KALLSYMS)["x"].symbol == "mlx5_eq_get_eqe"


@pytest.mark.parametrize("driver", stages.DRIVERS.values(), ids=lambda driver: driver.name)
def test_every_stage_has_its_probe_in_the_program(driver):
    """Mutation: a stage whose line in probes.c is missing, or under another name."""
    source = (Path(stages.__file__).parent / "probes.c").read_text()
    spans = set(re.findall(r"^SPAN\((\w+),", source, re.MULTILINE))
    used = set(re.findall(r"STAGE_([A-Z]+)", source)) - {"WHOLE"}
    slots = set(re.findall(r"SLOT_(\w+),", source))
    for stage in driver.stages:
        assert stage.name in stages.names() and stage.name.upper() in used, stage.name
        if stage.shape == stages.SPAN:
            assert stage.probe in spans and stage.probe in slots, stage.probe
        else:
            assert f"#ifdef {stage.probe.upper()}_SYMBOL" in source
    assert driver.whole in [stage.name for stage in driver.stages]


def test_trampolines_are_declared_only_where_their_symbol_is():
    """Mutation: declare them always: the program would not load."""
    found = stages.places(stages.MLX5, KALLSYMS)
    text = stages.declarations(stages.MLX5, found)
    assert "#define STAGE_WHOLE STAGE_WORKS" in text
    assert "#define EVENT_MODULE mlx5_core\n#define EVENT_SYMBOL mlx5_eq_get_eqe\n" in text
    assert "EVENT_SYMBOL" not in stages.declarations(stages.MLX5, {})
