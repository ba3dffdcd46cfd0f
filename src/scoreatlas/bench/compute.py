"""One cell: run the solver, count, measure, and say where it was done."""

import datetime
import math
import subprocess
import time
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scoreatlas.bench.calibrate import calibrate
from scoreatlas.bench.catalogue import fitting_prior
from scoreatlas.bench.cell import Cell, Instance, Task, World, instance
from scoreatlas.bench.counting import Counter, PeakMemory, counted_operator, counted_prior
from scoreatlas.bench.measure import Truth, image_metrics
from scoreatlas.bench.plan import Planned, cell_source_hash
from scoreatlas.bench.store import Record, Status
from scoreatlas.bench.suite import STREAM, Profile
from scoreatlas.measurement import Measurement
from scoreatlas.metrics.estimate import Estimate
from scoreatlas.rng import Rng
from scoreatlas.solvers.particles.base import ParticleSolver


def compute(planned: Planned, suite: str, size: Profile, device: str) -> Record:
    """The record of one cell. A solver that raises, or gives NaN, is a result like any other."""
    cell, entry = planned
    status: Status = "ok"
    error: str | None = None
    metrics: dict[str, Estimate] = {}
    cost: dict[str, float | None] = {}
    extra: dict[str, float] = {}
    counts: dict[str, list[int]] = {}
    try:
        problems = _instance(cell.world, cell.task, cell.seed, size.problems)
        x, cost = solve(cell, problems, size, device)
        if broken := int((~x.flatten(1).isfinite().all(1)).sum()):
            status, error = "nonfinite", f"{broken} of {len(x)} samples are not finite"
        else:
            metrics = _metrics(cell, problems, x, size)
            if size.calibration:
                many, samples = size.calibration
                found = calibrate(
                    cell, _instance(cell.world, cell.task, cell.seed, many), samples, device, size.max_rows
                )
                metrics, extra, counts = metrics | found.metrics, found.floor, found.counts
            broken_names = [name for name, e in metrics.items() if not math.isfinite(e.value)]
            if broken_names:
                status, error, metrics = "nonfinite", f"not finite: {', '.join(broken_names)}", {}
        digest = problems.digest
    except Exception as exception:  # whatever it is, the other cells go on
        status, error, digest = "failed", f"{type(exception).__name__}: {str(exception).partition(chr(10))[0]}", None
    kind = type(cell.solver).__name__
    floor: dict[str, float | None] = (
        {} if status == "failed" or cell.world.posterior is None else {**_truth(cell, size).floor, **extra}
    )
    return Record(
        key=cell.key, suite=suite, profile=size.name, world=cell.world.name, task=cell.task.name, seed=cell.seed,
        solver={"name": kind, "fields": entry.fields, "repr": repr(cell.solver), "source": entry.source},
        status=status, error=error, metrics={name: e._asdict() for name, e in metrics.items()}, floor=floor, cost=cost,
        provenance=provenance(cell, size, device) | {"instance_hash": digest}, counts=counts,
    )  # fmt: skip


def solve(cell: Cell, problems: Instance, size: Profile, device: str) -> tuple[Tensor, dict[str, float | None]]:
    """Samples (problems * samples, *s) on the CPU, and what they cost.

    A particle solver gives all particles of its runs where that many samples are asked for, as
    many runs as it takes; otherwise one particle of a run for each sample.

    Calls are those of one chain: a denoiser call serves every row of a batch. Seconds and memory
    are those of all rows, in one run without warm-up.
    """
    where, counter = torch.device(device), Counter()
    particles = (
        cell.solver if isinstance(cell.solver, ParticleSolver) and cell.solver.particles <= size.samples else None
    )
    rows = particles.particles if particles else min(size.samples, STREAM)
    runs = range(math.ceil(size.samples / rows))
    streams = [(i, 1_000_000 * cell.seed + 1000 * i + j) for i in range(size.problems) for j in runs]
    at_once = max(1, size.max_rows // rows)
    chunks = [streams[i : i + at_once] for i in range(0, len(streams), at_once)]
    A = counted_operator(problems.m.A.to(where), counter)
    prior = counted_prior(fitting_prior(cell.solver, cell.world), counter)
    y, parts, memory = problems.m.y.to(where), [], PeakMemory(where)
    began = time.perf_counter()
    for chunk in chunks:
        index, seeds = ([s[k] for s in chunk] for k in (0, 1))
        m = Measurement(y[index], A, problems.m.noise)
        rng = Rng(seeds, 1 if particles else rows, device=where, dtype=cell.world.dtype)
        x = particles.cloud(m, prior, rng).flatten(0, 1) if particles else cell.solver(m.repeat(rows), prior, rng)
        parts.append(x.cpu())  # copying to the host waits for the device
    seconds = time.perf_counter() - began
    calls = {"denoiser_calls": counter.denoiser, "vjps": counter.vjps, "operator_calls": counter.operator}
    cost = {name: n / len(chunks) for name, n in calls.items()}
    x = torch.cat(parts).unflatten(0, (size.problems, -1))[:, : size.samples].flatten(0, 1)
    return x, cost | {"seconds": seconds, "peak_mb": memory.megabytes()}


def provenance(cell: Cell, size: Profile, device: str) -> dict[str, Any]:
    """Where, when and with what a cell was computed."""
    commit, dirty = _commit()
    return {
        "commit": commit, "dirty": dirty, "source_hash": cell_source_hash(cell, size),
        "weights_sha256": cell.world.weights_sha256, "data_sha256": cell.world.data_sha256,
        "torch": torch.__version__, "device": _device_name(device), "threads": torch.get_num_threads(),
        "dtype": str(cell.world.dtype).removeprefix("torch."), "size": size.size,
        "utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }  # fmt: skip


def _metrics(cell: Cell, problems: Instance, x: Tensor, size: Profile) -> dict[str, Estimate]:
    if cell.world.posterior is None:
        return image_metrics(problems, x, size.samples)
    return _truth(cell, size).metrics(x.double())


def _truth(cell: Cell, size: Profile) -> Truth:
    return _cached_truth(cell.world, cell.task, cell.seed, size.problems, size.samples)


@lru_cache(maxsize=8)
def _cached_truth(world: World, task: Task, seed: int, problems: int, samples: int) -> Truth:
    return Truth(world, _instance(world, task, seed, problems), samples, seed)


@lru_cache(maxsize=8)
def _instance(world: World, task: Task, seed: int, problems: int) -> Instance:
    return instance(world, task, seed, problems)


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"


@cache
def _commit() -> tuple[str, bool]:
    """The commit of the tree and whether its code or suites differ from it; "unknown" outside a repository."""
    root = Path(__file__).parents[3]
    git = lambda *words: subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True)  # noqa: E731
    head = git("rev-parse", "HEAD")
    if head.returncode:
        return "unknown", True
    return head.stdout.strip(), bool(git("status", "--porcelain", "--", "src", "benchmarks/suites").stdout.strip())
