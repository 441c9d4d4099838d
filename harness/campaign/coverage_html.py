"""Render coverage as one HTML file that opens without a network."""

from __future__ import annotations

from pathlib import Path

from harness.campaign.coverage import Coverage
from harness.results.html import page


def coverage(measured: Coverage, module: str, folder: Path, release: str) -> str:
    """Render the module's source files in `folder`, each line marked."""
    files, executed = measured.files(module), measured.executed(module)
    code = measured.tables[module].code
    sources = [
        _file(folder / name, code[name], executed.get(name, set()))
        for name, _, _ in files
        if (folder / name).is_file()
    ]
    return page(
        Path(__file__).with_name("coverage.html"),
        module=module,
        release=release,
        cases=measured.cases,
        files=files,
        sources=sources,
        named=[source["name"] for source in sources],
    )


def _file(path: Path, code: set[int], executed: set[int]) -> dict[str, object]:
    marks = {line: "executed" if line in executed else "missed" for line in code}
    texts = path.read_text(errors="replace").splitlines()
    return {
        "name": path.name,
        "lines": [{"text": text, "mark": marks.get(number, "")} for number, text in enumerate(texts, 1)],
    }
