"""Running a suite: cells are computed and recorded one by one, so a killed run loses one cell at most."""

from collections.abc import Collection
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from scoreatlas.bench.compute import compute
from scoreatlas.bench.plan import Planned, plan, stale
from scoreatlas.bench.store import Record, Store
from scoreatlas.bench.suite import BENCHMARKS, Profile, load
from scoreatlas.errors import AtlasError


class FailedCells(AtlasError):
    """Every cell has its record, and in some it says that the solver failed."""


def run(
    suite: str,
    profile: str = "quick",
    only: str | None = None,
    device: str = "cpu",
    progress: bool = True,
    retry: bool = False,
    root: Path = BENCHMARKS,
    keys: Collection[str] | None = None,
) -> int:
    """Compute what is missing or stale; returns the number of cells computed.

    Args:
        suite, profile: what to run.
        only: cells whose key contains this; * and ? allowed.
        device: where solvers run.
        progress: whether to show a bar on the terminal.
        retry: compute failed cells again.
        root: the folder that holds ``suites`` and ``results``.
        keys: these cells alone; all if None.

    Raises:
        AtlasError: bad input, before anything runs.
        FailedCells: cells failed; raised after everything is recorded.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise AtlasError(f"device {device!r} was asked for, but torch sees no GPU here")
    s, store = load(suite, root), Store(root)
    size, records = s.profile(profile), store.all(suite, profile)
    planned = _chosen(plan(s, profile, device, only), keys, f"{suite} ({profile})")
    cells = [p for p in planned if _needed(p, records.get(p.cell.key), size, retry)]
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), disable=not progress,
    )  # fmt: skip
    broken = []
    with bar:
        row = bar.add_task(suite, total=len(cells))
        for p in cells:
            bar.update(row, description=f"{p.cell.world.name}/{p.cell.task.name}/{type(p.cell.solver).__name__}")
            record = compute(p, suite, size, device)
            store.save(record)
            if record.status != "ok":
                broken.append(f"{record.key}: {record.error}")
            bar.advance(row)
    if broken:
        told = f"{len(broken)} of {len(cells)} cells failed and are recorded as such"
        raise FailedCells(f"{told}; the first: {broken[0]}")
    return len(cells)


def _needed(planned: Planned, record: Record | None, size: Profile, retry: bool) -> bool:
    if record is None or stale(record, planned.cell, size):
        return True
    return retry and record.status == "failed"


def _chosen(planned: list[Planned], keys: Collection[str] | None, where: str) -> list[Planned]:
    if keys is None:
        return planned
    wanted = set(keys)
    if unknown := wanted - {p.cell.key for p in planned}:
        raise AtlasError(f"{len(unknown)} keys are of no cell of suite {where}; the first: {min(unknown)}")
    return [p for p in planned if p.cell.key in wanted]
