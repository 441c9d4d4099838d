import pytest

from harness.connectx.objects.mkeys import (
    LOCAL_KEY,
    MTT,
    Refused,
    Span,
)
from harness.tests.unit.connectx.key_driver import ALL, VA, KeyDriver, mtts
from harness.wire import cqe

NOT_FREE, FREE, OFFSET, INLINE = 0x20, 0x40, 0x10, 0x80
MASK_ENABLE = 0x203E20C3


@pytest.fixture
def driver():
    return KeyDriver()


@pytest.mark.parametrize(("change", "status", "free"), [(1, cqe.MW_BIND, 0), (0, 0, 1)])
def test_an_old_value_does_not_free_the_key(driver, change, status, free):
    """As rdma-core invalidates a window, which sets the variant to 0.

    Mutation: compare the index only in Umr._apply.
    """
    key = driver.mtt_key(0x5000 | 3)
    driver.qp.umr(key ^ change, INLINE, 1 << 29 | 1 << 13, free=1, mkey_7_0=0)
    assert (
        driver.status() == status
        and driver.card.hca.device.objects.table("mkey")[key >> 8].fields["free"] == free
    )


def test_umr_enables_a_pool_key_by_list(driver):
    """As mlx5_ib does: NOT_FREE is checked of a free key. Mutation: ignore the translation offset."""
    key = driver.create_mkey(free=1, umr_en=1, access_mode_1_0=MTT, octowords=8)
    at = driver.page()
    driver.memory.write(at, mtts(*[0x5000 + 0x1000 * i | 3 for i in range(8)]))
    fields = {**ALL, "pd": driver.pd, "start_addr": VA, "len": 16 * 4096, "log_page_size": 12}
    driver.qp.umr(
        key, NOT_FREE | OFFSET, MASK_ENABLE, pointer=(LOCAL_KEY, at), octowords=4, offset=4, **fields
    )
    assert driver.status() == 0
    assert driver.access(key, VA + 8 * 4096, 4096)[0] == [Span(0x5000, 4096)]
    assert driver.access(key, VA, 4096)[1] is not None
    driver.qp.umr(key, FREE | OFFSET, 0, listed=mtts(0xA000 | 1, 0xB000 | 3) + bytes(48), octowords=1)
    driver.qp.umr(key, FREE | OFFSET | INLINE, 0, listed=mtts(0xA000 | 1, 0xB000 | 3) + bytes(48))
    assert [driver.status(), driver.status()] != [0, 0]


def test_umr_zaps_and_revokes(driver):
    """Zeros make pages absent, FREE makes the key unusable. Mutation: skip FREE in umr.MASK_FIELDS."""
    key = driver.mtt_key(*[0x5000 | 3] * 8)
    driver.qp.umr(key, FREE | OFFSET | INLINE, 0, listed=bytes(64))
    assert driver.status() == 0 and driver.access(key, VA, 1)[1] is not None
    driver.qp.umr(key, INLINE, 1 << 29 | 1 << 7, free=1, pd=driver.pd)
    assert driver.status() == 0
    with pytest.raises(Refused, match="free"):
        driver.access(key, VA, 1)


@pytest.mark.parametrize(("free", "flag"), [(1, FREE), (0, NOT_FREE)])
def test_umr_of_a_key_in_the_wrong_state_fails_and_breaks_the_queue(driver, free, flag):
    """Mutation: skip Umr._check_state."""
    key = driver.create_mkey(bytes(64), **ALL, free=free, access_mode_1_0=MTT)
    driver.qp.umr(key, flag | INLINE, 0, listed=bytes(64))
    driver.qp.post(0, completion=0)
    assert driver.status() == cqe.MW_BIND
    assert driver.status() == cqe.FLUSH
    assert driver.kinds() == ["free-key-in-use"]
    assert driver.command("QUERY_QP", qpn=driver.qp.number)["qpc.state"] == 6


def test_umr_outside_its_key_is_a_finding(driver):
    """Mutation: let a list grow the key, for ever."""
    key = driver.create_mkey(free=0, **ALL, access_mode_1_0=MTT, octowords=4)
    driver.qp.umr(key, FREE | OFFSET | INLINE, 0, listed=bytes(64), offset=2)
    assert driver.kinds() == ["bad-value"] and driver.status() == cqe.MW_BIND
    assert len(driver.card.hca.device.objects.table("mkey")[key >> 8].table) == 0
