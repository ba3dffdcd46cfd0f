"""The knowledge base: the systems of ``references.bib``, their export and the catalogue page."""

import csv
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from html import escape
from pathlib import Path
from typing import TextIO

from bibtexparser.model import Entry

from scoreatlas.bibliography import BIBLIOGRAPHY, KnowledgeError, parse, problems, split, validate, values
from scoreatlas.vocabulary import CHAPTERS, DIFFICULTIES, FAMILIES, NEEDS, PARTS


@dataclass(frozen=True)
class System:
    """One system of the catalogue. Text that does not apply is empty; ``summary`` and ``pitfall`` are inline Markdown.

    ``eprint`` is the arXiv number, ``code`` the address of the repository that was read, at ``commit``,
    ``implementation`` the dotted path in this package, ``suite`` the benchmark suites it runs in, ``record`` other
    evidence: cards and records by their paths, or "chapter" for the executed cells of its chapter.
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
    code: str
    commit: str
    implementation: str
    suite: tuple[str, ...]
    record: tuple[str, ...]
    eprint: str
    doi: str
    url: str

    @property
    def part(self) -> str:
        """The chapter number up to the dot: ``4`` for ``4.2``."""
        return self.chapter.partition(".")[0]

    @property
    def link(self) -> str:
        """Where the paper is: arXiv, else the DOI, else ``url``."""
        if self.eprint:
            return f"https://arxiv.org/abs/{self.eprint}"
        return f"https://doi.org/{self.doi}" if self.doi else self.url


def load(bib: Path = BIBLIOGRAPHY) -> list[System]:
    """The systems in the order of the file.

    Raises KnowledgeError if the file cannot be read or breaks a rule; whether implementations import is
    left to ``validate``, since that takes seconds.
    """
    library = parse(bib)
    if found := problems(library, bib.name, imports=False):
        rest = f" (and {len(found) - 1} more: see `scoreatlas catalogue check`)" if len(found) > 1 else ""
        raise KnowledgeError(found[0] + rest)
    return [_system(entry) for entry in library.entries if "system" in entry.fields_dict]


def _system(entry: Entry) -> System:
    raw = values(entry)

    def plain(text: str) -> str:
        return text.replace("{", "").replace("}", "")

    return System(
        key=entry.key,
        system=raw["system"],
        title=plain(raw["title"]),
        authors=tuple(plain(raw["author"]).split(" and ")),
        year=int(raw["year"]),
        family=raw["family"],
        summary=raw["summary"],
        pitfall=raw["pitfall"],
        tasks=split(raw["tasks"]),
        needs=split(raw["needs"]),
        blind=raw["blind"] == "yes",
        nonlinear=raw["nonlinear"] == "yes",
        modality=split(raw["modality"]),
        difficulty=raw["difficulty"],
        chapter=raw["chapter"],
        code="" if raw["code"] == "none" else raw["code"],
        commit=raw.get("commit", ""),
        implementation=raw.get("implementation", ""),
        suite=split(raw.get("suite", "")),
        record=split(raw.get("record", "")),
        eprint=raw.get("eprint", ""),
        doi=raw.get("doi", ""),
        url=raw.get("url", ""),
    )


def check(bib: Path = BIBLIOGRAPHY) -> None:
    """Print every problem of the bibliography, one a line, and end with status 1 if there is any."""
    if found := validate(bib):
        print("\n".join(found), file=sys.stderr)
        raise SystemExit(1)
    print(f"{bib.name}: {len(load(bib))} systems, no problems")


def export(out: Path = Path("_build/catalogue"), bib: Path = BIBLIOGRAPHY) -> None:
    """Write the systems as ``systems.json`` and ``systems.csv`` (lists joined by "; ") into the folder ``out``."""
    systems = load(bib)
    out.mkdir(parents=True, exist_ok=True)

    def as_json(file: TextIO) -> None:
        json.dump([asdict(system) for system in systems], file, ensure_ascii=False, indent=1)
        file.write("\n")

    def as_csv(file: TextIO) -> None:
        table = csv.writer(file)
        table.writerow(field.name for field in fields(System))
        for system in systems:
            table.writerow("; ".join(v) if isinstance(v, tuple) else v for v in asdict(system).values())

    for path, write in ((out / "systems.json", as_json), (out / "systems.csv", as_csv)):
        _replace(path, write)
        print(path)


def _replace(path: Path, write: Callable[[TextIO], None]) -> None:
    """Write beside the file and rename, so that a reader never sees half of it."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8", newline="") as file:
        write(file)
    os.replace(part, path)


def coverage(systems: Sequence[System]) -> dict[tuple[str, str], tuple[int, int]]:
    """For each (family, part) that occurs: how many systems, and how many of them are implemented."""
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    for system in systems:
        number, implemented = counts.get((system.family, system.part), (0, 0))
        counts[system.family, system.part] = (number + 1, implemented + bool(system.implementation))
    return counts


def catalogue_page(bib: Path = BIBLIOGRAPHY) -> str:
    """The page ``book/catalogue.md``: filter, one card a system with the anchor ``system-KEY``, coverage matrix."""
    systems = load(bib)
    implemented = sum(bool(system.implementation) for system in systems)
    blocks = [
        "% Generated from references.bib by `scoreatlas book build`; edit that file instead.",
        "(catalogue-page)=\n# Catalogue of systems",
        f"{len(systems)} systems, {implemented} of them implemented in this package so far. Each card says what the "
        "system does, what it asks for beyond a pre-trained denoiser and the forward operator, which repository was "
        "read and at which commit, and the pitfall most worth knowing. The [coverage matrix](#catalogue-coverage) "
        "counts them by family and chapter. Everything here comes from `references.bib`; `scoreatlas catalogue "
        "export` writes it as JSON and CSV.",
        "```{raw} html\n" + _form(systems) + "\n```",
    ]
    for family, meaning in FAMILIES.items():
        members = sorted((s for s in systems if s.family == family), key=lambda s: (s.year, s.key))
        if members:
            blocks.append(f"(family-{family})=\n## {family.capitalize()}")
            blocks.append(f"{meaning[0].upper()}{meaning[1:]}.")
            blocks += map(_card, members)
    blocks.append("(catalogue-coverage)=\n## Coverage")
    blocks.append(_matrix(systems))
    return "\n\n".join(blocks) + "\n"


