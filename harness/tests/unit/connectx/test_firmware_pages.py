from harness.wire import eqe


def test_pages_not_taken_back_are_a_finding(driver):
    """Mutation: skip pages.lost in DISABLE_HCA."""
    driver.command("DEALLOC_PD", pd=driver.pd)
    driver.command("DEALLOC_UAR", uar=driver.uar)
    driver.command("TEARDOWN_HCA")
    driver.command("MANAGE_PAGES", op_mod=2, input_num_entries=512, out_extra=8 * 512)
    driver.command("DISABLE_HCA")
    held = driver.card.model.boot_pages + driver.card.model.init_pages - 512
    assert driver.card.findings() == [
        {"kind": "pages-lost", "subject": f"{held} pages", "detail": "not taken back at DISABLE_HCA"}
    ]


def test_pages_are_requested_and_returned_with_objects(driver):
    """Mutation: request -STEP with the sign of a request."""
    driver.create_eq((eqe.PAGE_REQUEST,), log_size=6)
    ring = driver.next - 4096
    keys = [driver.create_mkey(length64=1, access_mode_1_0=0) for _ in range(40)]
    request = eqe.PageRequestEqe(driver.memory.read(ring, 64))
    assert (request.type, request.num_pages) == (eqe.PAGE_REQUEST, 64)
    for _ in range(5):
        driver.give(64)
        keys += [driver.create_mkey(length64=1, access_mode_1_0=0) for _ in range(250)]
    driver.give(64)
    for key in keys:
        driver.command("DESTROY_MKEY", mkey_index=key >> 8)
    events = [eqe.PageRequestEqe(driver.memory.read(ring + 64 * index, 64)) for index in range(8)]
    counts = [event.num_pages for event in events if event.type == eqe.PAGE_REQUEST]
    assert counts[-1] == 0xFFFFFFFF - 63
    taken = driver.command("MANAGE_PAGES", op_mod=2, input_num_entries=64, out_extra=512)[
        "output_num_entries"
    ]
    assert taken == 64 and driver.card.findings() == []
