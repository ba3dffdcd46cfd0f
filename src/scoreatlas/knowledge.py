"""The knowledge base: ``references.bib`` read, validated, exported and turned into the catalogue page.

An entry with a ``system`` field is a system of the catalogue; the others are plain references.
"""

import csv
import io
import json
import pkgutil
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import bibtexparser
from bibtexparser.library import Library
from bibtexparser.model import DuplicateBlockKeyBlock, Entry

from scoreatlas.vocabulary import CHAPTERS, DIFFICULTIES, FAMILIES, MODALITIES, NEEDS, PARTS, SUITES, TASKS

BIBLIOGRAPHY = Path(__file__).parents[2] / "references.bib"


class KnowledgeError(ValueError):
    """The bibliography cannot be used; the message holds one problem a line."""


@dataclass(frozen=True)
class System:
    """One entry of the catalogue; ``summary`` and ``pitfall`` are inline Markdown, empty means none."""

    key: str
    system: str
    title: str
    authors: tuple[str, ...]
    year: int
    family: str
    tasks: tuple[str, ...]
    needs: tuple[str, ...]
    blind: bool
    nonlinear: bool
    modality: tuple[str, ...]
    difficulty: str
    chapter: str
    code: str
    commit: str
    implementation: str
    suite: tuple[str, ...]
    eprint: str
    doi: str
    url: str
    summary: str
    pitfall: str

    @property
    def part(self) -> str:
        """The chapter number up to the dot: ``4`` of ``4.2``."""
        return self.chapter.partition(".")[0]


def _one_of(words: Iterable[str]) -> Callable[[str], str]:
    allowed = sorted(words)
    return lambda value: "" if value in allowed else f"is not one of {', '.join(allowed)}"


def _some_of(words: Iterable[str]) -> Callable[[str], str]:
    allowed = sorted(words)

    def check(value: str) -> str:
        unknown = [word for word in _split(value) if word not in allowed]
        return f"has the unknown {', '.join(unknown)}; known are {', '.join(allowed)}" if unknown else ""

    return check


def _like(pattern: str, kind: str) -> Callable[[str], str]:
    return lambda value: "" if re.fullmatch(pattern, value) else f"is not {kind}"


def _importable(path: str) -> str:
    try:
        pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        return f"does not import ({error})"
    return ""


_FREE = _like(r".*\S.*", "filled in")
_URL = _like(r"https://[^\s/]+\.[^\s/]+(/\S*)?", "an https address")
_REQUIRED = {"author": _FREE, "title": _FREE, "year": _like(r"\d{4}", "a year")}
_SYSTEM = {
    "system": _FREE,
    "family": _one_of(FAMILIES),
    "summary": _FREE,
    "pitfall": _FREE,
    "tasks": _some_of(TASKS),
    "needs": _some_of(NEEDS),
    "blind": _one_of(("yes", "no")),
    "nonlinear": _one_of(("yes", "no")),
    "modality": _some_of(MODALITIES),
    "difficulty": _one_of(DIFFICULTIES),
    "code": lambda value: "" if value == "none" else _URL(value),
    "chapter": _one_of(CHAPTERS),
}
_OPTIONAL = {
    "eprint": _like(r"\d{4}\.\d{4,5}", "an arXiv number such as 2209.14687"),
    "archiveprefix": _one_of(("arXiv",)),
    "doi": _like(r"10\.\d{4,9}/\S+", "a DOI such as 10.1145/3626235"),
    "url": _URL,
    "verified": _one_of(("false",)),
    "commit": _like(r"[0-9a-f]{7,40}", "a commit hash"),
    "implementation": _importable,
    "suite": _some_of(SUITES),
} | dict.fromkeys(("journal", "booktitle", "volume", "number", "pages", "publisher", "howpublished", "note"), _FREE)


def _split(value: str) -> tuple[str, ...]:
    return tuple(word for part in value.split(",") if (word := part.strip()))


def _values(entry: Entry) -> dict[str, str]:
    return {field.key: " ".join(str(field.value).split()) for field in entry.fields}


def _parse(path: Path) -> Library:
    try:
        return bibtexparser.parse_string(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise KnowledgeError(f"{path}: cannot be read ({error}); pass the path of references.bib") from error


def _failed(library: Library, name: str) -> list[str]:
    """One line for each block that bibtexparser could not use (it drops them and goes on)."""
    lines = []
    for block in library.failed_blocks:
        found = re.match(r"\s*@\w+\s*\{\s*([^,\s}]+)", block.raw or "")
        key = found.group(1) if found else "?"
        again = isinstance(block, DuplicateBlockKeyBlock)
        reason = "key used twice; merge the entries or rename one" if again else f"cannot be parsed ({block.error})"
        lines.append(f"{name}:{(block.start_line or 0) + 1}: {key}: {' '.join(reason.split())}")
    return lines


def _entry_problems(entry: Entry, imports: bool) -> list[str]:
    values = _values(entry)
    required = _REQUIRED | (_SYSTEM if "system" in values else {})
    problems = [f"field {name} is missing" for name in required if name not in values]
    for name, value in values.items():
        check = (_REQUIRED | _SYSTEM | _OPTIONAL).get(name)
        if check is None:
            problems.append(f"field {name} is not known")
        elif (name != "implementation" or imports) and (complaint := check(value)):
            problems.append(f"{name} '{value}' {complaint}")
    if "suite" in values and "implementation" not in values:
        problems.append("suite is given without an implementation")
    return problems


def _problems(library: Library, name: str, imports: bool) -> list[str]:
    """One line a problem; ``imports=False`` leaves out whether implementations import, which is slow."""
    return _failed(library, name) + [
        f"{name}:{(entry.start_line or 0) + 1}: {entry.key}: {problem}"
        for entry in library.entries
        for problem in _entry_problems(entry, imports)
    ]


def validate(bib: Path = BIBLIOGRAPHY) -> list[str]:
    """All problems of a bibliography as ``file:line: key: what is wrong``; empty if there is none."""
    return _problems(_parse(bib), bib.name, imports=True)


def _system(entry: Entry) -> System:
    raw = _values(entry)
    get = lambda name: raw.get(name, "")  # noqa: E731
    lists = {name: _split(get(name)) for name in ("tasks", "needs", "modality", "suite")}
    texts = ("system", "family", "difficulty", "chapter", "commit", "implementation", "eprint", "doi", "url")
    return System(
        key=entry.key,
        title=re.sub(r"[{}]", "", raw["title"]),
        authors=tuple(re.sub(r"[{}]", "", name) for name in raw["author"].split(" and ")),
        year=int(raw["year"]),
        blind=raw["blind"] == "yes",
        nonlinear=raw["nonlinear"] == "yes",
        code="" if raw["code"] == "none" else raw["code"],
        summary=raw["summary"],
        pitfall=raw["pitfall"],
        **lists,
        **{name: get(name) for name in texts},
    )


def load(bib: Path = BIBLIOGRAPHY) -> list[System]:
    """The systems in the order of the file. Raises KnowledgeError with every problem but failing imports."""
    library = _parse(bib)
    if problems := _problems(library, bib.name, imports=False):
        raise KnowledgeError("\n".join(problems))
    return [_system(entry) for entry in library.entries if "system" in _values(entry)]
