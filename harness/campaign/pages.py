"""Coverage as one HTML file that opens without a network."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from harness.campaign.coverage import Coverage


def coverage(found: Coverage, module: str, folder: Path, release: str) -> str:
    """The module's source files, each line marked; `folder` holds them."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    files = found.files(module)
    sources = [_file(found, module, folder, name) for name, _, _ in files if (folder / name).is_file()]
    return environment.get_template("coverage.html").render(
        module=module, release=release, cases=found.cases, files=files, sources=sources
    )


def _file(found: Coverage, module: str, folder: Path, name: str) -> dict[str, object]:
    code, ran = found.tables[module].code[name], found.reached(module).get(name, set())
    marks = {line: "ran" if line in ran else "not" for line in code}
    texts = (folder / name).read_text(errors="replace").splitlines()
    return {
        "name": name,
        "lines": [{"text": text, "mark": marks.get(number, "")} for number, text in enumerate(texts, 1)],
    }
