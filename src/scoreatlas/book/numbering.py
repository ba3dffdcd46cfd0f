"""Sphinx extension: chapters carry the numbers of the survey (4.0, A.1) instead of their place in the book.

``atlas_numbers`` in the configuration names the number of each page. Section numbers, cross-references and the numbers
of figures, tables and equations follow it.
"""

import copy
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx_external_toc.collectors import TocTreeCollectorWithStyles

Number = list[int | str]


def renumber(env: BuildEnvironment, page: str, number: str) -> None:
    """Put ``number`` in place of the first part of every section number of a page."""
    head: Number = [int(part) if part.isdigit() else part for part in number.split(".")]
    numbers: dict[str, Any] = env.toc_secnumbers.get(page, {})
    for anchor, old in numbers.items():
        if old:
            numbers[anchor] = (*head, *old[1:])
    for node in [env.titles[page], *env.tocs[page].findall(nodes.reference)]:
        if node.get("secnumber"):
            node["secnumber"] = head + list(node["secnumber"][1:])


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx: figures are numbered right after sections, so the sections are changed in between."""
    original = TocTreeCollectorWithStyles.assign_section_numbers

    def assign(self: TocTreeCollectorWithStyles, env: BuildEnvironment) -> list[str]:
        before = copy.deepcopy(env.toc_secnumbers)
        original(self, env)
        for page, number in env.config.atlas_numbers.items():
            if page in env.tocs:
                renumber(env, page, str(number))
        return [page for page, numbers in env.toc_secnumbers.items() if before.get(page) != numbers]

    TocTreeCollectorWithStyles.assign_section_numbers = assign  # type: ignore[method-assign]
    app.add_config_value("atlas_numbers", {}, "env")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
