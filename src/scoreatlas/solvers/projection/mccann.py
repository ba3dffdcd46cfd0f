r"""Bayesian reconstruction in three modes (McCann, Chung, Ye and Klasky, 2023, arXiv:2305.16482).

One annealed Langevin dynamics of prior score and likelihood gives a maximum a posteriori (MAP) image without its noise,
a posterior sample with it, and the posterior mean (MMSE) as the average of several.

Deviations:
    - There is no official code, and we had the abstract and not the text: the dynamics are the standard ones, levels
      and steps are ours.
    - The likelihood acts implicitly (a proximal step), which is stable at any step and needs a linear operator; the
      explicit step must stay below 2 sigma_y^2 / |A|^2. The paper has a non-linear example too.
    - Everything happens at x_t / alpha_t; the answer is the denoised last iterate, one network call more.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, final

from scoreatlas.linalg import ridge
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Linear
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class McCann(Solver[Measurement[Linear, Gaussian], DiffusionPrior]):
    r"""Langevin steps down the noise levels with the likelihood of the clean image, read out as MAP, MMSE or a sample.

    With :math:`u = x_t / \alpha_t`, :math:`\sigma` its noise, :math:`h = (r \sigma)^2` and :math:`\tau = 0` for MAP,
    else 1,

    .. math::
       v &= u + h \, \frac{x_0(u) - u}{\sigma^2} + \tau \sqrt{2 h} \, z \\
       u &\gets \arg\min_w \frac{\| w - v \|^2}{2 h} + \frac{\| y - A w \|^2}{2 \sigma_y^2}

    The likelihood is that of a clean image while u is noisy, which is right only as sigma vanishes: at every level
    before that, what the operator sees of u is cleaner than the denoiser is told.

    Exactness card: ``book/cards/mccann``.

    Args:
        mode: ``"sample"``, ``"map"`` or ``"mmse"``.
        steps: levels.
        inner: Langevin steps at each level.
        step: r.
        chains: samples that ``"mmse"`` averages. Network calls: ``steps * inner + 1``, on ``chains`` times as many
            images in that mode.
        cg: iterations of the data step where the operator has no known SVD.

    Raises:
        ValueError: another mode.
    """

    mode: Literal["sample", "map", "mmse"] = "sample"
    steps: int = 100
    inner: int = 2
    step: float = 0.5
    chains: int = 8
    cg: int = 10

    def __post_init__(self) -> None:
        if self.mode not in ("sample", "map", "mmse"):
            raise ValueError(f"mode must be 'sample', 'map' or 'mmse', got {self.mode!r}")

    def iterate(self, m: Measurement[Linear, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        variance = max(m.noise.std, 1e-3) ** 2  # noise-free data: a floor
        k = self.chains if self.mode == "mmse" else 1
        tau = 0.0 if self.mode == "map" else 1.0
        shape, first = prior.shape, prior.schedule.at(1.0)
        back = m.A.adjoint(m.y).repeat_interleave(k, 0)
        u = first.noise * rng.normal(k, *shape).flatten(0, 1)
        for t, _ in prior.schedule.pairs(self.steps):
            h = (self.step * t.noise) ** 2
            for _ in range(self.inner):
                x0 = prior.denoise(t.alpha * u, t)
                fresh = tau * math.sqrt(2 * h) * rng.normal(k, *shape).flatten(0, 1)
                v = u + self.step**2 * (x0 - u) + fresh
                u = ridge(m.A, back + (variance / h) * v, variance / h, self.cg, v)
            means = (z.unflatten(0, (-1, k)).mean(1) for z in (t.alpha * u, x0))
            yield State(*means)
        x0 = prior.denoise(t.alpha * u, t).unflatten(0, (-1, k)).mean(1)
        yield State(x0, x0)
