"""Sphinx extension: chapters carry the numbers of the survey (4.0, A.1) instead of their place in the book.

``atlas_numbers`` in the configuration names the number of each page. Section numbers, cross-references and the numbers
of figures, tables and equations follow it.
"""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.environment.collectors.toctree import TocTreeCollector

Number = tuple[int | str, ...]


def renumber(env: BuildEnvironment, page: str, number: str) -> None:
    """Put ``number`` in place of the first part of every section number of a page."""
    head: Number = tuple(int(part) if part.isdigit() else part for part in number.split("."))

    def new(old: Number | None) -> Number | None:
        return head + tuple(old[1:]) if old else None

    if page in env.toc_secnumbers:
        env.toc_secnumbers[page] = {anchor: new(old) for anchor, old in env.toc_secnumbers[page].items()}
    for node in [env.titles[page], *env.tocs[page].findall(nodes.reference)]:
        if node.get("secnumber"):
            node["secnumber"] = new(node["secnumber"])


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx: figures are numbered right after sections, so the sections are changed in between."""
    original = TocTreeCollector.assign_section_numbers

    def assign(self: TocTreeCollector, env: BuildEnvironment) -> list[str]:
        changed = original(self, env)
        for page, number in env.config.atlas_numbers.items():
            if page in env.tocs:
                renumber(env, page, str(number))
        return changed

    TocTreeCollector.assign_section_numbers = assign  # type: ignore[method-assign]
    app.add_config_value("atlas_numbers", {}, "env")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
