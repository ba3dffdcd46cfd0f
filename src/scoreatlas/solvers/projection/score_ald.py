r"""Annealed Langevin dynamics with an annealed likelihood, "Score-ALD" (Jalal et al., NeurIPS 2021, arXiv:2108.01938).

*Robust compressed sensing MRI with deep generative priors*, equation 7.

Deviations:
    - Everything happens at x_t / alpha_t, so that any schedule will do; levels are equally spaced in t, where the
      official code (``run_langevin.py``) has 2311 geometric ones, three steps each.
    - gamma_t, free in the paper, is ``gamma`` times |A| sigma_t: the largest that A makes of the noise of x_t. The code
      divides by sigma_t^2 alone and so knows no sigma_y.
    - The answer is the denoised last iterate, one network call more; the code returns the iterate with its noise.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from scoreatlas.linalg import rows
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Linear
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State
from scoreatlas.solvers.classical.tv import squared_norm


@final
@dataclass(frozen=True)
class ScoreALD(Solver[Measurement[Linear, Gaussian], DiffusionPrior]):
    r"""Langevin steps at every noise level, the data counting as noisier while the image is.

    With :math:`u = x_t / \alpha_t` and :math:`\sigma` its noise, :math:`h = (r \sigma)^2`,

    .. math:: u \gets u + h \left[ \frac{x_0(u) - u}{\sigma^2}
       + \frac{A^T (y - A u)}{\sigma_y^2 + \gamma^2 |A|^2 \sigma^2} \right] + \sqrt{2 h} \, z

    Stable for r < gamma sqrt(2). Network calls: ``steps * inner + 1``.

    Exactness card: ``book/cards/scoreald``.

    Args:
        steps: levels.
        inner: Langevin steps at each level, 3 in the official configuration.
        step: r; 0.144 in the official configuration, with 6933 calls.
        gamma: share of the noise of x_t that the likelihood is given; 1 in effect in the code.
    """

    steps: int = 100
    inner: int = 3
    step: float = 0.5
    gamma: float = 1.0

    def iterate(self, m: Measurement[Linear, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        A, square = m.A, self.gamma**2 * squared_norm(m.A, rng)
        u = prior.initial(rng) / prior.schedule.at(1.0).alpha
        for t, _ in prior.schedule.pairs(self.steps):
            h = (self.step * t.noise) ** 2
            weight = rows(h / (m.noise.std**2 + square * t.noise**2), u)
            for _ in range(self.inner):
                x0 = prior.denoise(t.alpha * u, t)
                u = u + self.step**2 * (x0 - u) + weight * A.adjoint(m.y - A(u)) + math.sqrt(2 * h) * rng.normal_like(u)
            yield State(t.alpha * u, x0)
        x0 = prior.denoise(t.alpha * u, t)
        yield State(x0, x0)
