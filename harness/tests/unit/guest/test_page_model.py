"""The laws, as pure functions. Expected figures are derived by hand from the rules in guest/mm/page_model.py."""

import pytest

from harness.guest.mm.memory import (
    page_count,
    word_spots,
)
from harness.guest.mm.page_loss import (
    LOSSES,
    refusal,
)
from harness.guest.mm.page_model import (
    MLX5_MEMORY,
    MLX5_TRANSPORT,
    RXE,
    PageModel,
    packets,
    unmaps_told,
    zapped,
)
from harness.guest.rdma.workloads import PATTERNS
from harness.values.case import LOSSES as LOSS_NAMES
from harness.values.case import TRANSFERS, PageLoss, Region, Workload

PAGES = 4
REGION = Region(PAGES * 4096)


def counts(operation, how, rounds=1, local=REGION, remote=REGION, mtu=4096):
    """(faults, invalidations) of local and remote with soft-RoCE."""
    return tuple((m.faults, m.invalidations) for m in played(operation, how, rounds, local, remote, mtu))


def played(operation, how, rounds=1, local=REGION, remote=REGION, mtu=4096, rules=RXE):
    """The models of local and remote, both sides losing, steps as in cases.py."""
    models = PageModel(local, rules), PageModel(remote, rules)
    for model in models:
        model.write_all()
        model.register()
    for _ in range(rounds):
        for model in models:
            model.write_all()
            if LOSSES[how].fresh:
                model.deregister()
                model.drop()
            LOSSES[how].law(model)
            if LOSSES[how].fresh:
                model.register()
        PATTERNS[operation].touches(*models, mtu)
        for model in models:
            model.read_all()
            model.child_gone()
    return models


def test_every_name_of_a_case_has_its_law():
    """Mutation: drop an entry of LOSSES or PATTERNS."""
    assert set(LOSSES) == set(LOSS_NAMES)
    assert set(PATTERNS) == set(TRANSFERS)


@pytest.mark.parametrize(
    ("how", "local", "remote"),
    [
        ("none", (0, 0), (0, 0)),
        ("untouched", (4, 0), (4, 0)),
        # the snapshot maps what was read, read-only: reading it again is no fault, writing copies
        ("peeked", (0, 0), (4, 4)),
        ("dontneed", (4, 1), (4, 1)),
        ("remap", (4, 1), (4, 1)),
        # the remote pages are written while the child still has them: each is copied
        ("fork", (4, 1), (4, 1 + 4)),
        ("pageout", (4, 4), (4, 4)),
        ("migrate", (4, 4), (4, 4)),
        ("move", (4, 4), (4, 4)),
        ("protect", (4, 2), (4, 2)),
    ],
)
def test_one_write_with_whole_page_packets(how, local, remote):
    """Mutation: let fork_law call drop(); let swap_out or migrate invalidate once; let protect do so."""
    assert counts("write", how) == (local, remote)


def test_words_are_written_page_by_page_and_a_flush_reads_the_region_at_once():
    """Mutations: let an atomic write touch the local region; let a flush ask to write, page by page."""
    odd = Region(3 * 4096 + 9, offset=4091)
    assert word_spots(odd) == [5, 4101, 8197]
    assert counts("atomic_write", "dontneed") == ((0, 1), (4, 1))
    assert counts("flush", "dontneed") == ((0, 1), (1, 1))
    # What was only read is mapped read-only: a flush finds it, a write copies each page.
    assert counts("flush", "peeked") == ((0, 0), (0, 0))
    assert counts("atomic_write", "peeked") == ((0, 0), (4, 4))


def test_a_read_is_a_write_the_other_way_round():
    """Mutation: let pull_touches not swap its sides."""
    for how in LOSSES:
        assert counts("read", how, 3) == counts("write", how, 3)[::-1]


def test_the_second_round_copies_what_was_only_read():
    """Refilling a source that fell back to the zero page copies its four pages before they are lost again.

    Mutation: leave SOURCE out of _cpu_write.
    """
    assert counts("write", "dontneed", rounds=2) == ((8, 1 + 4 + 1), (8, 2))


