r"""Denoising diffusion restoration models (Kawar et al., NeurIPS 2022, arXiv:2201.11793), equations 7 and 8.

Deviations:
    - Levels are equally spaced in t under whatever schedule the prior has; the official code
      (``functions/denoising.py``) takes every 50th of 1000 DDPM steps.
    - Singular values count as zero below 1e-6 of the largest; the official blur operators cut at
      3e-2.
    - The case s_i sigma_t = sigma_y, which falls in no branch of the code, belongs to the last.
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
class DDRM(Solver[Measurement[Diagonalised, Gaussian], DiffusionPrior]):
    r"""Diffuses in the coordinates of the singular value decomposition, each with its own noise level.

    With :math:`\bar y_i` the pseudo-inverted datum, :math:`\tau_i = \sigma_y / s_i` its noise and
    :math:`\sigma` the next noise level, coordinate i of the image (in units of x_0) becomes

    .. math::
       s_i = 0: &\quad x_0 + \sqrt{1 - \eta^2} \, \sigma \epsilon + \eta \sigma z \\
       \sigma < \tau_i: &\quad x_0 + \sqrt{1 - \eta^2} \, \sigma (\bar y - x_0) / \tau_i + \eta \sigma z \\
       \sigma \ge \tau_i: &\quad (1 - \eta_b) x_0 + \eta_b \bar y + \sqrt{\sigma^2 - \eta_b^2 \tau_i^2} \, z

    Exactness card: ``book/cards/ddrm``.

    Args:
        steps: network calls; the paper uses 20.
        eta: share of the noise that is fresh, 0.85 in the paper. It renews eta of the *total*
            noise at each step and is not DDIM's eta, so the law of the samples depends on the
            number of steps.
        eta_b: weight of the data where they are cleaner than the iterate, 1 in the paper.
    """

    steps: int = 20
    eta: float = 0.85
    eta_b: float = 1.0

    def iterate(self, m: Measurement[Diagonalised, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        A, keep, first = m.A, math.sqrt(1 - self.eta**2), prior.schedule.at(1.0)
        y, tau = A.spectral(m.y, m.noise.std)
        known = tau <= first.noise
        spread = (first.noise**2 - torch.where(known, tau, 0) ** 2).sqrt()
        x = first.alpha * A.v(known * y + spread * A.vt(rng.normal(*prior.shape)))
        for t, s in prior.schedule.pairs(self.steps):
            x0 = prior.denoise(x, t)
            c, e, z = A.vt(x0), A.vt(prior.noise(x, x0, t)), A.vt(rng.normal_like(x))
            e = torch.where(tau.isinf(), e, (y - c) / tau)
            free = c + s.noise * (keep * e + self.eta * z)
            spread = (s.noise**2 - (self.eta_b * tau) ** 2).clamp_min(0).sqrt()
            tied = (1 - self.eta_b) * c + self.eta_b * y + spread * z
            x = s.alpha * A.v(torch.where(tau <= s.noise, tied, free))
            yield State(x, x0)
