r"""Manifold-constrained gradient, MCG (Chung et al., NeurIPS 2022, arXiv:2206.00941), Algorithms 1 and 2.

Deviations:
    - The weight W of the paper is :math:`A^+` for every operator: that of its CT code, and no different from the
      identity in its inpainting and colourisation.
    - The step is a multiple of the gradient of the norm, as in the official code, where the paper has the squared norm
      and a step alpha. The official code (``guided_diffusion/gaussian_diffusion.py``) takes the norm over the batch.
    - The data are noised to the level of the iterate that they are put into. The official inpainting code noises them
      to the level of the step before.
    - The data replace what the operator sees, also in CT, where the official code takes one Kaczmarz step instead.
      Small singular values are divided by: with blur, and noise in the data, that amplifies the noise.
    - Nothing is clipped, and the reverse variance is that of the chain, not a learned one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch

from scoreatlas.linalg import norm, rows
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Diagonalised
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class MCG(Solver[Measurement[Diagonalised, Gaussian], DiffusionPrior]):
    r"""Replaces what the operator sees by noised data, after a step of DPS that tells the rest of the image.

    .. math::
       x_s' &\gets x_s'' - \zeta \, \nabla_{x_t} \| A^+ (y - A \hat x_0(x_t)) \| \\
       x_s &\gets x_s' + A^+ (\alpha_s y + \sigma_s A z - A x_s')

    It takes the data as noise-free, whatever sigma_y says: its samples fit them exactly. One network call and one
    vector-Jacobian product a step.

    Exactness card: ``book/cards/mcg``.

    Args:
        steps: network calls; the paper uses 1000 (inpainting) and 2000.
        zeta: step size. Official code: 1 for inpainting, 0.1 for colourisation.
        eta: 1 is DDPM's ancestral step.
    """

    steps: int = 1000
    zeta: float = 1.0
    eta: float = 1.0

    def iterate(self, m: Measurement[Diagonalised, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        tiny = torch.finfo(rng.dtype).tiny  # a residual of exactly 0 pulls nowhere
        x = prior.initial(rng)
        for t, s in prior.schedule.pairs(self.steps):
            x0, pull = prior.denoise_vjp(x, t)
            r = m.A.pinv(m.y - m.A(x0))
            downhill = pull(r) / rows(norm(r).clamp_min(tiny), x)  # A^T (A^+)^T A^+ = A^+
            mean, std = prior.schedule.bridge(x, x0, t, s, self.eta)
            x = mean + std * rng.normal_like(x) + self.zeta * downhill
            x = x + m.A.pinv(s.alpha * m.y + s.sigma * m.A(rng.normal_like(x)) - m.A(x))
            yield State(x, x0)
