"""Hand the executed chapters to Sphinx: a jupyter-cache filled from the store, and a stamp for each page."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat

from scoreatlas.book.chapters import code_cells
from scoreatlas.book.execute import INJECTED
from scoreatlas.book.keys import Run
from scoreatlas.errors import AtlasError

CACHE = Path("_build") / ".jupyter_cache"
STAMPS = Path("_build") / "stamps.json"


def stored(run: Run) -> Any:
    """The executed notebook of a run.

    Raises:
        AtlasError: it was not executed, or its file is damaged.
    """
    command = f"run `scoreatlas book execute --profile {run.parameters['profile']} {run.chapter.name}`"
    if not run.stored.exists():
        raise AtlasError(f"{run.chapter.name} has not been executed as it stands now; {command}")
    try:
        return nbformat.read(run.stored, as_version=4)
    except Exception as error:  # nbformat raises several kinds for a damaged file
        raise AtlasError(f"{run.stored} is damaged; delete it and {command}") from error


def seed(root: Path, runs: Sequence[Run]) -> None:
    """Fill the cache and write the stamps, unless they hold these very runs already.

    Sphinx finds outputs by the code of a chapter alone, so the cache is made anew for each set of runs.

    Raises:
        AtlasError: a chapter has not been executed.
    """
    notebooks = [stored(run) for run in runs]
    stamps = {run.chapter.docname: nb.metadata["scoreatlas"] for run, nb in zip(runs, notebooks, strict=True)}
    text = json.dumps(stamps, indent=1, sort_keys=True)
    target = root / STAMPS
    if (root / CACHE).exists() and target.exists() and target.read_text() == text:
        return
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn
    from myst_nb.core.read import read_myst_markdown_notebook

    shutil.rmtree(root / CACHE, ignore_errors=True)
    target.unlink(missing_ok=True)
    cache = get_cache(root / CACHE)
    for run, executed in zip(runs, notebooks, strict=True):
        path = run.chapter.path
        page = read_myst_markdown_notebook(path.read_text(encoding="utf-8"), path=path)
        results = [c for c in code_cells(executed) if INJECTED not in c.metadata.get("tags", [])]
        for cell, result in zip(code_cells(page), results, strict=True):
            cell.outputs, cell.execution_count = result.outputs, result.execution_count
        data = {"execution_seconds": executed.metadata["scoreatlas"]["seconds"]}
        cache.cache_notebook_bundle(CacheBundleIn(page, str(path), data=data), check_validity=False, overwrite=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
