"""Coverage as one HTML file that opens without a network."""

from __future__ import annotations

from pathlib import Path

from harness.campaign.coverage import Coverage
from harness.results.html import page


def coverage(found: Coverage, module: str, folder: Path, release: str) -> str:
    """The module's source files, each line marked; `folder` holds them."""
    files, reached = found.files(module), found.reached(module)
    code = found.tables[module].code
    sources = [
        _file(folder / name, code[name], reached.get(name, set()))
        for name, _, _ in files
        if (folder / name).is_file()
    ]
    return page(
        Path(__file__).with_name("coverage.html"),
        module=module,
        release=release,
        cases=found.cases,
        files=files,
        sources=sources,
        named=[source["name"] for source in sources],
    )


def _file(path: Path, code: set[int], ran: set[int]) -> dict[str, object]:
    marks = {line: "ran" if line in ran else "not" for line in code}
    texts = path.read_text(errors="replace").splitlines()
    return {
        "name": path.name,
        "lines": [{"text": text, "mark": marks.get(number, "")} for number, text in enumerate(texts, 1)],
    }
