from harness.connectx import findings


def test_findings_are_limited_in_all_and_by_repeats(driver, monkeypatch):
    """A broken record is read for as long as its queue lives.

    Mutations: no limit for one; none in all; forget other findings after repeats.
    """
    monkeypatch.setattr(findings, "MAX_REPEATS", 2)
    monkeypatch.setattr(findings, "MAX_FINDINGS", 5)
    before = len(driver.notes)
    for _ in range(5):
        driver.card.hca.device.findings.report("bad-value", "qp 0x40", "the same")
    for number in range(5):
        driver.card.hca.device.findings.report("bad-address", f"qp {number}", "another")
    assert driver.kinds() == ["bad-value"] * 2 + ["bad-address"] * 3
    assert len(driver.notes) == before + 5
