r"""Filtering posterior sampling, FPS-SMC (Dou and Song, ICLR 2024, openreview tplXNcHZs1), Algorithm 2.

Deviations:
    - Steps of data and particles are those of DDIM with ``eta``. The official code (``gaussian_diffusion.py`` in
      ``guided_diffusion`` at 008e7f7) renews the share c = 0.95 of the total noise at each of 1000 steps, which does
      not keep the law of the diffusion: its unguided chain loses variance, as DDRM's does.
    - The official code takes sigma_y for 0.05 whatever it is, and weighs particles after drawing them, by what in exact
      arithmetic is the weight used here before. It leaves the data out of the last step; here that has noise kappa.
    - In the coordinates of the singular value decomposition, instead of solves in image space.
    - Particles start given the noisiest data, and those contain alpha_1 y, which the official code drops.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Diagonalised
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.smc import Cloud, choose, take
from scoreatlas.solvers.particles.base import ParticleSolver
from scoreatlas.solvers.particles.mcgdiff import guided, log_normal


@final
@dataclass(frozen=True)
class FPS(ParticleSolver[Measurement[Diagonalised, Gaussian], DiffusionPrior]):
    r"""Diffuses the data as well, backwards from y, and filters: each noisy image must explain its noisy data.

    The data go down their own diffusion towards y, with the noise of an image seen through A; what x_t leaves
    unexplained of them is :math:`\alpha_t n` with n the noise of y. In spectral coordinates, with :math:`\bar y` and
    :math:`\tau = \sigma_y / s` the pseudo-inverted data and their noise, and :math:`\mu, \varsigma^2` mean and variance
    of the unguided step,

    .. math::
       y_s &= \text{DDIM step from } y_t \text{ given } \bar y \\
       \text{weight} &= N(y_s; \mu, \varsigma^2 + \alpha_s^2 \tau^2) \\
       x_s &\sim N(\mu, \varsigma^2) \, N(y_s; x_s, \alpha_s^2 \tau^2)

    Exact for noise-free data as particles and steps grow. With noise it is not: the filter takes the parts
    :math:`\alpha_t n` for independent, where they are one n, and counts the datum at every step. The more steps, the
    closer its samples come to y.

    Exactness card: ``book/cards/fps``.

    Args:
        steps: network calls of each particle; 1000 in the official code.
        particles: of each row; 5 there.
        eta: DDIM's, in (0, 1].
        kappa: variance that the last step, which has none, is given in coordinates that are seen.

    Raises:
        ValueError: no particle, eta outside (0, 1] or kappa not positive.
    """

    steps: int = 1000
    particles: int = 5
    eta: float = 1.0
    kappa: float = 1e-4

    def __post_init__(self) -> None:
        if self.particles < 1 or not 0 < self.eta <= 1 or not self.kappa > 0:
            raise ValueError(f"needs particles >= 1, eta in (0, 1] and kappa > 0, got {self!r}")

    def clouds(self, m: Measurement[Diagonalised, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[Cloud]:
        def noise(*n: int) -> Tensor:
            z = rng.normal(*n, *prior.shape)
            return m.A.vt(z.flatten(0, 1)).unflatten(0, z.shape[:2])

        top, k = prior.schedule.at(1.0), self.particles
        (end, tau), zero = m.A.spectral(m.y, m.noise.std), torch.zeros((), dtype=rng.dtype, device=rng.device)
        end = end[:, None]  # where all goes, (b, 1, *k)
        y = top.alpha * end + top.sigma * noise(1)
        z = guided(zero, noise(k), top.sigma, top.sigma, y, (top.alpha * tau).square())
        x = m.A.v(z.flatten(0, 1))
        for t, s in prior.schedule.pairs(self.steps):
            x0 = prior.denoise(x, t)
            mean, std = prior.schedule.bridge(x, x0, t, s, self.eta)
            y, _ = prior.schedule.bridge(y, end, t, s, self.eta)
            y, v = y + std * noise(1), (s.alpha * tau).square()
            c = m.A.vt(mean).unflatten(0, z.shape[:2])
            width = std if s.sigma > 0 else math.sqrt(self.kappa)
            log_w = log_normal(c, y, width**2 + v)
            i = choose(log_w, rng.uniform(k))
            z = guided(take(c, i), noise(k), width, std, y, v)
            x = m.A.v(z.flatten(0, 1))
            yield Cloud(x.unflatten(0, z.shape[:2]), take(x0.unflatten(0, z.shape[:2]), i), torch.zeros_like(log_w))
