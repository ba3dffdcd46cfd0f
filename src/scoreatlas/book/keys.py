"""The key of an execution: equal keys promise equal results, so a chapter runs once per key.

It covers the code cells and their tags, the parameters, the source of every project module that the chapter imports
(through others too), the manifests of the data and weights it can load, the benchmark records of each suite it names,
and the versions of Python and torch up to the minor. Prose is not in it.
"""

import ast
import hashlib
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scoreatlas.book.chapters import Chapter, code_cells
from scoreatlas.book.sources import Sources, parse
from scoreatlas.errors import AtlasError

PACKAGE = "scoreatlas"
# Files that a module loads: their manifests hold the sha256 of each, so hashing the manifests is enough.
MANIFESTS = {"data": "data/files/*.json", "priors.pretrained": "weights/*.json"}
BENCH = f"{PACKAGE}.bench"


@dataclass(frozen=True)
class Run:
    """One chapter to be executed in one way.

    Attributes:
        chapter: which.
        parameters: profile, seed and device, as papermill injects them.
        key: hex digest of everything the result depends on.
    """

    chapter: Chapter
    parameters: dict[str, Any]
    key: str

    @property
    def stored(self) -> Path:
        """Where the executed notebook is kept."""
        return self.chapter.root / "_build" / "store" / f"{self.key}.ipynb"


def source_folder(root: Path) -> Path:
    """``src`` of the checkout; for a book without its own code, where this package lies."""
    return root / "src" if (root / "src").is_dir() else Path(__file__).parents[2]


def runs(chapters: Iterable[Chapter], profile: str, device: str, seed: int = 0) -> list[Run]:
    """A run for each chapter, with its key."""
    chapters = list(chapters)
    if not chapters:
        return []
    sources = Sources(source_folder(chapters[0].root))
    parameters = {"profile": profile, "seed": seed, "device": device}
    return [Run(c, parameters, digest(ingredients(c, parameters, sources))) for c in chapters]


def digest(value: dict[str, Any]) -> str:
    """24 hex digits of the sha256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:24]


def ingredients(chapter: Chapter, parameters: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Everything a chapter's results depend on, by name.

    Raises:
        AtlasError: a code cell is not Python.
    """
    modules = modules_of(chapter, sources)
    return {
        "chapter": chapter.name,
        "cells": [[cell.source, sorted(cell.metadata.get("tags", []))] for cell in code_cells(chapter.notebook)],
        "parameters": parameters,
        "modules": {name: sources.digests[name] for name in sorted(modules)},
        "manifests": manifests(chapter.root, sources, modules),
        "records": records(chapter, parameters["profile"], modules),
        "python": ".".join(map(str, sys.version_info[:2])),
        "torch": ".".join(version("torch").split(".")[:2]),
    }


def modules_of(chapter: Chapter, sources: Sources) -> frozenset[str]:
    """Every project module that a chapter imports, through others too.

    Raises:
        AtlasError: a code cell is not Python.
    """
    named: set[str] = set()
    for number, cell in enumerate(code_cells(chapter.notebook), 1):
        try:
            named |= sources.named_in(cell.source)
        except SyntaxError as error:
            raise AtlasError(f"{chapter.path}, code cell {number}, line {error.lineno}: {error.msg}") from error
    return sources.closure(named)


def manifests(root: Path, sources: Sources, modules: Iterable[str]) -> dict[str, str]:
    """sha256 of the manifests of the files that ``modules`` load, and of the knowledge base if they read it."""
    patterns = [pattern for name, pattern in MANIFESTS.items() if f"{PACKAGE}.{name}" in set(modules)]
    paths = sorted(p for pattern in patterns for p in (sources.folder / PACKAGE).glob(pattern))
    if f"{PACKAGE}.knowledge" in set(modules):
        paths.append(root / "references.bib")
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def records(chapter: Chapter, profile: str, modules: Iterable[str]) -> dict[str, str]:
    """A digest of the records of each suite that the chapter reads."""
    results = chapter.root / "benchmarks" / "results" / profile
    there = {p.name: p for p in sorted(results.glob("*")) if p.is_dir()}
    read = suites_read(chapter, modules, there)
    return {name: digest({p.name: p.read_text() for p in sorted(there[name].glob("*.json"))}) for name in read}


def suites_read(chapter: Chapter, modules: Iterable[str], suites: Iterable[str]) -> list[str]:
    """Which of ``suites`` a chapter reads: those that it names, if it uses the benchmark package at all.

    A suite is named if one of the chapter's string literals contains its name as a word.
    """
    if not any(name == BENCH or name.startswith(f"{BENCH}.") for name in modules):
        return []
    words = {word for cell in code_cells(chapter.notebook) for word in _words(cell.source)}
    return [name for name in suites if name in words]


def _words(code: str) -> set[str]:
    strings = (n.value for n in ast.walk(parse(code)) if isinstance(n, ast.Constant) and isinstance(n.value, str))
    return {word for text in strings for word in re.findall(r"\w+", text)}
