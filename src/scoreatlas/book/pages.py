"""Sphinx extension for chapters: how a page was executed, how to cite it, and a guard against executing here."""

import html
import json
import shutil
from pathlib import Path
from typing import Any, NoReturn

from myst_nb.core.execute import cache
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError

from scoreatlas.book.seed import STAMPS

FOLDER = "_notebooks"  # of the executed notebooks in the site


def refuse(*args: object, **kwargs: object) -> NoReturn:
    """Stands in for the execution of a notebook: results come from the store alone."""
    raise ExtensionError("a chapter is not in the cache; run `scoreatlas book execute`, then `scoreatlas book build`")


def stamps(app: Sphinx) -> dict[str, dict[str, Any]]:
    """How each chapter was executed, by its page."""
    path = Path(app.srcdir) / STAMPS
    return json.loads(path.read_text()) if path.exists() else {}


def outdated(app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """Chapters that were executed anew since their page was read: their text did not change, their results did."""
    before: dict[str, str] = vars(env).get("atlas_keys", {})
    now = {page: f"{s['key']} {s['utc']}" for page, s in stamps(app).items()}
    vars(env)["atlas_keys"] = now
    return [page for page in now if page in env.all_docs and before.get(page) != now[page]]


def foot(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Put the stamp and the citation under a chapter."""
    stamp = stamps(app).get(page)
    if stamp is None:
        return
    title = html.unescape(context["title"])
    year = stamp["utc"][:4]
    address = f"{app.config.html_baseurl}{page}.html"
    entry = (
        f"@incollection{{scoreatlas-{page.rpartition('/')[2]},\n  title     = {{{title}}},\n"
        f"  booktitle = {{{app.config.project}}},\n  author    = {{{app.config.author}}},\n  year      = {{{year}}},\n"
        f"  url       = {{{address}}},\n  note      = {{executed {stamp['utc'][:10]}, key {stamp['key']}}}\n}}"
    )
    facts = (
        f"profile <b>{stamp['profile']}</b>", f"device {stamp['device']}", f"seed {stamp['seed']}",
        f"torch {stamp['torch']}", f"{stamp['seconds']:g} s", f"key <code>{stamp['key']}</code>",
    )  # fmt: skip
    name = page.rpartition("/")[2]
    up = "../" * page.count("/")
    context["body"] += (
        f'<footer class="executed"><p>Executed <time datetime="{stamp["utc"]}">{stamp["utc"][:16].replace("T", " ")}'
        f" UTC</time> · {' · '.join(facts)}</p>"
        f'<p><a href="{up}{FOLDER}/{page}.ipynb" download="{name}.ipynb">Executed notebook (.ipynb)</a>'
        f'<a href="{up}_sources/{page}.md" download="{name}.md">Source (.md)</a></p>'
        f'<details class="cite"><summary>Cite this chapter</summary><pre>{html.escape(entry)}</pre></details></footer>'
    )


def offer(app: Sphinx, error: Exception | None) -> None:
    """Put the executed notebooks into the site, as papermill left them."""
    if error or app.builder.format != "html":
        return
    for page, stamp in stamps(app).items():
        target = Path(app.outdir) / FOLDER / f"{page}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(app.srcdir) / "_build" / "store" / f"{stamp['key']}.ipynb", target)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    cache.single_nb_execution = refuse
    app.connect("env-get-outdated", outdated)
    app.connect("html-page-context", foot)
    app.connect("build-finished", offer)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
