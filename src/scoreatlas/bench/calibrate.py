"""Simulation-based calibration of a cell: many small problems with the operator of its instance."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scoreatlas.bench.catalogue import fitting_prior
from scoreatlas.bench.cell import Cell, Instance
from scoreatlas.measurement import Measurement
from scoreatlas.metrics.calibration import rank_gap, rank_histogram, ranks
from scoreatlas.metrics.estimate import Estimate
from scoreatlas.metrics.posterior import split_directions
from scoreatlas.operators.base import Linear
from scoreatlas.rng import Rng
from scoreatlas.solvers.particles.base import ParticleSolver

# Streams far from those of the solvers and of the reference samples, which start at seed * 1_000_000.
SAMPLING, EXACT, DRAWING = 500_000, 700_000, 800_000


class Ranks(NamedTuple):
    """What calibration gives a record.

    Attributes:
        metrics: the gap of each test quantity, ``sbc_observed`` and so on; one number a cell, without an interval.
        floor: the same gap for exact samples.
        counts: rank histograms by the same names.
    """

    metrics: dict[str, Estimate]
    floor: dict[str, float]
    counts: dict[str, list[int]]


def calibrate(cell: Cell, problems: Instance, samples: int, device: str, max_rows: int) -> Ranks:
    """Ranks of the truths of ``problems`` among ``samples`` samples of each.

    Three test quantities, one number a problem: the component along a random direction that A sees, along one that it
    does not see, and the likelihood of the data.
    """
    n, d = len(problems.truth), problems.truth[0].numel()
    A, noise = problems.m.A, problems.m.noise
    assert isinstance(A, Linear) and cell.world.posterior is not None
    draw = np.random.default_rng([cell.seed, DRAWING])
    x = _samples(cell, problems, samples, device, max_rows)
    exact = torch.stack([
        cell.world.posterior(Measurement(problems.m.y[i : i + 1], A, noise)).sample(
            Rng([1_000_000 * cell.seed + EXACT + i], samples, dtype=torch.float64)
        )
        for i in range(n)
    ])  # fmt: skip
    quantities: dict[str, Tensor] = {}  # unit directions (n, d)
    for name, basis in split_directions(A)._asdict().items():
        if basis.shape[1]:
            g = torch.from_numpy(draw.standard_normal((n, basis.shape[1])))
            quantities[f"sbc_{name}"] = g / g.norm(dim=1, keepdim=True) @ basis.T
    u = torch.from_numpy(draw.uniform(size=(2, n)))
    found = Ranks({}, {}, {})

    def rank(g_samples: Tensor, g_exact: Tensor, g_truth: Tensor, name: str) -> None:
        own, ideal = ranks(g_samples, g_truth, u[0]), ranks(g_exact, g_truth, u[1])
        found.metrics[name] = Estimate(float(rank_gap(own, samples)), math.nan, math.nan)
        found.floor[name] = float(rank_gap(ideal, samples))
        found.counts[name] = rank_histogram(own, samples)

    truth = problems.truth.reshape(n, d).double()
    for name, v in quantities.items():
        along = lambda s, v=v: torch.einsum("nld,nd->nl", s.reshape(n, samples, d).double(), v)  # noqa: E731
        rank(along(x), along(exact), (truth * v).sum(1), name)

    def fit(s: Tensor) -> Tensor:
        flat = s.reshape(-1, *cell.world.shape).double()
        m = Measurement(problems.m.y.repeat_interleave(len(flat) // n, 0), A, noise)
        return m.log_likelihood(flat).reshape(n, -1)

    rank(fit(x), fit(exact), fit(problems.truth)[:, 0], "sbc_likelihood")
    return found


def _samples(cell: Cell, problems: Instance, samples: int, device: str, max_rows: int) -> Tensor:
    """Samples (n, L, *s) of each problem, on the CPU; of a particle solver, L particles of one cloud."""
    where, parts = torch.device(device), []
    A, prior = problems.m.A.to(where), fitting_prior(cell.solver, cell.world)
    particles = cell.solver.particles if isinstance(cell.solver, ParticleSolver) else None
    at_once = max(1, max_rows // (particles or samples))
    seeds = [1_000_000 * cell.seed + SAMPLING + i for i in range(len(problems.truth))]
    pick = torch.from_numpy(np.random.default_rng([cell.seed, DRAWING, 1]).permutation(particles or samples)[:samples])
    for start in range(0, len(seeds), at_once):
        part = seeds[start : start + at_once]
        m = Measurement(problems.m.y[start : start + at_once].to(where), A, problems.m.noise)
        if isinstance(cell.solver, ParticleSolver):
            cloud = cell.solver.cloud(m, prior, Rng(part, device=where, dtype=cell.world.dtype))
            parts.append(cloud[:, pick.to(where)].cpu())
        else:
            rng = Rng(part, samples, device=where, dtype=cell.world.dtype)
            parts.append(cell.solver(m.repeat(samples), prior, rng).unflatten(0, (len(part), samples)).cpu())
    return torch.cat(parts)
