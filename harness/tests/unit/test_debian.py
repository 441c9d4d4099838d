from harness.debian import Archive

MADISON = """\
    gcc-12 |   12.4.0-5 | MIRROR trixie/main amd64 Packages
    gcc-12 | 12.2.0-14+deb12u1 | MIRROR bookworm/main amd64 Packages
"""


def test_offers_are_in_order_with_their_suites():
    """Mutation: sort them."""
    archive = Archive.__new__(Archive)
    archive.refresh = lambda: None
    archive._env = dict
    archive.host = type("Host", (), {"run": lambda *a, **k: type("Done", (), {"output": MADISON})})()
    assert list(archive.offers("gcc-12").items()) == [
        ("12.4.0-5", "trixie"),
        ("12.2.0-14+deb12u1", "bookworm"),
    ]