@pytest.mark.parametrize("rules", [RXE, MLX5_TRANSPORT, MLX5_MEMORY])
@pytest.mark.parametrize(
    ("how", "faults", "invalidations"),
    [
        # each fill allows writing and forbids it again: 2; what was only read is copied by it, 4, in the second round
        ("dontneed", 8, 2 + 1 + 2 + 4 + 1),
        ("pageout", 8, 2 + 4 + 2 + 4),
        # pages that were read before the registration are there, to be read: none is copied for a device
        ("peeked", 0, 2 + 2 + 4),
        ("protect", 8, 2 * (2 + 2)),
        ("fork", 8, 2 * (2 + 1)),
    ],
)
def test_memory_that_may_only_be_read_is_mapped_so(rules, how, faults, invalidations):
    """Mutations: map it writable (the driver would fault again); let mlx5_ib ask to write; fill it as it is."""
    closed = Region(PAGES * 4096, prot="read")
    _, model = played("read", how, 2, remote=closed, rules=rules)
    assert model.invalidations == invalidations
    # A packet faults, or a message of four.
    assert model.faults == (faults if rules is RXE else faults // PAGES)


def test_a_huge_page_of_the_pool_is_never_copied():
    """Mutation: let the first read of one find the zero page."""
    pool = Region(PAGES * 4096, mapping="hugetlb")
    assert counts("read", "dontneed", 3, pool, pool) == ((12, 3), (12, 3))


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
    """Mutation: count a fault for each page in PageModel.access."""
    region = Region(length, offset)
    (local, _), (remote, _) = counts("write", "dontneed", 1, region, region, 1024)
    assert (local, remote) == (faults, faults)


def test_read_only_pages_fault_again_for_a_write_and_are_copied():
    """Mutation: let access() compare with READ only."""
    model = PageModel(REGION)
    model.register()
    for offset, length in packets(REGION.length, 1024):
        model.access(offset, length, write=False)
    assert (model.faults, model.invalidations) == (PAGES, 0)
    for offset, length in packets(REGION.length, 1024):
        model.access(offset, length, write=True)
    assert (model.faults, model.invalidations) == (2 * PAGES, PAGES)


@pytest.mark.parametrize(
    ("mapping", "release", "told"),
    [
        ("hugetlb", "6.1.0-56-amd64", 2),
        ("anonymous", "6.1.0-56-amd64", 1),
        ("hugetlb", "6.2", 1),
        ("hugetlb", "7.3.4+deb13-amd64", 1),
    ],
)
def test_before_6_2_a_driver_is_told_twice_that_huge_pages_go(mapping, release, told):
    """Mutations: of all memory; compare releases as words; find pages the second time."""
    assert unmaps_told(mapping, release) == told
    model = PageModel(Region(PAGES * 4096, mapping=mapping), unmaps_told=unmaps_told(mapping, release))
    model.write_all()
    model.register()
    model.drop()
    assert (model.invalidations, model.heard, model.zaps) == (told, 1, 1)


def test_a_snapshot_maps_what_is_present():
    """Mutation: let register() see nothing."""
    model = PageModel(REGION)
    model.write_all()
    model.register()
    model.access(0, 4096, write=True)
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
    """Mutation: let word_spots forget the region's offset, or the words that are not whole."""
    assert page_count(region) == pages
    assert word_spots(region) == spots


@pytest.mark.parametrize(
    ("workload", "word"),
    [
        (Workload("write", 1, Region(4096, mapping="shared"), REGION, PageLoss("fork", "local")), "shared"),
        (
            Workload("write", 1, REGION, Region(PAGES * 4096, odp=False), PageLoss("dontneed", "both")),
            "pinned",
        ),
        (Workload("write", 1, Region(1), Region(2)), "lengths"),
        (Workload("write", 1, Region(0), Region(0)), "length 0"),
        (Workload("write", 1, Region(1, 4096), Region(1)), "offset 4096"),
        (Workload("fetch_add", 1, Region(8, 4), Region(8)), "multiple of 8"),
        (Workload("write", 1, Region(8), Region(8, prot="read")), "remote: write writes there"),
        (Workload("read", 1, Region(8, prot="read"), Region(8)), "local: read writes there"),
        (Workload("fetch_add", 1, Region(8), Region(8, prot="read")), "remote: fetch_add writes"),
    ],
)
def test_what_makes_no_sense_is_refused(workload, word):
    """Mutation: return None early in refusal()."""
    assert word in refusal(workload)


def test_what_makes_sense_is_not_refused():
    pinned = Region(4096, odp=False)
    assert refusal(Workload("write", 1, Region(4096), pinned, PageLoss("dontneed", "local"))) is None
    assert refusal(Workload("write", 9, pinned, pinned, PageLoss("untouched", "both"))) is None
    closed = Region(8, prot="read")
    assert refusal(Workload("send", 1, closed, Region(8), PageLoss("peeked", "local"))) is None
    assert refusal(Workload("read", 1, Region(8), closed, PageLoss("fork", "remote"))) is None


CARD = (MLX5_TRANSPORT, MLX5_MEMORY)


@pytest.mark.parametrize("rules", CARD)
@pytest.mark.parametrize(
    ("how", "local", "remote"),
    [
        ("none", (0, 0, 0), (0, 0, 0)),
        ("untouched", (1, 0, 0), (1, 0, 0)),
        # the write finds read-only entries: one fault, in which each page is copied, and was mapped till then
        ("peeked", (0, 0, 0), (1, 4, 4)),
        ("dontneed", (1, 1, 1), (1, 1, 1)),
        ("remap", (1, 1, 1), (1, 1, 1)),
        # one invalidation by the fork, then a copy of each of the 4 pages, of which the driver has none mapped
        ("fork", (1, 5, 1), (1, 5, 1)),
        # the first page that goes begins a run that ends with the region: each page is a run of its own
        ("pageout", (1, 4, 4), (1, 4, 4)),
        ("migrate", (1, 4, 4), (1, 4, 4)),
        ("move", (1, 4, 4), (1, 4, 4)),
        # nothing is mapped any more when writing is allowed again
        ("protect", (1, 2, 1), (1, 2, 1)),
    ],
)
def test_a_card_faults_once_a_message_and_always_to_write(rules, how, local, remote):
    """(faults, invalidations, those with a page mapped). Mutation: MLX5 with packets, or not writable."""
    models = played("write", how, rules=rules, mtu=1024)
    assert [(m.faults, m.invalidations, m.heard) for m in models] == [local, remote]


@pytest.mark.parametrize("rules", CARD)
def test_a_card_faults_once_an_atomic(rules):
    """Mutation: let an atomic ask for its whole region."""
    local, remote = played("fetch_add", "dontneed", 2, rules=rules)
    assert (local.faults, remote.faults) == (8, 8)
    assert (local.asked_pages, remote.asked_pages) == (8, 8)


def test_a_fault_asks_from_the_first_absent_page_to_the_end():
    """Mutation: ask for the absent pages only, or for the whole message; off by one at either end."""
    model = PageModel(Region(6 * 4096, 100), MLX5_TRANSPORT)
    model.write_all()
    model.register()
    for page in (2, 5):
        model.lose(range(page, page + 1))
    model.transfer(4096, write=False)
    assert (model.faults, model.asked_pages) == (1, 7 - 2)


@pytest.mark.parametrize(
    ("pages", "offset", "faults", "asked"),
    [(512, 0, 1, 512), (513, 0, 2, 513), (1030, 0, 3, 1030), (1024, 8, 2, 1025), (511, 8, 1, 512)],
)
def test_the_memory_scheme_names_at_most_512_pages(pages, offset, faults, asked):
    """A region that begins inside of a page ends inside of one, and its first fault ends there, too.

    Mutation: let _asked forget the offset (1024 pages from byte 8 on: three faults).
    """
    model = PageModel(Region(pages * 4096, offset), MLX5_MEMORY)
    model.register()
    model.transfer(4096, write=True)
    assert (model.faults, model.asked_pages) == (faults, asked)


@pytest.mark.parametrize(
    ("mapped", "pages", "calls", "counted"),
    [
        (range(8), range(8), 1, 8),
        ((), range(8), 0, 0),
        # page 3 is inside of the run, page 8 ends it and is counted; the second run ends with the range
        ((0, 1, 2, 4, 9, 10), range(12), 2, 9 + 3),
        # an absent page whose number is no multiple of 8 ends nothing
        ((1, 2), range(8), 1, 7),
        ((7, 9), range(6, 10), 2, 2 + 1),
        ((5,), (5,), 1, 1),
    ],
)
def test_runs_of_pages_are_zapped_as_the_driver_does(mapped, pages, calls, counted):
    """Mutation: end a run at any absent page; do not count the page that ends it."""
    device = [int(page in mapped) for page in range(16)]
    assert zapped(device, pages) == (calls, counted)


@pytest.mark.parametrize("rules", [RXE, *CARD])
def test_holes_are_lost_one_by_one_and_a_half_at_once(rules):
    """27 pages: 8, 16 and 24 alone, then 13 to 26 by one call, in which 16 and 24 are absent already.

    Mutation: off by one in Memory's or the model's list of holes.
    """
    region = Region(27 * 4096)
    (local, remote) = played("write", "holes", 1, region, region, rules=rules)
    for model in (local, remote):
        assert model.invalidations == 3 + 1
        assert model.faults == (1 + 14 if rules is RXE else 1)
    if rules is not RXE:
        assert remote.asked_pages == 27 - 8
        # three alone; 13-15 ended by 16, 17-23 ended by 24, 25-26
        assert (remote.zaps, remote.zapped_pages) == (3 + 3, 3 + 4 + 8 + 2)
