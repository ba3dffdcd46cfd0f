"""The output-free notebooks beside the chapters."""

import json
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
import yaml

from scoreatlas.book.chapters import Chapter, find
from scoreatlas.book.twins import plain, sync, twin
from scoreatlas.errors import AtlasError

ROOT = Path(__file__).parents[2]
WHERE = ("https://example.org/r", "https://example.org/")


def test_twins_of_this_book_are_in_step() -> None:
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    sync(find(ROOT), config["repository"]["url"], config["html"]["baseurl"], check=True)
    orphans = {p for p in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts}
    assert orphans == {c.path.with_suffix(".ipynb") for c in find(ROOT)}


def test_an_edit_is_noticed_and_changes_one_cell(mini: Path, edit: Callable[[Path, str, str], None]) -> None:
    assert sync(find(mini), *WHERE) == ["alpha", "beta"]
    assert sync(find(mini), *WHERE, check=True) == []
    before = json.loads((mini / "notebooks/alpha.ipynb").read_text())["cells"]
    edit(mini / "notebooks/alpha.md", "profile is", "the profile is")
    with pytest.raises(AtlasError, match="differ from their chapters: alpha; run `scoreatlas book twins`"):
        sync(find(mini), *WHERE, check=True)
    assert sync(find(mini), *WHERE) == ["alpha"]
    after = json.loads((mini / "notebooks/alpha.ipynb").read_text())["cells"]
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 1
    assert len({cell["id"] for cell in after}) == len(after)


def test_a_twin_is_a_valid_notebook_without_outputs(mini: Path) -> None:
    notebook = nbformat.reads(twin(Chapter(mini, "alpha"), *WHERE), as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert "google.colab" in code[0].source and "git+https://example.org/r" in code[0].source
    assert "parameters" in code[1].metadata["tags"]
    assert "https://example.org/notebooks/alpha.html" in notebook.cells[0].source


@pytest.mark.parametrize(
    ("myst", "markdown"),
    [
        ("```{math}\n:label: eq-a\nx = 1\n```", "$$\nx = 1 \\tag{eq-a}\n$$"),
        ("(label)=\n# Title\n% comment\nText", "# Title\nText"),
        ("See {eq}`eq-a`, {cite:t}`ho2020` and {doc}`tables </book/tables>`.", "See (eq-a), [ho2020] and tables."),
        (":::{note}\nOne\n\nTwo\n:::", "> **Note**\n>\n> One\n>\n> Two"),
        ("````{admonition} Correction\n```{math}\ny\n```\n````", "> **Correction**\n>\n> $$\n> y\n> $$"),
        ("```{prf:theorem} Tweedie\n:label: thm\nIt holds.\n```", "> **Theorem Tweedie**\n>\n> It holds."),
        ("```python\nx = {1: 2}\n```", "```python\nx = {1: 2}\n```"),
    ],
)  # fmt: skip
def test_myst_becomes_markdown(myst: str, markdown: str) -> None:
    assert plain(myst) == markdown
