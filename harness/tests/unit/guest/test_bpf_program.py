"""Where trampolines can be attached."""

from harness.guest.trace import bpf_program, stages


def test_trampoline_needs_module_exact_name_and_btf(tmp_path, monkeypatch):
    """Mutation: attach it by the name alone: a clone by the compiler has other arguments."""
    monkeypatch.setattr(bpf_program, "_BTF", tmp_path)
    event = next(stage for stage in stages.MLX5.stages if stage.name == "events")
    place = stages.Place("mlx5_eq_get_eqe", "mlx5_core")
    assert not bpf_program.traceable(event, place)
    (tmp_path / "mlx5_core").touch()
    assert bpf_program.traceable(event, place)
    assert not bpf_program.traceable(event, place._replace(symbol="mlx5_eq_get_eqe.isra.0"))
    work = next(stage for stage in stages.MLX5.stages if stage.name == "works")
    assert bpf_program.traceable(work, stages.Place("mlx5_ib_eqe_pf_action.constprop.0", "mlx5_ib"))
