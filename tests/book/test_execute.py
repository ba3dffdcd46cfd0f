"""papermill executes chapters into the store; a failing one stops nobody."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from scoreatlas.book.chapters import find
from scoreatlas.book.execute import execute
from scoreatlas.book.keys import runs
from scoreatlas.errors import AtlasError


def text(path: Path) -> str:
    """Everything a stored notebook printed."""
    cells = json.loads(path.read_text())["cells"]
    return "".join("".join(o.get("text", "")) for c in cells if c["cell_type"] == "code" for o in c["outputs"])


def test_a_failing_chapter_keeps_the_others(mini: Path, edit: Callable[[Path, str, str], None]) -> None:
    edit(mini / "notebooks/beta.md", "if False:", 'print("so far")\n1 / 0\nif False:')
    first = {run.chapter.name: run for run in runs(find(mini), "full", "cpu", seed=3)}
    said: list[str] = []
    with pytest.raises(AtlasError) as error:
        execute(list(first.values()), say=said.append)
    line = (mini / "notebooks/beta.md").read_text().split("\n").index('print("so far")') + 1
    path = mini / "notebooks/beta.md"
    assert str(error.value) == f"{path}:{line}, cell [3]: ZeroDivisionError: division by zero"
    assert not first["beta"].stored.exists()
    assert "so far" in text(first["beta"].stored.with_suffix(".part.ipynb"))

    stored = first["alpha"].stored
    assert "profile is full" in text(stored)
    about = json.loads(stored.read_text())["metadata"]
    assert about["scoreatlas"] | {"seconds": 0, "utc": "", "torch": ""} == {
        "chapter": "alpha", "profile": "full", "device": "cpu", "seed": 3, "key": first["alpha"].key,
        "seconds": 0, "utc": "", "torch": "",
    }  # fmt: skip
    assert str(mini) not in stored.read_text()

    edit(mini / "notebooks/beta.md", "1 / 0", "1 / 1")
    written = stored.stat().st_mtime_ns
    said.clear()
    execute(runs(find(mini), "full", "cpu", seed=3), say=said.append)
    assert said[0] == "1 of 2 chapters to execute, 1 at a time"
    assert stored.stat().st_mtime_ns == written
    execute(runs(find(mini), "full", "cpu", seed=3), say=said.append)
    assert said[-1] == "nothing to execute: all 2 chapters are in the store"


def test_an_edit_during_the_run_is_not_stored_under_the_old_key(
    mini: Path, edit: Callable[[Path, str, str], None]
) -> None:
    source = mini / "src/scoreatlas/one.py"
    edit(mini / "notebooks/alpha.md", "import sys", f"open({str(source)!r}, 'a').write('# meanwhile')")
    (run,) = runs(find(mini)[:1], "quick", "cpu")
    with pytest.raises(AtlasError, match="alpha: its code or a module it imports changed while it ran"):
        execute([run], say=lambda line: None)
    assert not run.stored.exists()
