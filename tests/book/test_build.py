"""A book of two chapters, built strictly in a temporary folder by the installed package."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from scoreatlas.book import links
from scoreatlas.book.build import build
from scoreatlas.book.chapters import find
from scoreatlas.book.execute import execute
from scoreatlas.book.keys import runs
from scoreatlas.book.tables import load, number
from scoreatlas.errors import AtlasError

Edit = Callable[[Path, str, str], None]
HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes ``fake_report`` importable here and in Sphinx's process."""
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setenv("PYTHONPATH", str(HERE))


def test_from_chapters_to_a_site(mini: Path, edit: Edit) -> None:
    table = "\n```{bench-table} toy\n```\n\nIn {numref}`table-toy`, DDRM is {num}`toy:DDRM:W2` away.\n"
    beta = mini / "notebooks/beta.md"
    beta.write_text(beta.read_text() + table)
    with pytest.raises(AtlasError, match=r"alpha has not been executed as it stands now; run `scoreatlas book execute"):
        build(mini, "quick", "cpu")
    chapters = runs(find(mini), "quick", "cpu")
    execute(chapters, say=lambda line: None)
    written = {run.stored: run.stored.stat().st_mtime_ns for run in chapters}

    index = build(mini, "quick", "cpu", say=lambda line: None)
    page = (index.parent / "notebooks/beta.html").read_text()
    assert "A.1" in page and "(4.0.1)" in page  # the survey's numbers, in the title and in a reference
    row = re.search(r"<tr[^>]*>\s*<td[^>]*><p>DDRM.*?</tr>", page, re.S)
    assert row and row[0].count("best") == 2
    assert 'DDRM is <span class="num">0.046</span> away' in page
    assert "device cpu" in page and "commit abc1234" in page
    assert 'id="table-toy"' in page and "Table A.1.1" in page
    assert chapters[1].key in page and "@incollection{scoreatlas-beta," in page
    assert (index.parent / "_tables/toy.csv").read_text().startswith("solver,W2,calls\n")
    assert (index.parent / "_notebooks/notebooks/beta.ipynb").read_text() == chapters[1].stored.read_text()
    alpha = (index.parent / "notebooks/alpha.html").read_text()
    assert "profile is quick" in alpha

    # A prose edit executes nothing and appears; a broken reference fails with the place, and does not stay forgotten.
    edit(mini / "notebooks/alpha.md", "Prose of alpha.", "Better prose of alpha, see {ref}`nowhere`.")
    with pytest.raises(AtlasError, match=r"alpha\.md:\d+: WARNING: .*nowhere"):
        build(mini, "quick", "cpu", say=lambda line: None)
    edit(mini / "notebooks/alpha.md", ", see {ref}`nowhere`", "")
    build(mini, "quick", "cpu", say=lambda line: None)
    assert "Better prose" in (index.parent / "notebooks/alpha.html").read_text()
    assert {path: path.stat().st_mtime_ns for path in written} == written

    # A planted broken link and a planted broken anchor are found, and nothing else is.
    assert links.check(index.parent) == []
    target = index.parent / "notebooks/alpha.html"
    text = target.read_text()
    target.write_text(
        text.replace("Better prose", '<a href="gone.html">a</a><a href="beta.html#nix">b</a>Better prose')
    )
    line = text[: text.index("Better prose")].count("\n") + 1
    assert links.check(index.parent) == [
        f"notebooks/alpha.html:{line}: gone.html leads to no file",
        f"notebooks/alpha.html:{line}: beta.html#nix: no such anchor",
    ]


def test_a_table_without_records_or_a_number_without_a_row() -> None:
    with pytest.raises(AtlasError, match="table 'toy' has no records in profile 'full'"):
        load("toy", "full", "fake_report")
    with pytest.raises(AtlasError, match="no table 'nix'; there are toy"):
        load("nix", "quick", "fake_report")
    shown = load("toy", "quick", "fake_report")
    assert number(shown, "DPS", "calls") == "100"
    assert number(shown, "solver=PiGDM, calls=100", "W2") == "0.079"
    with pytest.raises(AtlasError, match="2 rows fit 'calls=100'; exactly one must"):
        number(shown, "calls=100", "W2")
    with pytest.raises(AtlasError, match="has no column 'nix'; there are solver, W2, calls"):
        number(shown, "DPS", "nix")


def test_sphinx_itself_never_executes() -> None:
    from myst_nb.core.execute import cache
    from sphinx.errors import ExtensionError

    from scoreatlas.book.pages import refuse

    assert cache.single_nb_execution is not refuse  # only the extension's setup puts it there
    with pytest.raises(ExtensionError, match="run `scoreatlas book execute`"):
        refuse()
