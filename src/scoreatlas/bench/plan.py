"""Which cells a suite asks for, and whether their records still say what the tree would compute."""

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from scoreatlas.bench.catalogue import fitting_prior, why_not
from scoreatlas.bench.cell import Cell, Task, World
from scoreatlas.bench.fingerprint import source_hash
from scoreatlas.bench.store import Record, Store
from scoreatlas.bench.suite import BENCHMARKS, Entry, Profile, Suite, load
from scoreatlas.bench.tasks import task
from scoreatlas.bench.worlds import WORLDS, world
from scoreatlas.errors import AtlasError
from scoreatlas.measurement import Gaussian
from scoreatlas.priors.diffusion import DiffusionPrior

METRICS = tuple(f"scoreatlas.metrics.{name}" for name in ("distortion", "estimate", "posterior"))
CALIBRATION = "scoreatlas.metrics.calibration"


class Planned(NamedTuple):
    """A cell that applies, and the row of the suite that asks for it."""

    cell: Cell
    entry: Entry


@dataclass(frozen=True)
class Finding:
    """A record that is not what it should be.

    Attributes:
        key: of the cell.
        problem: "missing", "stale: ..." or "left over: ...".
    """

    key: str
    problem: str


def plan(suite: Suite, profile: str, device: str = "cpu", only: str | None = None) -> list[Planned]:
    """Every cell that applies, worlds outermost; ``only`` is a part of the key, * and ? allowed.

    Raises:
        AtlasError: unknown profile, or nothing matches ``only``.
    """
    size, cells = suite.profile(profile), []
    for world_name, task_name in suite.pairs(profile):
        w, t = world(world_name, device), task(task_name)
        entries = [e for e in suite.at(profile) if why_not(e.solver, w, t) is None]
        cells += [Planned(Cell(w, t, e.solver, seed), e) for seed in size.seeds for e in entries]
    if only is None:
        return cells
    chosen = [p for p in cells if only in p.cell.key or fnmatch.fnmatchcase(p.cell.key, f"*{only}*")]
    if not chosen:
        raise AtlasError(
            f"no cell of suite {suite.name} ({profile}) has a key with {only!r}, as {cells[0].cell.key} has"
        )
    return chosen


def check(suite: str, profile: str = "quick", root: Path = BENCHMARKS) -> list[Finding]:
    """Records that are missing, stale, or left over from cells that the suite no longer has.

    Raises:
        AtlasError: a record file is truncated or altered, or the input is bad.
    """
    s, findings = load(suite, root), []
    size, records = s.profile(profile), Store(root).all(suite, profile)
    for cell, _ in plan(s, profile):
        record = records.pop(cell.key, None)
        if record is None:
            findings.append(Finding(cell.key, "missing"))
        elif reason := stale(record, cell, size):
            findings.append(Finding(cell.key, f"stale: {reason}"))
    return findings + [Finding(key, "left over: the suite has no such cell; delete its record") for key in records]


def stale(record: Record, cell: Cell, size: Profile) -> str | None:
    """Why a record no longer says what the tree would compute; None if it does."""
    told = record.provenance
    if told["source_hash"] != cell_source_hash(cell, size):
        return "the code it depends on has changed"
    if told["weights_sha256"] != cell.world.weights_sha256:
        return "the weights of its prior have changed"
    if told["data_sha256"] != cell.world.data_sha256:
        return "its data have changed"
    if told["size"] != size.size:
        return f"it was run with {told['size']}, the profile says {size.size}"
    return None


def cell_source_hash(cell: Cell, size: Profile) -> str:
    """Hash of the modules of solver, operator, prior and metrics, and of the factories of world and task."""
    prior = fitting_prior(cell.solver, cell.world)
    kinds = {type(cell.solver), _operator_kind(cell.world, cell.task)}
    if prior is not None:
        kinds.add(type(prior))
    if isinstance(prior, DiffusionPrior):
        kinds |= {type(prior.denoiser), type(prior.schedule)}
        if isinstance(prior.denoiser, nn.Module):
            kinds |= {type(layer) for layer in prior.denoiser.modules()}
    modules = {k.__module__ for k in (*kinds, *cell.world.extra.values()) if k.__module__.startswith("scoreatlas.")}
    factories: list[Callable[..., Any]] = [cell.task.operator, WORLDS[cell.world.name]]
    if not isinstance(cell.task.noise, Gaussian):
        factories.append(cell.task.noise)
    modules |= {*cell.world.modules, *([CALIBRATION] if size.calibration else [])}
    return source_hash({*modules, *METRICS}, factories)


@cache
def _operator_kind(w: World, t: Task) -> type:
    return type(t.operator(w.shape, np.random.default_rng(0)))
