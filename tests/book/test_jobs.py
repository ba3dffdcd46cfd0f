"""What is left to do is read from records, executed chapters and site, and from nothing else."""

import os
from pathlib import Path

import pytest

from scoreatlas.bench import commands
from scoreatlas.bench.store import Store
from scoreatlas.book import build
from scoreatlas.book.chapters import find
from scoreatlas.book.jobs import Left, left
from scoreatlas.book.keys import runs
from scoreatlas.errors import AtlasError

SUITE = """
[profiles.quick]
seeds = {seeds}
problems = 1
samples = 100
max_rows = 100

[[worlds]]
name = "mixture2"
tasks = ["row"]

[[solvers]]
name = "PseudoInverse"
source = "paper"
"""


@pytest.fixture
def root(mini: Path) -> Path:
    """The book of two chapters, of which beta reads the suite ``toy``; ``other`` is read by none."""
    (mini / "benchmarks/results/quick/toy/1.json").unlink()
    (mini / "benchmarks/suites").mkdir()
    for suite in ("toy", "other"):
        (mini / f"benchmarks/suites/{suite}.toml").write_text(SUITE.format(seeds=[0, 1, 2]))
    return mini


def finish(root: Path, *names: str) -> None:
    """As if chapters had been executed."""
    for run in runs(find(root), "quick", "cpu"):
        if run.chapter.name in names:
            run.stored.parent.mkdir(parents=True, exist_ok=True)
            run.stored.write_text("{}")


def built(root: Path, later: float = 10.0) -> None:
    """As if the site had been built some seconds after everything else was made."""
    (root / build.SITE).mkdir(parents=True, exist_ok=True)
    (root / build.SITE / "index.html").write_text("site")
    when = max(p.stat().st_mtime for p in root.rglob("*")) + later
    build.mark(root, "quick", "cpu", when)


def test_chapters_wait_for_the_suites_that_they_read(root: Path) -> None:
    finish(root, "alpha", "beta")
    first = left(root, "quick", "cpu", size=2)
    assert {suite: list(pieces) for suite, pieces in first.shards.items()} == {
        "other": ["000", "001"],
        "toy": ["000", "001"],
    }
    for suite, pieces in first.shards.items():
        assert [key for keys in pieces.values() for key in keys] == commands.cells(suite, root=root / "benchmarks")
    assert first.chapters == {"beta": ["toy"]} and first.site  # alpha is executed and reads no suite
    assert str(first) == "6 cells in 4 shards, 1 chapters, the site"
    assert left(root, "quick", "cpu", ["other"]).chapters == {}
    assert left(root, "quick", "cpu", size=2) == first

    commands.run("toy", root=root / "benchmarks")
    assert left(root, "quick", "cpu", ["toy"]).chapters == {"beta": []}  # its key has changed with the records
    commands.run("other", root=root / "benchmarks")
    finish(root, "beta")
    assert left(root, "quick", "cpu") == Left({}, {}, True)
    built(root)
    assert str(left(root, "quick", "cpu")) == "nothing"

    (path, *_) = Store(root / "benchmarks").paths("other", "quick")
    path.unlink()
    again = left(root, "quick", "cpu")
    assert [len(keys) for keys in again.shards["other"].values()] == [1] and again.site and not again.chapters


def test_a_site_is_current_until_something_it_is_made_of_is_newer(root: Path) -> None:
    finish(root, "alpha", "beta")
    assert not build.is_current(root, "quick", "cpu")
    built(root)
    assert build.is_current(root, "quick", "cpu")
    assert not build.is_current(root, "quick", "cuda") and not build.is_current(root, "full", "cpu")
    when = (root / build.BUILT).stat().st_mtime
    for name in (
        "_toc.yml",
        "book/intro.md",
        "notebooks/alpha.md",
        "src/scoreatlas/one.py",
        "benchmarks/suites/toy.toml",
    ):
        old = (root / name).stat().st_mtime
        os.utime(root / name, (when + 1, when + 1))
        assert not build.is_current(root, "quick", "cpu"), name
        os.utime(root / name, (old, old))
        assert build.is_current(root, "quick", "cpu"), name
    (root / build.SITE / "index.html").unlink()
    assert not build.is_current(root, "quick", "cpu")
    built(root)
    next((root / "_build/store").iterdir()).unlink()
    assert not build.is_current(root, "quick", "cpu")


def test_bad_input_is_refused(root: Path) -> None:
    with pytest.raises(AtlasError, match="no profile 'huge'"):
        left(root, "huge", "cpu")
    with pytest.raises(AtlasError, match="no suite named 'exakt'"):
        left(root, "quick", "cpu", ["exakt"])
    with pytest.raises(AtlasError, match="a shard of 0 cells"):
        left(root, "quick", "cpu", size=0)
