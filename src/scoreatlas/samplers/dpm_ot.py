r"""DPM-OT: jump from white noise to a stored noisy image by semi-discrete optimal transport, then a few Langevin steps.

Li et al. (2023), *DPM-OT: A New Diffusion Probabilistic Model Based on Optimal Transport*, arXiv:2307.11308,
Algorithms 1 (the heights) and 2 (sampling).

Offline, M targets p_i at a low noise level are stored, and the Brenier potential u(z) = max_i <p_i, z> + h_i is fitted
so that each cell {z : i is the arg max} has mass 1 / M under white noise. To sample, z ~ white noise is sent to the
target of its cell, which costs a matrix product and no network call, and annealed Langevin steps go on from there.

Deviations:
    - White noise is Gaussian; in the official code, which grew out of NCSNv2, it is uniform on [0, 1].
    - The official stopping rule and the doubling of the Monte-Carlo batch become a fixed number of Adam
      steps, with Adam's bias correction.
    - Langevin levels are geometric from the targets' level to ``noise_min``, ``each`` steps on each; a step is
      ``size`` sigma^2, the official 0.062 (6.2e-6 / 0.01^2).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.schedules import Time
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True, eq=False)
class Expressway:
    """A semi-discrete transport map from white noise to stored targets.

    Attributes:
        targets: p, (M, *s): images with noise of one level.
        heights: h, (M,).
        level: the noise level of the targets.
    """

    targets: Tensor
    heights: Tensor
    level: float

    def cells(self, z: Tensor) -> Tensor:
        """Index (b,) of the target of each z (b, *s)."""
        return (z.flatten(1) @ self.targets.flatten(1).T + self.heights).argmax(1)

    @classmethod
    @torch.no_grad()
    def fit(cls, targets: Tensor, level: float, rng: Rng, steps: int = 1000, lr: float = 0.1) -> "Expressway":
        """Heights by Adam on the gradient of the paper's energy: the mass of each cell minus 1 / M.

        Args:
            targets: (M, *s).
            level: their noise level.
            rng: as many rows as white-noise draws per step.
            steps: of Adam; ``lr`` falls linearly to 0 (constant until it stalls, in the official code).
        """
        flat = targets.flatten(1)
        h, first, second = (flat.new_zeros(len(flat)) for _ in range(3))
        for i in range(1, steps + 1):
            cell = (rng.normal(flat.shape[1]) @ flat.T + h).argmax(1)
            gradient = torch.bincount(cell, minlength=len(flat)) / len(cell) - 1 / len(flat)
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            step = lr * (1 - (i - 1) / steps) / (1 - 0.9**i)
            h = h - step * first / ((second / (1 - 0.999**i)).sqrt() + 1e-8)
            h = h - h.mean()
        return cls(targets, h, level)


@final
@dataclass(frozen=True)
class DPMOT(Solver[None, DiffusionPrior]):
    """Network calls: steps + 1, the last a denoising.

    Args:
        way: the fitted map; its targets cost a network call each per step of the sampler that made them, unless they
            are noised data.
        steps: of annealed Langevin dynamics, ``each`` on every level.
        each: steps on a level.
        size: of a step, in units of sigma^2.
        noise_min: the last level.
    """

    way: Expressway = field(repr=False)
    steps: int = 10
    each: int = 5
    size: float = 0.062
    noise_min: float = 0.01

    def iterate(self, m: None, prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        z = self.way.targets[self.way.cells(rng.normal(*prior.shape))]
        count = -(-self.steps // self.each)
        ratio = (self.noise_min / self.way.level) ** (1 / max(count - 1, 1))
        for i in range(self.steps):
            n = self.way.level * ratio ** (i // self.each)
            x0 = prior.denoise(z, Time(n, 1.0, n))
            z = z + self.size * (x0 - z) + (2 * self.size) ** 0.5 * n * rng.normal_like(z)
            yield State(z, x0)
        n = self.noise_min
        x0 = prior.denoise(z, Time(n, 1.0, n))
        yield State(x0, x0)
