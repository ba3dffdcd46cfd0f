r"""Predictor-corrector guidance, PCG (Bradley & Nakkiran, 2024, arXiv:2408.09000), Algorithm 1.

A step of the probability flow of p(x | c), then Langevin steps on the tilted law of the level reached. Each level's
tilted law has a known score although its path from level to level has not: with many corrections the last level is
right, whatever the predictor did.

Deviations:
    - The paper's Langevin steps have the size beta_t dt of the forward step, for which one correction gives guided
      DDPM in the limit. Ours have a share of the squared noise level, so that a few of them mix at any step count.
    - The paper corrects at discrete times of a VP chain; ours walks noise levels in image units, as
      :mod:`scoreatlas.samplers.ode` does. The last step goes to noise level 0, where nothing is corrected.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.guided import guidance
from scoreatlas.rng import Rng
from scoreatlas.samplers.ode import Grid, Karras
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class PCG(Solver[None, DiffusionPrior]):
    r"""Conditional flow, then K times :math:`z \gets z + r \, (D_s(z; n) - z) + n \sqrt{2 r} \, \epsilon`.

    Args:
        steps: levels.
        corrections: K, each of two network calls; 0 is the flow of the condition, whatever the scale.
        size: r, Langevin step in units of the squared noise level, in (0, 1).
        grid: noise levels.

    Raises:
        ValueError: negative corrections or a size outside (0, 1); on use, a prior whose denoiser is not guided.
    """

    steps: int = 50
    corrections: int = 5
    size: float = 0.1
    grid: Grid = Karras()

    def __post_init__(self) -> None:
        if self.corrections < 0 or not 0 < self.size < 1:
            raise ValueError(f"needs corrections >= 0 and size in (0, 1), got {self!r}")

    def iterate(self, m: None, prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        guided = guidance(prior)
        levels = self.grid(prior.schedule, self.steps)
        z = prior.initial(rng) / prior.schedule.at(1.0).alpha
        for n, low in zip(levels[:-1], levels[1:], strict=True):
            base, pull = guided.parts(z, z.new_full((), n))
            x0 = base + pull  # of the condition
            z = z + (low - n) * (z - x0) / n
            for _ in range(self.corrections if low > 0 else 0):
                estimate = guided(z, z.new_full((), low))
                z = z + self.size * (estimate - z) + low * math.sqrt(2 * self.size) * rng.normal_like(z)
            yield State(z, x0)
