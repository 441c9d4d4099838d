"""The null band: how far changes that change nothing move a figure.

Code that never runs, bytes between functions, another order of functions or of objects: each moves addresses, so hash
chains, alignments and page boundaries, and with them a few instructions. A patch within that band is the same.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.campaign.compare import Comparison, compare
from harness.campaign.outcomes import BETTER, WORSE, Change, overall
from harness.campaign.runs import SIDES, DoNotCache, RegressRequest, answers, code, copied, kept_as, modules
from harness.errors import SetupError
from harness.kernel.packages import Kernel
from harness.kernel.subsystems import Part
from harness.plan.session import Session
from harness.store import digest
from harness.values.record import Record

SEEDS = 4

_INCLUDE = re.compile(r"^#include .*\n", re.M)
_STATIC = re.compile(r"^(?P<head>static (?!inline\b)[^;{}=#]*?\([^;{}=#]*\))\n\{\n.*?^\}\n", re.M | re.S)
_IF, _ENDIF = re.compile(r"^#\s*if", re.M), re.compile(r"^#\s*endif", re.M)
_OBJECTS = re.compile(r"^(?P<name>\w+-y)\s*:?=\s*(?P<list>(?:[^\n\\]|\\\n)*)", re.M)


def _first_file(folder: Path, part: Part) -> Path:
    """The part's first file, or another where a kernel has no such file."""
    file = folder / part.first
    return file if file.exists() else min(folder.glob("*.c"))


def _before_the_fault_path(folder: Path, part: Part, inserted: str) -> None:
    """Put lines after the last #include of the part's first file."""
    file = _first_file(folder, part)
    text = file.read_text()
    end = max(found.end() for found in _INCLUDE.finditer(text))
    file.write_text(text[:end] + inserted + text[end:])


def comment(folder: Path, part: Part, size: int) -> None:
    """Lines that are not code, before the fault path: only line numbers move."""
    _before_the_fault_path(folder, part, "\n/* nothing" + "\n * at all" * size + "\n */\n")


def dead_function(folder: Path, part: Part, size: int) -> None:
    """A function that nobody calls, before the fault path."""
    terms = " ^ ".join(f"n % {3 + 2 * number}" for number in range(size))
    code = f"\nstatic noinline __used int odp_harness_dead_{size}(int n)\n{{\n\treturn {terms};\n}}\n"
    _before_the_fault_path(folder, part, code)


def moved_function(folder: Path, part: Part, size: int) -> None:
    """A static function of the fault path's file, declared where it was and defined at the end."""
    file = _first_file(folder, part)
    text = file.read_text()
    every = [found for found in _STATIC.finditer(text) if not _conditional(text, found)]
    if not every:
        raise SetupError(f"no static function in {part.folder}/{file.name}")
    found = every[(size - 1) % len(every)]
    declared = f"{found['head']};\n"
    file.write_text(f"{text[: found.start()]}{declared}{text[found.end() :]}\n{found[0]}")


def _conditional(text: str, found: re.Match[str]) -> bool:
    """Whether a function is in an #if, or has one in it."""
    opened = len(_IF.findall(text, 0, found.start())) - len(_ENDIF.findall(text, 0, found.start()))
    return bool(opened or _IF.search(found[0]))


def padding(folder: Path, part: Part, size: int) -> None:
    """Bytes before the fault path that nothing jumps to."""
    code = f'\nasm(".pushsection .text; .skip {16 * size}, 0xcc; .popsection");\n'
    _before_the_fault_path(folder, part, code)


def link_order(folder: Path, part: Part, size: int) -> None:
    """The module's objects linked in another order: backwards, and begun so many further on."""
    makefile = folder / "Makefile"
    text = makefile.read_text()
    found = _OBJECTS.search(text)
    if found is None:
        raise SetupError(f"no list of objects in {part.folder}/Makefile")
    objects = [word for word in found["list"].replace("\\\n", " ").split() if word.endswith(".o")]
    turned = objects[::-1]
    first = (size - 1) % len(turned)
    line = f"{found['name']} := {' '.join(turned[first:] + turned[:first])}"
    makefile.write_text(text[: found.start()] + line + text[found.end() :])


KINDS: tuple[Callable[[Path, Part, int], None], ...] = (
    comment,
    dead_function,
    moved_function,
    padding,
    link_order,
)


@dataclass(frozen=True)
class Variant:
    """A change that changes nothing: a kind and a size (from 1)."""

    kind: Callable[[Path, Part, int], None]
    size: int

    def __str__(self) -> str:
        return f"{self.kind.__name__} {self.size}"

    def apply(self, folder: Path, part: Part) -> None:
        """Make it in the part's folder."""
        self.kind(folder, part, self.size)


