from harness.plan.options import Options
from harness.plan.session import Session


def test_start_sweeps_the_cache(tmp_path):
    """Mutation: leave what a killed build left to the next build of the same key."""
    (tmp_path / "booted/.key.abcd1234").mkdir(parents=True)
    with Session(Options(cache=tmp_path)):
        assert list((tmp_path / "booted").iterdir()) == []
