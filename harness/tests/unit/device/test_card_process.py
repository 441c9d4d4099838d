import os

from harness.device.card_process import resident_kib


def test_shared_memory_is_not_counted():
    """A shared mapping, as the guest's, does not count. Mutation: take VmRSS."""
    import mmap

    before = resident_kib(os.getpid())
    shared = mmap.mmap(-1, 32 << 20)
    shared.write(b"x" * (32 << 20))
    assert resident_kib(os.getpid()) - before < 8 << 10
    own = b"x" * (32 << 20)
    grown = resident_kib(os.getpid()) - before
    assert 28 << 10 < grown < 60 << 10 and len(own) and len(shared)
