"""Notebooks without outputs beside the chapters, for services that open ``.ipynb`` files only."""

import hashlib
import json
import re
from typing import Any

import nbformat

from scoreatlas.book.chapters import Chapter
from scoreatlas.errors import AtlasError

INSTALL = (
    "import sys\n\nif \"google.colab\" in sys.modules:  # elsewhere the package is there already\n"
    "    !pip install --quiet {source}"
)  # fmt: skip
FENCE = re.compile(
    r"^(?P<mark>`{3,}|:{3,})\{(?P<name>[\w:-]+)\}[ ]*(?P<title>[^\n]*)\n(?P<body>.*?)^(?P=mark)[ ]*$", re.M | re.S
)
OPTION = re.compile(r"^:[\w-]+:.*\n?", re.M)
ROLE = re.compile(r"\{(?P<name>[\w:]+)\}`(?P<text>[^`]*)`")


def twin(chapter: Chapter, repository: str, site: str) -> str:
    """The text of a chapter's ``.ipynb``.

    Args:
        chapter: the source.
        repository: address that pip can install from.
        site: address of the book.
    """
    first = f"*Read this chapter, with its results, at [{chapter.title}]({site}{chapter.docname}.html).*"
    install = nbformat.v4.new_code_cell(INSTALL.format(source=f"git+{repository}"), metadata={"tags": ["hide-input"]})
    cells = [nbformat.v4.new_markdown_cell(first), install]
    for cell in chapter.notebook.cells:
        if cell.cell_type == "markdown":
            cells.append(nbformat.v4.new_markdown_cell(plain(cell.source)))
        elif cell.cell_type == "code":
            tags = cell.metadata.get("tags", [])
            cells.append(nbformat.v4.new_code_cell(cell.source, metadata={"tags": tags} if tags else {}))
    seen: dict[str, int] = {}
    for cell in cells:  # an id depends on the cell alone, so that a change in one leaves the others' as they are
        text = hashlib.sha256(cell.source.encode()).hexdigest()[:12]
        seen[text] = seen.get(text, 0) + 1
        cell.id = f"{text}-{seen[text]}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.validate(notebook)
    return json.dumps(_sorted(notebook), indent=1, ensure_ascii=False) + "\n"


def _sorted(notebook: Any) -> Any:
    return json.loads(json.dumps(notebook, sort_keys=True))


def plain(text: str) -> str:
    """MyST as Markdown that any notebook viewer renders."""
    text = FENCE.sub(_directive, text)
    text = re.sub(r"^\([\w:.-]+\)=\s*\n", "", text, flags=re.M)
    text = re.sub(r"^%.*\n?", "", text, flags=re.M)
    return ROLE.sub(_role, text).strip()


def _directive(match: re.Match[str]) -> str:
    name, title = match["name"], match["title"].strip()
    body = OPTION.sub("", match["body"]).strip()
    if name == "math":
        label = re.search(r"^:label:\s*(\S+)", match["body"], re.M)
        return f"$$\n{body}" + (f" \\tag{{{label[1]}}}" if label else "") + "\n$$"
    if name in ("code-block", "code"):
        return f"~~~{title}\n{body}\n~~~"
    if name == "literalinclude":
        return f"*Source: `{title.rpartition('src/')[2]}`*"
    if name in ("figure", "image"):
        return f"*Figure in the online chapter.* {body}".strip()
    if name in ("bench-table", "bibliography", "glue:figure", "glue"):
        return f"*{'References' if name == 'bibliography' else title}: in the online chapter.*"
    kind = name.rpartition(":")[2]
    heading = title if kind == "admonition" else f"{kind.capitalize()} {title}".strip()
    quoted = "\n".join(f"> {line}".rstrip() for line in plain(body).split("\n"))
    return f"> **{heading}**\n>\n{quoted}"


def _role(match: re.Match[str]) -> str:
    name, text = match["name"], match["text"]
    label = re.fullmatch(r"(.*?)\s*<[^>]*>", text, re.S)
    if name.startswith("cite"):
        return f"[{text}]"
    if name == "eq":
        return f"({text})"
    if name == "math":
        return f"${text}$"
    if name == "num":
        return "(see the online chapter)"
    return label[1] if label else f"`{text}`"


def sync(chapters: list[Chapter], repository: str, site: str, check: bool = False) -> list[str]:
    """Write the twins that differ; returns the names of their chapters.

    Raises:
        AtlasError: ``check`` is set and a twin differs.
    """
    stale = []
    for chapter in chapters:
        path, text = chapter.path.with_suffix(".ipynb"), twin(chapter, repository, site)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(chapter.name)
            if not check:
                path.write_text(text, encoding="utf-8")
    if stale and check:
        raise AtlasError(f"notebook twins differ from their chapters: {', '.join(stale)}; run `scoreatlas book twins`")
    return stale
