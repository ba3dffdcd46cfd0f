"""``references.bib``: read with bibtexparser, and the rule that each field has to meet."""

import logging
import pkgutil
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import bibtexparser
from bibtexparser.library import Library
from bibtexparser.model import DuplicateBlockKeyBlock, DuplicateFieldKeyBlock, Entry, ParsingFailedBlock

from scoreatlas.errors import AtlasError
from scoreatlas.vocabulary import CHAPTERS, DIFFICULTIES, FAMILIES, MODALITIES, NEEDS, SUITES, TASKS

logging.getLogger("bibtexparser").setLevel(logging.CRITICAL)  # broken blocks are reported by ``problems``, once

BIBLIOGRAPHY = Path(__file__).parents[2] / "references.bib"

Rule = Callable[[str], str]
"""From the value of a field to what is wrong with it; empty if nothing is."""


class KnowledgeError(AtlasError):
    """The bibliography cannot be read or breaks a rule."""


def one_of(words: Iterable[str]) -> Rule:
    """The value is one of ``words``."""
    allowed = list(words)
    return lambda value: "" if value in allowed else f"is not one of {', '.join(allowed)}"


def some_of(words: Iterable[str], least: int = 1) -> Rule:
    """The value is a comma-separated list of at least ``least`` of ``words``."""
    allowed = sorted(words)

    def rule(value: str) -> str:
        given = split(value)
        unknown = [word for word in given if word not in allowed]
        return f"is not made of {', '.join(allowed)}" if unknown or len(given) < least else ""

    return rule


def like(pattern: str, kind: str) -> Rule:
    """The value matches ``pattern``, which is called ``kind`` in messages."""
    return lambda value: "" if re.fullmatch(pattern, value) else f"is not {kind}"


def importable(path: str) -> str:
    """The rule of ``implementation``: a dotted path to a module or to a name in one."""
    try:
        pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        return f"does not import ({error})"
    return ""


def evidence(value: str) -> str:
    """The rule of ``record``: files and folders of the checkout, or ``chapter``, the executed cells of its chapter."""
    missing = [v for v in split(value) if v != "chapter" and not (BIBLIOGRAPHY.parent / v).exists()]
    return f"names {missing[0]!r}, which the checkout lacks" if missing else ""


TEXT = like(r".*\S.*", "filled in")
URL = like(r"https://[^\s/]+\.[^\s/]+(/\S*)?", "an https address")
REQUIRED = {"author": TEXT, "title": TEXT, "year": like(r"\d{4}", "a year")}
REQUIRED_OF_SYSTEMS = {
    "system": TEXT,
    "family": one_of(FAMILIES),
    "summary": TEXT,
    "pitfall": TEXT,
    "tasks": some_of(TASKS),
    "needs": some_of(NEEDS, least=0),
    "blind": one_of(("yes", "no")),
    "nonlinear": one_of(("yes", "no")),
    "modality": some_of(MODALITIES),
    "difficulty": one_of(DIFFICULTIES),
    "code": lambda value: "" if value == "none" else URL(value),
    "chapter": one_of(CHAPTERS),
}
OPTIONAL = {
    "eprint": like(r"\d{4}\.\d{4,5}", "an arXiv number such as 2209.14687"),
    "archiveprefix": one_of(("arXiv",)),
    "doi": like(r"10\.\d{4,9}/\S+", "a DOI such as 10.1145/3626235"),
    "url": URL,
    "verified": one_of(("false",)),
    "commit": like(r"[0-9a-f]{7,40}", "a commit hash"),
    "implementation": importable,
    "suite": some_of(SUITES),
    "record": evidence,
} | dict.fromkeys(("journal", "booktitle", "volume", "number", "pages", "publisher", "howpublished", "note"), TEXT)
RULES = REQUIRED | REQUIRED_OF_SYSTEMS | OPTIONAL


def split(value: str) -> tuple[str, ...]:
    """The words of a comma-separated list."""
    return tuple(word for part in value.split(",") if (word := part.strip()))


def values(entry: Entry) -> dict[str, str]:
    """The fields of an entry, each on one line."""
    return {field.key: " ".join(str(field.value).split()) for field in entry.fields}


def parse(bib: Path) -> Library:
    """Raises KnowledgeError if the file cannot be read; broken blocks are left to ``problems``."""
    try:
        return bibtexparser.parse_string(bib.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise KnowledgeError(f"{bib}: cannot be read ({error}); pass the path of references.bib") from error


def problems(library: Library, name: str, imports: bool) -> list[str]:
    """One line a problem; ``imports=False`` leaves out whether implementations import, which is slow."""
    lines = [(block.start_line or 0, *_failure(block)) for block in library.failed_blocks]
    for entry in library.entries:
        lines += [(entry.start_line or 0, entry.key, problem) for problem in _of_entry(entry, imports)]
    lines.sort(key=lambda line: line[0])
    return [f"{name}:{line + 1}: {key}: {problem}" for line, key, problem in lines]


def _failure(block: ParsingFailedBlock) -> tuple[str, str]:
    """Key and reason of a block that bibtexparser drops, going on with the next one."""
    found = re.match(r"\s*@\w+\s*\{\s*([^,\s}]+)", block.raw or "")
    key = found.group(1) if found else "no key"
    if isinstance(block, DuplicateBlockKeyBlock):
        return key, "the key is used twice; merge the two entries or rename one"
    if isinstance(block, DuplicateFieldKeyBlock):
        return key, f"fields given twice: {', '.join(sorted(block.duplicate_keys))}"
    return key, "cannot be parsed; a brace or a comma is missing"


def _of_entry(entry: Entry, imports: bool) -> list[str]:
    fields = values(entry)
    required = REQUIRED | (REQUIRED_OF_SYSTEMS if "system" in fields else {})
    found = [f"field {name} is missing" for name in required if name not in fields]
    for name, value in fields.items():
        if name not in RULES:
            found.append(f"field {name} is not known")
        elif (name != "implementation" or imports) and (wrong := RULES[name](value)):
            found.append(f"{name} '{value}' {wrong}")
    if "system" in fields and not {"eprint", "doi", "url"} & set(fields):
        found.append("none of eprint, doi and url is given")
    if "suite" in fields and "implementation" not in fields:
        found.append("suite is given without an implementation")
    return found


def validate(bib: Path = BIBLIOGRAPHY) -> list[str]:
    """All problems of a bibliography as ``file:line: key: what is wrong``; empty if there is none."""
    return problems(parse(bib), bib.name, imports=True)
