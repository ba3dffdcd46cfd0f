"""The knowledge base: the systems of ``references.bib``, their export and the catalogue page."""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from html import escape
from pathlib import Path

from bibtexparser.model import Entry

from scoreatlas.bibliography import BIBLIOGRAPHY, KnowledgeError, parse, problems, split, validate, values
from scoreatlas.vocabulary import CHAPTERS, DIFFICULTIES, FAMILIES, NEEDS, PARTS


@dataclass(frozen=True)
class System:
    """One system of the catalogue. Text that does not apply is empty; ``summary`` and ``pitfall`` are inline Markdown.

    ``eprint`` is the arXiv number, ``code`` the address of the repository that was read, at ``commit``,
    ``implementation`` the dotted path in this package, ``suite`` the benchmark suites it runs in.
    """

    key: str
    system: str
    title: str
    authors: tuple[str, ...]
    year: int
    family: str
    summary: str
    pitfall: str
    tasks: tuple[str, ...]
    needs: tuple[str, ...]
    blind: bool
    nonlinear: bool
    modality: tuple[str, ...]
    difficulty: str
    chapter: str
    code: str = ""
    commit: str = ""
    implementation: str = ""
    suite: tuple[str, ...] = ()
    eprint: str = ""
    doi: str = ""
    url: str = ""

    @property
    def part(self) -> str:
        """The chapter number up to the dot: ``4`` for ``4.2``."""
        return self.chapter.partition(".")[0]


def load(bib: Path = BIBLIOGRAPHY) -> list[System]:
    """The systems in the order of the file.

    Raises KnowledgeError if the file cannot be read or breaks a rule; whether implementations import is
    left to ``validate``.
    """
    library = parse(bib)
    if found := problems(library, bib.name, imports=False):
        rest = f" (and {len(found) - 1} more: scoreatlas catalogue check)" if len(found) > 1 else ""
        raise KnowledgeError(found[0] + rest)
    return [_system(entry) for entry in library.entries if "system" in entry.fields_dict]


def _system(entry: Entry) -> System:
    raw = {name: value for name, value in values(entry).items() if name in {f.name for f in fields(System)}}
    lists = {name: split(raw[name]) for name in ("tasks", "needs", "modality", "suite") if name in raw}
    return System(**raw | lists | {  # ty: the rules have been checked
        "key": entry.key,
        "title": _plain(raw["title"]),
        "authors": tuple(_plain(name) for name in values(entry)["author"].split(" and ")),
        "year": int(values(entry)["year"]),
        "blind": raw["blind"] == "yes",
        "nonlinear": raw["nonlinear"] == "yes",
        "code": raw["code"].removeprefix("none"),
    })  # fmt: skip
