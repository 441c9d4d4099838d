"""Statistics are imported by who needs them."""

import subprocess
import sys


def test_a_comparison_does_not_import_scipy():
    """`odp-harness --version` would wait for seconds. Mutation: import scipy at the top of statistics.py."""
    program = (
        "import sys, harness.campaign.interleave, harness.campaign.noise\n"
        "sys.exit(bool({'scipy', 'numpy'} & set(sys.modules)))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
