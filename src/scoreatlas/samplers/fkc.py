r"""Feynman-Kac corrector for guidance (Skreta et al., ICML 2025, arXiv:2503.02819), the geometric average.

The tilted laws :math:`q_\tau \propto p_\tau(x) \, p_\tau(c \mid x)^s` of the noise levels :math:`\tau = \sigma^2` obey
the heat equation with a source (derived in chapter 2.3),

.. math:: \partial_\tau q = \tfrac12 \Delta q - \tfrac12 s (s - 1) \, \| \nabla \log p_\tau(c \mid x) \|^2 q
   + \text{const} \cdot q .

Guided reverse diffusion follows the first term. The second one becomes the weights of a particle filter.

Deviations:
    - The paper writes general drifts and times; in image units and against tau there is one equation.
    - Euler-Maruyama steps as in the paper, but on a grid of noise levels, the last one without noise; weights are
      integrated by the trapezoidal rule.
    - Systematic resampling where the effective sample size falls below a share of the particles.
"""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.guided import guidance
from scoreatlas.rng import Rng
from scoreatlas.samplers.ode import Grid, Karras
from scoreatlas.smc import Cloud, choose, resample, systematic, take
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class FKC(Solver[None, DiffusionPrior]):
    r"""Guided reverse diffusion of k particles a row with :math:`\mathrm d \log w =
    \tfrac12 s (s - 1) \| \nabla \log p(c \mid x) \|^2 \, |\mathrm d \tau|`.

    Args:
        steps: levels, two network calls of each particle at each.
        particles: k, of each row; one of them, drawn by its weight, is the row's sample.
        threshold: resample where the effective sample size is below this share of the particles; 0 never.
        grid: noise levels.

    Raises:
        ValueError: no particle or a threshold outside [0, 1]; on use, a prior whose denoiser is not guided.
    """

    steps: int = 50
    particles: int = 64
    threshold: float = 0.5
    grid: Grid = Karras()

    def __post_init__(self) -> None:
        if self.particles < 1 or not 0 <= self.threshold <= 1:
            raise ValueError(f"needs particles >= 1 and threshold in [0, 1], got {self!r}")

    def clouds(self, prior: DiffusionPrior, rng: Rng) -> Iterator[Cloud]:
        """The cloud after each step."""
        guided, shape = guidance(prior), (self.particles, *prior.shape)
        levels = self.grid(prior.schedule, self.steps)
        z = levels[0] * rng.normal(*shape)
        log_w = z.new_zeros(z.shape[:2])
        for above, n, low in zip(levels[:1] + levels, levels[:-1], levels[1:], strict=False):
            flat, level = z.flatten(0, 1), z.new_full((), n)
            base, pull = guided.parts(flat, level)
            s = guided.strength(flat, level)
            x0 = base + s * pull
            source = 0.5 * (s * (s - 1) * (pull / n**2).square()).flatten(1).sum(1)
            # trapezoidal rule in tau along each path; the last piece, down to 0, from its upper end alone
            stretch = 0.5 * (above**2 - low**2) + (0.5 * n**2 if low == 0 else 0.0)
            log_w = log_w + stretch * source.unflatten(0, log_w.shape)
            x0 = x0.unflatten(0, log_w.shape)
            z = z + (1 - (low / n) ** 2) * (x0 - z)
            if low > 0:
                z = z + math.sqrt(n**2 - low**2) * rng.normal(*shape)
            i, log_w = resample(log_w, rng.uniform(1), self.threshold)
            z = take(z, i)
            yield Cloud(z, take(x0, i), log_w)

    def iterate(self, m: None, prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        level = rng.uniform(1)
        for z, x0, log_w in self.clouds(prior, rng):
            i = choose(log_w, level)
            yield State(take(z, i)[:, 0], take(x0, i)[:, 0])

    @torch.no_grad()
    def cloud(self, prior: DiffusionPrior, rng: Rng) -> Tensor:
        """All particles of the last cloud, equally weighted, (b, k, *s): not independent within a row."""
        z, _, log_w = deque(self.clouds(prior, rng), maxlen=1)[0]
        return take(z, systematic(log_w, rng.uniform(1)))
