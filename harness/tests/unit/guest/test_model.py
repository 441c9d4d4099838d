"""The laws, as pure functions. Expected figures are derived by hand from the rules in guest/model.py."""

import pytest

from harness.guest.faults import LOSSES, refusal
from harness.guest.memory import page_count
from harness.guest.model import PageModel, packets
from harness.guest.workloads import PATTERNS, atomic_spots
from harness.values.case import LOSSES as LOSS_NAMES
from harness.values.case import TRANSFERS, Loss, Region, Workload

PAGES = 4
REGION = Region(PAGES * 4096)


def counts(operation, how, rounds=1, local=REGION, remote=REGION, mtu=4096):
    """(faults, invalidations) of local and remote, both sides losing, steps as in cases.py."""
    models = PageModel(local), PageModel(remote)
    for model in models:
        model.write_all()
        model.register()
    for _ in range(rounds):
        for model in models:
            model.write_all()
            if how == "untouched":
                model.deregister()
                model.drop()
                model.register()
            else:
                LOSSES[how].law(model)
        PATTERNS[operation].touches(*models, mtu)
        for model in models:
            model.read_all()
            model.child_gone()
    return tuple((model.faults, model.invalidations) for model in models)


def test_every_name_of_a_case_has_its_law():
    """Mutation: drop an entry of LOSSES or PATTERNS."""
    assert set(LOSSES) == set(LOSS_NAMES)
    assert set(PATTERNS) == set(TRANSFERS)


@pytest.mark.parametrize(
    ("how", "local", "remote"),
    [
        ("none", (0, 0), (0, 0)),
        ("untouched", (4, 0), (4, 0)),
        ("dontneed", (4, 1), (4, 1)),
        ("remap", (4, 1), (4, 1)),
        # the remote pages are written while the child still has them: each is copied
        ("fork", (4, 1), (4, 1 + 4)),
        ("pageout", (4, 4), (4, 4)),
    ],
)
def test_one_write_with_whole_page_packets(how, local, remote):
    """Mutation: let fork_law call drop(); let swap_out invalidate once."""
    assert counts("write", how) == (local, remote)


def test_a_read_is_a_write_the_other_way_round():
    """Mutation: let pull_touches not swap its sides."""
    for how in LOSSES:
        assert counts("read", how, 3) == counts("write", how, 3)[::-1]


def test_the_second_round_copies_what_was_only_read():
    """Refilling a source that fell back to the zero page copies its four pages before they are lost again.

    Mutation: leave SOURCE out of _cpu_write.
    """
    assert counts("write", "dontneed", rounds=2) == ((8, 1 + 4 + 1), (8, 2))


def test_shared_memory_is_never_copied():
    """Mutation: let _cpu_read make every page SOURCE."""
    shared = Region(PAGES * 4096, mapping="shared")
    assert counts("write", "dontneed", 3, shared, shared) == ((12, 3), (12, 3))


@pytest.mark.parametrize(
    ("offset", "length", "faults"),
    [
        (0, 4096, 1),
        (0, 1024, 1),
        # packets 0-3 lie in page 0; packet 3 reaches into page 1 and maps both
        (512, 4096, 2),
        # the first packet straddles both pages of the region: one call for the two
        (4000, 1024, 1),
        (4000, 2048, 1),
        (0, 3 * 4096 + 1, 4),
    ],
)
def test_a_packet_faults_once_for_all_its_pages(offset, length, faults):
    """Mutation: count a fault for each page in PageModel.packet."""
    region = Region(length, offset)
    (local, _), (remote, _) = counts("write", "dontneed", 1, region, region, 1024)
    assert (local, remote) == (faults, faults)


def test_read_only_pages_fault_again_for_a_write_and_are_copied():
    """Mutation: let packet() compare with READ only."""
    model = PageModel(REGION)
    model.register()
    for offset, length in packets(REGION.length, 1024):
        model.packet(offset, length, write=False)
    assert (model.faults, model.invalidations) == (PAGES, 0)
    for offset, length in packets(REGION.length, 1024):
        model.packet(offset, length, write=True)
    assert (model.faults, model.invalidations) == (2 * PAGES, PAGES)


def test_a_snapshot_maps_what_is_present():
    """Mutation: let register() see nothing."""
    model = PageModel(REGION)
    model.write_all()
    model.register()
    model.packet(0, 4096, write=True)
    assert (model.faults, model.snapshots) == (0, 1)


def test_an_ordinary_registration_never_faults():
    pinned = Region(8192, odp=False)
    assert counts("write", "none", 2, pinned, pinned) == ((0, 0), (0, 0))


def test_packets_cover_the_message():
    assert packets(2500, 1024) == ((0, 1024), (1024, 1024), (2048, 452))
    assert packets(1, 256) == ((0, 1),)


@pytest.mark.parametrize(
    ("region", "pages", "spots"),
    [
        (Region(8192), 2, [0, 4096]),
        (Region(8192, 8), 3, [0, 4088, 8184]),
        (Region(8190, 8), 3, [0, 4088]),
        (Region(8192, 4088), 3, [0, 8, 4104]),
        (Region(4100), 2, [0]),
    ],
)
def test_atomics_stand_at_the_start_of_each_page(region, pages, spots):
    """Mutation: let atomic_spots forget the region's offset, or the words that are not whole."""
    assert page_count(region) == pages
    assert atomic_spots(region) == spots


@pytest.mark.parametrize(
    ("workload", "word"),
    [
        (Workload("write", 1, Region(4096, mapping="shared"), REGION, Loss("fork", "local")), "shared"),
        (Workload("write", 1, REGION, Region(PAGES * 4096, odp=False), Loss("dontneed", "both")), "pinned"),
        (Workload("write", 1, Region(1), Region(2)), "lengths"),
        (Workload("write", 1, Region(0), Region(0)), "length 0"),
        (Workload("write", 1, Region(1, 4096), Region(1)), "offset 4096"),
        (Workload("fetch_add", 1, Region(8, 4), Region(8)), "multiple of 8"),
    ],
)
def test_what_makes_no_sense_is_refused(workload, word):
    """Mutation: return None early in refusal()."""
    assert word in refusal(workload)


def test_what_makes_sense_is_not_refused():
    pinned = Region(4096, odp=False)
    assert refusal(Workload("write", 1, Region(4096), pinned, Loss("dontneed", "local"))) is None
    assert refusal(Workload("write", 9, pinned, pinned, Loss("untouched", "both"))) is None
