from harness.connectx import findings


def test_what_is_found_again_and_again_does_not_grow(driver, monkeypatch):
    """A broken record is looked at for as long as its queue lives. Mutations: no limit for one; none for all; forget
    what comes after repeats.
    """
    monkeypatch.setattr(findings, "MAX_REPEATS", 2)
    monkeypatch.setattr(findings, "MAX_FINDINGS", 5)
    told = len(driver.notes)
    for _ in range(5):
        driver.card.hca.device.findings.report("bad-value", "qp 0x40", "the same")
    for number in range(5):
        driver.card.hca.device.findings.report("bad-address", f"qp {number}", "another")
    assert driver.kinds() == ["bad-value"] * 2 + ["bad-address"] * 3
    assert len(driver.notes) == told + 5
