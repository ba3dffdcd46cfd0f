r"""Diffusion posterior sampling (Chung et al., ICLR 2023, arXiv:2209.14687), Algorithm 1.

Deviations:
    - The step is a multiple of the gradient of the norm, as in the official code
      (``guided_diffusion/condition_methods.py``), where the paper writes the squared norm over the
      norm: the paper's :math:`\zeta'` is half of ``zeta``.
    - The norm is taken row by row. The official code takes it over the batch, so that there an
      image's step depends on its neighbours.
    - The estimate of the clean image is not clipped, and the ancestral step uses the posterior
      variance of the chain, not a learned one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch

from scoreatlas.linalg import norm, rows
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Operator
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class DPS(Solver[Measurement[Operator, Gaussian], DiffusionPrior]):
    r"""Replaces p(y | x_t) by p(y | E[x_0 | x_t]) and follows its gradient.

    .. math:: x_s \gets x_s' - \zeta \, \nabla_{x_t} \| y - A(\hat x_0(x_t)) \|

    Exactness card: ``book/cards/dps``.

    Args:
        steps: network calls; the paper uses 1000.
        zeta: step size. Official configurations: 0.3 (super-resolution, deblurring), 0.5
            (inpainting), 1.0 (phase retrieval). It does not know sigma_y, and its best value
            depends on the number of data.
        eta: 1 is DDPM's ancestral step.
    """

    steps: int = 1000
    zeta: float = 1.0
    eta: float = 1.0

    def iterate(self, m: Measurement[Operator, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        tiny = torch.finfo(rng.dtype).tiny  # a residual of exactly 0 pulls nowhere
        x = prior.initial(rng)
        for t, s in prior.schedule.pairs(self.steps):
            x0, pull = prior.denoise_vjp(x, t)
            r = m.y - m.A(x0)
            downhill = pull(m.A.vjp(x0, r)) / rows(norm(r).clamp_min(tiny), x)
            mean, std = prior.schedule.bridge(x, x0, t, s, self.eta)
            x = mean + std * rng.normal_like(x) + self.zeta * downhill
            yield State(x, x0)
