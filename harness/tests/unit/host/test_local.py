"""Commands on the host and what they inherit."""

import re
import signal
from pathlib import Path

from harness.host import LocalHost
from harness.ledger import Ledger


def test_a_child_on_our_terminal_receives_ctrl_c(tmp_path):
    """Mutation: let it inherit the mask that blocks SIGINT during the ledger entry: gdb never stops again."""
    with Ledger(tmp_path / "runs") as ledger:
        host = LocalHost(ledger)
        status = tmp_path / "status"
        with status.open("wb") as output:
            child = host.start(["cat", "/proc/self/status"], stdout=output, own_session=False)
            child.wait()
        host.stop(child)
    blocked = int(re.search(r"^SigBlk:\s*(\w+)$", Path(status).read_text(), re.M)[1], 16)
    assert not blocked & 1 << signal.SIGINT - 1