def variants(number: int) -> tuple[Variant, ...]:
    """So many different ones, the kinds in turn."""
    return tuple(Variant(KINDS[n % len(KINDS)], 1 + n // len(KINDS)) for n in range(number))


BAND = tuple(Variant(kind, size) for kind, size in zip(KINDS, (3, 2, 2, 11, 1), strict=True))
"""Those of which the band is made; `variants` is what it is tried on."""

AGAIN = tuple(Variant(kind, size) for kind, size in zip(KINDS, (71, 61, 5, 7, 3), strict=True))
"""More of them, for a band of which a figure has moved out, and to build what moved it again."""

_KEPT = "bands.json"
NOT_COUNTED = "not counted: "
BUILDS = 3
"""In so many builds more a figure must have moved, too."""


def bands(
    session: Session,
    question: RegressRequest,
    kernel: Kernel,
    stock: Path,
    parts: Sequence[Part],
    base: Sequence[Record],
    some: Sequence[Variant] = BAND,
) -> dict[str, float]:
    """By stage the most that any variant of any part moves the median of any case; each is built and run once.

    What was found is kept with the base's answers: to look up every build again takes longer than to run a case.
    """
    asked = partial(_measured, session, question, kernel, stock, parts, base, some)
    kept = kept_as(session, question, SIDES[0])
    if not kept:
        return asked()[0]
    found: dict[str, float] = {}

    def make(into: Path) -> None:
        measured, whole = asked()
        found.update(measured)
        if not whole:
            raise DoNotCache
        (into / _KEPT).write_text(json.dumps(found))

    key = digest(kept, [part.folder for part in parts], [str(each) for each in some], code(("campaign",)))
    try:
        folder = session.store.built("bands", key, make)
    except DoNotCache:
        return found
    return dict(json.loads((folder / _KEPT).read_text()))


def _measured(
    session: Session,
    question: RegressRequest,
    kernel: Kernel,
    stock: Path,
    parts: Sequence[Part],
    base: Sequence[Record],
    some: Sequence[Variant],
) -> tuple[dict[str, float], bool]:
    """The bands, each variant of each part built and run; and whether every case could run."""
    few = dataclasses.replace(question, seeds=min(SEEDS, question.seeds), results=question.results / "null")
    found: dict[str, float] = {}
    whole = True
    for part in _that_ran(parts, base):
        built = 0
        for variant in some:
            session.say(f"null band: {variant} of {part.modules[0]}")
            records = _run(session, few, kernel, stock, parts, part, variant)
            whole &= bool(records) and all(record.verdict != "error" for record in records)
            built += bool(records)
            ran = {record.case.id for record in records}
            for figure in compare([record for record in base if record.case.id in ran], records).figures:
                if figure.exact:
                    found[figure.stage] = max(found.get(figure.stage, figure.band), abs(figure.change))
        if not built:
            raise SetupError(f"no change that changes nothing fits {part.folder}: there is no null band")
    return found, whole


def judged(
    session: Session,
    question: RegressRequest,
    kernel: Kernel,
    trees: tuple[Path, Path],
    parts: Sequence[Part],
    base: Sequence[Record],
    patched: Sequence[Record],
    given: Mapping[str, float],
) -> tuple[Comparison, tuple[str, ...]]:
    """The comparison of two sides, built of `trees`, by the `bands` given; and a word on what is not counted.

    A machine is prepared anew for each build, and once in a while what its memory is like then moves a figure by more
    than the few builds of the band have shown. So of a figure that has moved the band is made of more of them, and it
    must have moved in more builds of the patched tree.
    """
    stock, tree = trees
    found = compare(base, patched, given)
    moved = {_place(change): change for change in found.changes if change.stage}
    if moved:
        more = bands(session, question, kernel, stock, parts, base, AGAIN)
        given = {stage: max(width, more.get(stage, 0.0)) for stage, width in given.items()}
        found = compare(base, patched, given)
    kept = {_place(change) for change in found.changes if change.stage}
    again = dataclasses.replace(question, results=question.results / "again")
    failed: dict[str, Change] = {}
    for part in _that_ran(parts, base):
        for variant in AGAIN[-BUILDS:]:
            if not kept:
                break
            session.say(f"again, with {variant} of {part.modules[0]}")
            records = _run(session, again, kernel, tree, parts, part, variant)
            if not records:
                continue
            once_more = compare(base, records, given).changes
            # A build whose case fails has no figure that could speak against one.
            failed |= {
                change.case: change for change in once_more if change.outcome and change.verdict != BETTER
            }
            kept = {place for place in kept if place[0] in failed} | kept & {
                _place(each) for each in once_more
            }
    notes = [
        f"{NOT_COUNTED}{change.case}: {change.text}; but more builds of the same differ as much"
        for place, change in moved.items()
        if place not in kept
    ]
    changes = tuple(change for change in found.changes if not change.stage or _place(change) in kept)
    changes += tuple(
        dataclasses.replace(change, text=f"built once more, it {change.text}")
        for change in failed.values()
        if change.verdict == WORSE
    )
    return dataclasses.replace(found, changes=changes, verdict=overall(changes)), tuple(notes)


def _that_ran(parts: Sequence[Part], base: Sequence[Record]) -> list[Part]:
    """The parts that moved anything: those of whose devices cases ran."""
    devices = {record.case.device for record in base}
    return [part for part in parts if devices & set(part.devices)]


def _place(change: Change) -> tuple[str, str, str]:
    return change.case, change.stage, change.verdict


def _run(
    session: Session,
    question: RegressRequest,
    kernel: Kernel,
    source: Path,
    parts: Sequence[Part],
    part: Part,
    variant: Variant,
) -> tuple[Record, ...]:
    """Answers of a tree's modules with a variant of one part."""
    with session.ledger.scratch_folder("null") as tree:
        copied(source, parts, tree)
        try:
            variant.apply(tree / part.folder, part)
            files, _ = modules(session, kernel, tree, parts)
        except SetupError as error:
            # What fits one tree may not fit another: the other variants do.
            session.say(f"{variant} of {part.modules[0]} left out: {error.headline}")
            return ()
    return answers(session, question, kernel, files, parts, f"{variant} of {part.modules[0]}")
