"""Write measurements into docs/benchmarks.md.

    ./odp-harness bench boot --json > boot.json
    ./odp-harness python docs/update_benchmarks.py boot boot.json

replaces what stands between the markers `bench boot: begin` and `bench boot: end`.
"""

import json
import re
import sys
import time
from pathlib import Path

from harness import __version__

PAGE = Path(__file__).parent / "benchmarks.md"


def replaced(page: str, name: str, metrics: dict[str, object], measured: str) -> str:
    """Return the page with the table of one measurement; SystemExit if it has no markers for that."""
    rows = "\n".join(f"| `{key}` | {value} |" for key, value in metrics.items())
    table = f"Measured {measured}.\n\n| metric | value |\n|---|---|\n{rows}\n"
    begin, end = f"<!-- bench {name}: begin -->\n", f"<!-- bench {name}: end -->"
    new, count = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: begin + table + end, page, flags=re.S
    )
    if not count:
        raise SystemExit(f"no markers of `bench {name}` in {PAGE.name}")
    return new


def main() -> None:
    """Update the page from NAME and a JSON file, dated by that file."""
    if len(sys.argv) != 3:
        raise SystemExit("usage: update_benchmarks.py NAME BENCH.json")
    name, file = sys.argv[1], Path(sys.argv[2])
    day = time.strftime("%Y-%m-%d", time.gmtime(file.stat().st_mtime))
    text = replaced(PAGE.read_text(), name, json.loads(file.read_text()), f"{day} with version {__version__}")
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
