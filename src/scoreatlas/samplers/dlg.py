r"""Denoising Langevin-Gibbs, DLG: a Markov chain over image and noise level, then a short way down.

Kim & Ye (2023), *Denoising MCMC for Accelerating Diffusion-Based Generative Models*, arXiv:2209.14593, Algorithm 1
with the Langevin-Gibbs chain of section 3.2.

The chain lives on the product space with density p(n) p_n(z), p_n the images with noise of level n:

.. math:: z \gets z + \tfrac{\eta}{2} \nabla \log p_n(z) + \sqrt{\eta} \, \xi, \qquad n \sim p(n \mid z).

Every ``skip`` steps the state of least noise seen since is taken down to the image by Heun's method from its own level.
A chain goes on after that: it gives one sample after another, each close to the last one's neighbourhood of levels, and
never climbs back to pure noise.

Deviations:
    - The official level update is the arg max of a classifier over 1000 levels. Ours is a draw from p(n | z), or the
      arg max if ``draw`` is ``"argmax"``, where p(n | z) is computed from a density with noise: exact for a mixture;
      for images, that of the Gaussian with their mean and covariance, since with many pixels any model of their small
      principal components knows the level.
    - The official denoiser is Algorithm 2 of EDM with churn; ours is Algorithm 1. As there, the way starts with a short
      reverse run (Heun, 10 steps), noise of standard deviation 1 (0.5 for data in [0, 1]) and a burn-in, here with the
      step of the chain.
    - A step of fixed size eta is no discretisation of Langevin dynamics at levels far below sqrt(eta), and there is no
      accept step: the chain is not exactly invariant, in the paper or here.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol, final

import torch
from torch import Tensor

from scoreatlas.linalg import rows
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.samplers.ode import Heun
from scoreatlas.solvers.base import Solver, State


class NoisyDensity(Protocol):
    """A density that knows its noisy versions, such as a Gaussian mixture."""

    def log_prob(self, x: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        """log density (b,) of x (b, *s) under p convolved with N(0, sigma^2 I), sigma () or (b,)."""
        ...


@final
@dataclass(frozen=True)
class DLG(Solver[None, DiffusionPrior]):
    """One chain a row; its states are the samples it gives, one after another.

    Network calls: 19 + ``burn`` at the start, then ``skip`` + 2 ``steps`` - 1 for each sample.

    Args:
        density: of the images, with noise; only the level is read off it.
        samples: how many each chain gives.
        skip: Langevin-Gibbs steps between samples.
        steps: of Heun's method from the state to the image.
        eta: size of a Langevin step, a variance in image units; the official 0.8 is for data in [0, 1].
        burn: Langevin-Gibbs steps before the first sample.
        low, high: levels are drawn log-uniformly between these; ``levels`` of them.
        draw: ``"gibbs"``, a draw of the level given the image, or ``"argmax"``, as in the official code.

    Raises:
        ValueError: another ``draw``.
    """

    density: NoisyDensity = field(repr=False)
    samples: int = 1
    skip: int = 10
    steps: int = 5
    eta: float = 3.2
    burn: int = 20
    low: float = 0.01
    high: float = 50.0
    levels: int = 100
    draw: Literal["gibbs", "argmax"] = "gibbs"

    def __post_init__(self) -> None:
        if self.draw not in ("gibbs", "argmax"):
            raise ValueError(f"draw must be 'gibbs' or 'argmax', got {self.draw!r}")

    def iterate(self, m: None, prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        z = Heun(10)(m, prior, rng)
        z = z + rng.normal_like(z)
        n = self._level(z, rng)
        for _ in range(self.burn):
            z, n = self._walk(prior, z, n, rng)
        for _ in range(self.samples):
            least, at = z, n
            for _ in range(self.skip):
                z, n = self._walk(prior, z, n, rng)
                quieter = n < at
                least, at = torch.where(rows(quieter, z), z, least), torch.where(quieter, n, at)
            x0 = self._down(prior, least, at)
            yield State(x0, x0)

    def _walk(self, prior: DiffusionPrior, z: Tensor, n: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """A Langevin step at the present level, then a level for the new image."""
        score = (prior.denoiser(z, n) - z) / rows(n, z) ** 2
        z = z + self.eta / 2 * score + self.eta**0.5 * rng.normal_like(z)
        return z, self._level(z, rng)

    def _level(self, z: Tensor, rng: Rng) -> Tensor:
        """n given z, (b,)."""
        grid = torch.logspace(0, 1, self.levels, self.high / self.low, dtype=z.dtype, device=z.device) * self.low
        log_prob = torch.stack([self.density.log_prob(z, level) for level in grid], 1)
        return grid[rng.choice(log_prob.softmax(1)) if self.draw == "gibbs" else log_prob.argmax(1)]

    def _down(self, prior: DiffusionPrior, z: Tensor, n: Tensor) -> Tensor:
        """Heun's method on Karras's levels, which differ from row to row."""
        top, low = (end ** (1 / 7) for end in (n, (n / 2).clamp_max(self.low)))
        levels = [(top + i / max(self.steps - 1, 1) * (low - top)) ** 7 for i in range(self.steps)]
        for at, below in zip(levels, levels[1:], strict=False):
            slope = (z - prior.denoiser(z, at)) / rows(at, z)
            ahead = z + rows(below - at, z) * slope
            z = z + rows(below - at, z) * (slope + (ahead - prior.denoiser(ahead, below)) / rows(below, z)) / 2
        return prior.denoiser(z, levels[-1])
