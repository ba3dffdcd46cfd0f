"""Sphinx extension for tables: the ``bench-table`` and ``bench-index`` directives and the ``num`` role.

Tables become native, numbered tables, so ``{numref}`table-<id>``` works and every output format can print them.
"""

import hashlib
import html
import os
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from scoreatlas.book import tables
from scoreatlas.errors import AtlasError

FOLDER = "_tables"  # of the CSV, LaTeX and BibTeX files in the site
SHORT = 20  # characters that stay on one line
logger = logging.getLogger(__name__)


def used(env: BuildEnvironment) -> dict[str, dict[tuple[str, str], str]]:
    """Tables shown by each page, with the state of the records when it was read."""
    return vars(env).setdefault("atlas_tables", {})


def indexes(env: BuildEnvironment) -> set[str]:
    """Pages that list all tables."""
    return vars(env).setdefault("atlas_indexes", set())


def state(root: Path, profile: str) -> str:
    """Changes whenever a record of the profile, a suite, or the code that makes tables does."""
    folders = (
        root / "benchmarks" / "results" / profile,
        root / "benchmarks" / "suites",
        Path(__file__).parents[1] / "bench",
    )
    files = sorted(f for folder in folders for f in folder.rglob("*.*") if f.suffix in (".json", ".toml", ".py"))
    return hashlib.sha256(repr([(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]).encode()).hexdigest()


def load(env: BuildEnvironment, id: str, profile: str) -> tables.Shown:
    """A table, noted as used by the page that is being read."""
    shown = tables.load(id, profile, env.config.atlas_report)
    used(env).setdefault(env.docname, {})[id, profile] = state(Path(env.srcdir), profile)
    return shown


def default_profile() -> str:
    """The profile of the build."""
    return os.environ.get("SCOREATLAS_PROFILE", "quick")


class BenchTable(SphinxDirective):
    """A benchmark table, its provenance and its files."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {"profile": directives.unchanged, "caption": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        profile = self.options.get("profile", default_profile())
        try:
            shown = load(self.env, self.arguments[0], profile)
        except AtlasError as error:
            logger.warning(str(error), location=self.get_location())
            return []
        box = nodes.container(classes=["bench-table"])
        box += self.table(shown, self.options.get("caption", shown.caption))
        box += nodes.paragraph("", provenance(shown), classes=["provenance"])
        box += nodes.raw("", files(shown, self.env), format="html")
        return [box]

    def table(self, shown: tables.Shown, caption: str) -> nodes.table:
        table = nodes.table(classes=["sortable"], ids=[f"table-{shown.id}"], names=[f"table-{shown.id}"])
        title, messages = self.state.inline_text(caption, self.lineno)
        table += nodes.title(caption, "", *title, *messages)
        group = nodes.tgroup(cols=len(shown.header))
        group += [nodes.colspec(colwidth=1) for _ in shown.header]
        head, body = nodes.thead(), nodes.tbody()
        numeric = [any(row[j] is not None for row in shown.raw) for j in range(len(shown.header))]
        head += _row(shown.header, [["num"] if n else [] for n in numeric])
        for cells, raw, best in zip(shown.rows, shown.raw, shown.best, strict=True):
            body += _row(cells, [_marks(*of) for of in zip(cells, numeric, raw, best, strict=True)])
        group += [head, body]
        table += group
        self.state.document.note_explicit_target(table, table)
        return table


def _marks(text: str, numeric: bool, raw: float | None, best: bool) -> list[str]:
    """Classes of a cell: a number, the reason why there is none, or words, which may break unless they are short."""
    if numeric:
        return ["num", *(["why"] if raw is None else []), *(["best"] if best else [])]
    return ["short"] if len(text) < SHORT else []


def _row(cells: list[str], classes: list[list[str]]) -> nodes.row:
    row = nodes.row()
    for text, marks in zip(cells, classes, strict=True):
        row += nodes.entry("", nodes.paragraph(text, text), classes=marks)
    return row


def provenance(shown: tables.Shown) -> str:
    """The line under a table."""
    return " · ".join(f"{name} {value}" for name, value in shown.provenance.items() if value not in (None, ""))


def files(shown: tables.Shown, env: BuildEnvironment) -> str:
    """Links to the files of a table and its citation."""
    base = "../" * env.docname.count("/") + f"{FOLDER}/{shown.id}"
    entry = html.escape(tables.exports(env.config.atlas_report)["bib"](shown.id, shown.profile).strip())
    return (
        f'<div class="bench-files"><a href="{base}.csv" download>CSV</a><a href="{base}.tex" download>LaTeX</a>'
        f'<details class="cite"><summary>Cite this table</summary><pre>{entry}</pre></details></div>'
    )


def _item(id: str, *body: nodes.Node) -> nodes.definition_list_item:
    return nodes.definition_list_item("", nodes.term("", "", nodes.literal(id, id)), nodes.definition("", *body))


class place(nodes.General, nodes.Inline, nodes.Element):
    """Stands for a link to the page that shows the table ``id``."""


class BenchIndex(SphinxDirective):
    """A list of every table: name, caption, where it is shown, and files."""

    def run(self) -> list[nodes.Node]:
        indexes(self.env).add(self.env.docname)
        listing = nodes.definition_list(classes=["bench-index"])
        for id in tables.ids(self.env.config.atlas_report):
            try:
                shown = load(self.env, id, default_profile())
            except AtlasError as error:  # a table that no page shows may lack records; one that is shown may not
                listing += _item(id, nodes.paragraph("", str(error), classes=["provenance"]))
                continue
            where = nodes.paragraph("", "", nodes.Text(f"{shown.caption} "), place(id=id))
            line = nodes.paragraph("", provenance(shown), classes=["provenance"])
            link = nodes.raw("", files(shown, self.env), format="html")
            listing += _item(id, where, line, link)
        return [listing]


def resolve(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Turn each ``place`` into a link, or drop it if no page shows the table."""
    for node in list(doctree.findall(place)):
        shows = [doc for doc, keys in used(app.env).items() if doc != page and any(node["id"] == id for id, _ in keys)]
        if not shows:
            node.parent.remove(node)
            continue
        address = f"{app.builder.get_relative_uri(page, shows[0])}#table-{node['id']}"
        title = app.env.titles[shows[0]].astext()
        node.replace_self(nodes.reference("", title, refuri=address, internal=True))


class Num(SphinxRole):
    """``{num}`id:row:column``` is that cell of a table; see ``tables.number`` for how a row is named."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        id, _, rest = self.text.partition(":")
        row, _, column = rest.rpartition(":")
        try:
            text = tables.number(load(self.env, id, default_profile()), row, column)
        except AtlasError as error:
            logger.warning(str(error), location=self.get_location())
            return [], []
        return [nodes.inline(text, text, classes=["num"])], []


def outdated(app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """Pages whose tables have new records."""
    root = Path(app.srcdir)
    now = {profile: state(root, profile) for page in used(env).values() for _, profile in page}
    return [doc for doc, page in used(env).items() if any(now[profile] != was for (_, profile), was in page.items())]


def rewritten(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Pages with a list of tables are written anew each time: other pages decide where a table is shown."""
    return sorted(indexes(env))


def purge(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    """Forget the tables of a page that is read anew."""
    used(env).pop(docname, None)
    indexes(env).discard(docname)


def export(app: Sphinx, error: Exception | None) -> None:
    """Write the files of every table that a page shows, unless they are there and its records are the same."""
    if error or app.builder.format != "html":
        return
    folder = Path(app.outdir) / FOLDER
    folder.mkdir(exist_ok=True)
    for (id, profile), now in {key: was for page in used(app.env).values() for key, was in page.items()}.items():
        mark = folder / f".{id}"
        if mark.exists() and mark.read_text() == now:
            continue
        for ending, write in tables.exports(app.config.atlas_report).items():
            (folder / f"{id}.{ending}").write_text(write(id, profile), encoding="utf-8")
        mark.write_text(now)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_config_value("atlas_report", tables.REPORT, "env")
    app.add_directive("bench-table", BenchTable)
    app.add_directive("bench-index", BenchIndex)
    app.add_role("num", Num())
    app.add_node(place)
    app.connect("doctree-resolved", resolve)
    app.connect("env-get-outdated", outdated)
    app.connect("env-updated", rewritten)
    app.connect("env-purge-doc", purge)
    app.connect("build-finished", export)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