def _card(system: System) -> str:
    classes = [f"family-{system.family}", f"part-{system.part.lower()}", *(f"needs-{need}" for need in system.needs)]
    kind = [word for word, is_so in (("unknown", system.blind), ("non-linear", system.nonlinear)) if is_so]
    rows = {
        "paper": f"[{system.title}](<{system.link}>)",
        "tasks": ", ".join(system.tasks),
        "needs": ", ".join(NEEDS[need] for need in system.needs),
        "handles": f"{' and '.join(kind)} operators" if kind else "",
        "data": ", ".join(system.modality),
        "to reproduce": DIFFICULTIES[system.difficulty],
        "chapter": f"{system.chapter} {CHAPTERS[system.chapter]}",
        "evidence": ", ".join("the cells of the chapter" if r == "chapter" else f"`{r}`" for r in system.record),
    }
    if system.code:
        rows["code"] = f"[{system.code.removeprefix('https://github.com/')}]({system.code})"
        rows["code"] += f" at `{system.commit}`" if system.commit else ""
    if system.implementation:
        classes.append("implemented")
        module, _, name = system.implementation.rpartition(".")
        if _is_module(system.implementation):
            module = system.implementation
        rows["implementation"] = f"[`{system.implementation}`](#mod-{module.replace('.', '-')})"
        rows["implementation"] += f" (suites: {', '.join(system.suite)})" if system.suite else ""
        if "cards" in system.suite or "field" in system.suite:
            rows["exactness"] = f"[card](#card-{name.lower()})"
    facts = "\n".join(f"- **{name}** {value}" for name, value in rows.items() if value)
    head = f"(system-{system.key})=\n```{{container}} system {' '.join(classes)}"
    name = f"**{system.system}** {{cite:t}}`{system.key}`"
    return f"{head}\n{name}\n\n{system.summary}\n\n*Pitfall.* {system.pitfall}\n\n{facts}\n```"


def _is_module(path: str) -> bool:
    """Whether a dotted path of the package names a file, and not something that is defined in one."""
    file = Path(__file__).parent.joinpath(*path.split(".")[1:])
    return file.is_dir() or file.with_suffix(".py").exists()


def _form(systems: Sequence[System]) -> str:
    """The filter; ``catalogue.js`` shows it, so that nothing dead is seen without scripts."""
    families = {s.family for s in systems}
    parts = {s.part for s in systems}
    needs = "".join(f'<option value="{n}">{escape(t)}</option>' for n, t in NEEDS.items())
    without = "".join(f'<option value="-{n}">no {n}</option>' for n in NEEDS)
    lists = {
        "family": "".join(f'<option value="{f}">{f}</option>' for f in FAMILIES if f in families),
        "needs": f'<optgroup label="asks for">{needs}</optgroup><optgroup label="does without">{without}</optgroup>',
        "part": "".join(f'<option value="{p.lower()}">{p} {t}</option>' for p, t in PARTS.items() if p in parts),
    }
    labels = {"family": "Family", "needs": "Needs", "part": "Chapter"}
    selects = "\n".join(
        f'<label>{labels[name]} <select name="{name}"><option value="">any</option>{options}</select></label>'
        for name, options in lists.items()
    )
    return (
        '<form class="catalogue-filter" role="search" aria-label="Filter the catalogue" hidden>\n'
        '<label class="wide">Search <input type="search" name="q" placeholder="name, author, title, task, …"></label>\n'
        f'{selects}\n<label class="check"><input type="checkbox" name="implemented"> implemented here</label>\n'
        '<button type="reset">Clear</button> <output aria-live="polite"></output>\n</form>'
    )


def _matrix(systems: Sequence[System]) -> str:
    counts = coverage(systems)
    parts = [part for part in PARTS if any(p == part for _, p in counts)]

    def cell(pairs: list[tuple[str, str]], query: str) -> str:
        number = sum(counts.get(pair, (0, 0))[0] for pair in pairs)
        done = sum(counts.get(pair, (0, 0))[1] for pair in pairs)
        return f'<a href="?{query}">{number}</a>{f" **({done})**" if done else ""}' if number else ""

    families = [family for family in FAMILIES if any(f == family for f, _ in counts)]
    rows = [["", *(f'<abbr title="{PARTS[p]}">{p}</abbr>' for p in parts), "all"], ["---", *["--:"] * (len(parts) + 1)]]
    for family in families:
        row = [cell([(family, part)], f"family={family}&amp;part={part.lower()}") for part in parts]
        rows.append([f"[{family}](#family-{family})", *row, cell([(family, p) for p in parts], f"family={family}")])
    columns = [cell([(family, part) for family in families], f"part={part.lower()}") for part in parts]
    rows.append(["all", *columns, cell(list(counts), "")])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return (
        "In brackets, how many are implemented here; a number opens its systems. The chapters: "
        f"{', '.join(f'{p} {PARTS[p]}' for p in parts)}.\n\n"
        f"```{{table}} Systems by family and chapter\n:name: coverage\n:class: coverage\n\n{table}\n```"
    )
