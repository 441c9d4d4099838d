"""Run commands: on the host of the harness (local.py), or on a lab host by ssh (ssh.py); the same verbs and errors."""

from harness.host.local import PACKAGES as PACKAGES
from harness.host.local import CommandError as CommandError
from harness.host.local import Finished as Finished
from harness.host.local import LocalHost as LocalHost
from harness.host.local import require as require
