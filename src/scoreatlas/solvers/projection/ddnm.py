r"""Denoising diffusion null-space model, DDNM+ (Wang et al., ICLR 2023, arXiv:2212.00490), Algorithm 4.

Deviations:
    - Levels are equally spaced in t under whatever schedule the prior has.
    - Time travel re-noises the estimate of the clean image, as in the official code
      (``functions/svd_ddnm.py``); its stretches are laid out as in RePaint.
    - Without time travel, and apart from the first iterate, this is DDRM with eta_b = 1, step for
      step: the law of equations 17 and 51 is DDRM's equation 8. A test holds the two together.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch

from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Diagonalised
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class DDNM(Solver[Measurement[Diagonalised, Gaussian], DiffusionPrior]):
    r"""Corrects the clean image in the range of A^T, by as much as the noise allows, and leaves its null space.

    .. math:: \hat x_0 = x_0 - V \Lambda V^T A^+ (A x_0 - y)

    With :math:`\tau_i = \sigma_y / s_i` the noise of a datum and :math:`\sigma` the next noise level
    (in units of x_0), :math:`\lambda_i = 1` where :math:`\sigma \ge \tau_i` and
    :math:`\sqrt{1 - \eta^2} \, \sigma / \tau_i` elsewhere.

    Exactness card: ``book/cards/ddnm``.

    Args:
        steps: levels; the official configuration uses 100.
        eta: share of fresh noise, 0.85 in the official configuration.
        travel: levels of one trip back in time.
        repeat: visits of each stretch; 1 means no time travel (official default).
    """

    steps: int = 100
    eta: float = 0.85
    travel: int = 1
    repeat: int = 1

    def iterate(self, m: Measurement[Diagonalised, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        A, keep = m.A, math.sqrt(1 - self.eta**2)
        y, tau = A.spectral(m.y, m.noise.std)
        x = x0 = prior.initial(rng)
        for t, s in prior.schedule.travel(self.steps, self.travel, self.repeat):
            if s.t > t.t:
                x = s.alpha * x0 + s.sigma * rng.normal_like(x)
                continue
            x0 = prior.denoise(x, t)
            c, e, z = A.vt(x0), A.vt(prior.noise(x, x0, t)), A.vt(rng.normal_like(x))
            noisy = tau > s.noise  # the data are noisier than the next iterate, or absent
            c = c + torch.where(noisy, keep * s.noise / tau, 1) * (y - c)
            fresh = torch.where(noisy, self.eta * s.noise, (s.noise**2 - tau**2).clamp_min(0).sqrt())
            x = s.alpha * A.v(c + torch.where(tau.isinf(), keep * s.noise * e, 0) + fresh * z)
            yield State(x, x0)
