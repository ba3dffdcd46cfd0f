"""Execute chapters with papermill into the store, one file per key, each whole or not there at all."""

import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from scoreatlas.book.chapters import Chapter
from scoreatlas.book.keys import Run, runs
from scoreatlas.errors import AtlasError

CELL_LIMIT = 3600  # seconds: a cell that runs longer hangs
INJECTED = "injected-parameters"  # papermill's tag of the cell that it adds
# One thread per kernel: chapters run side by side, and sums do not depend on the machine's cores.
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def execute(planned: Sequence[Run], jobs: int = 2, say: Callable[[str], None] = print) -> None:
    """Execute the runs that the store does not hold yet, ``jobs`` at a time.

    A chapter that fails does not stop the others; what it got to is kept beside the store as ``<key>.part.ipynb``.

    Raises:
        AtlasError: ``jobs`` is not positive, or chapters failed: one line for each, with cell and exception.
    """
    if jobs < 1:
        raise AtlasError(f"--jobs {jobs}: at least 1 is needed")
    todo = [run for run in planned if not run.stored.exists()]
    if not todo:
        say(f"nothing to execute: all {len(planned)} chapters are in the store")
        return
    say(f"{len(todo)} of {len(planned)} chapters to execute, {min(jobs, len(todo))} at a time")
    os.environ.update(THREADS)
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # it warns about what is refused here already
    failures = []
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(execute_one, run): run for run in todo}
        for done, future in enumerate(as_completed(futures), 1):
            name, error = futures[future].chapter.name, future.exception()
            if error is None:
                say(f"[{done}/{len(todo)}] {name}: {future.result():.0f} s")
            elif isinstance(error, AtlasError):
                say(f"[{done}/{len(todo)}] {name}: failed")
                failures.append(str(error))
            else:
                raise error
    if failures:
        raise AtlasError("\n".join(sorted(failures)))


def execute_one(run: Run) -> float:
    """Execute one chapter and store it; returns the seconds it took.

    Raises:
        AtlasError: a cell raised, ran too long or killed its kernel, or the sources changed meanwhile.
    """
    chapter = run.chapter
    part = run.stored.with_suffix(".part.ipynb")
    part.parent.mkdir(parents=True, exist_ok=True)
    source = nbformat.from_dict(chapter.notebook)
    began = time.monotonic()
    try:
        notebook = papermill.execute_notebook(
            source,
            part,
            parameters=run.parameters,
            kernel_name="python3",
            progress_bar=False,
            execution_timeout=CELL_LIMIT,
            # papermill's own `cwd` changes the directory of the whole process, which threads share
            resources={"metadata": {"path": str(chapter.path.parent)}},
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
        )
    except PapermillExecutionError as error:
        message = f"{error.ename}: {error.evalue}".split("\n")[0]
        raise AtlasError(f"{chapter.path}{_line(run, error.source)}, cell [{error.exec_count}]: {message}") from error
    except (CellTimeoutError, DeadKernelError) as error:
        message = str(error).strip().split("\n")[0]
        raise AtlasError(f"{chapter.path}: {message}; the cells before it are in {part}") from error
    seconds = time.monotonic() - began
    (now,) = runs([Chapter(chapter.root, chapter.name)], **run.parameters)
    if now.key != run.key:
        raise AtlasError(f"{chapter.name}: its code or a module it imports changed while it ran; execute it again")
    nbformat.write(clean(notebook, stamp(run, seconds)), part)
    part.replace(run.stored)
    return seconds


def _line(run: Run, source: str) -> str:
    """``:12`` if the cell's text begins in line 12 of the chapter."""
    head, found, _ = run.chapter.path.read_text(encoding="utf-8").partition(source.strip())
    return f":{head.count(chr(10)) + 1}" if found else ""


def stamp(run: Run, seconds: float) -> dict[str, Any]:
    """How an execution came about, for the foot of its page."""
    return run.parameters | {
        "chapter": run.chapter.name,
        "key": run.key,
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "torch": version("torch"),
    }


def clean(notebook: Any, about: dict[str, Any]) -> Any:
    """Without papermill's bookkeeping (it holds local paths), with the stamp; the injected cell is folded."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata["scoreatlas"] = about
    for cell in notebook.cells:
        for name in ("papermill", "execution"):
            cell.metadata.pop(name, None)
        if INJECTED in cell.metadata.get("tags", []):
            cell.metadata["tags"] = [INJECTED, "hide-input"]
    return notebook
