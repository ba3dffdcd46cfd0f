r"""Monte Carlo guided diffusion (Cardoso et al., ICLR 2024, arXiv:2308.07983), Algorithm 1 and Proposition 1.

Deviations:
    - A datum is met at the last moment of the grid where the diffusion is no noisier than it, and the
      noise that is missing is added there, so that the target is the posterior on any grid. The paper
      assumes moments of exactly the right noise; its code takes the nearest and widens every
      potential by a constant :math:`\kappa` (1e-2 in the code of its tables, 1e-4 in the paper and the package).
    - After it is met a datum is not used again, as Proposition 1 says and the code of the tables does.
      The text of section 2 and the package instead divide by its potential there and multiply by
      p(y | x_0) at the end, which is the same in the limit and noisier before it.
    - Particles start from p_T times the potential, as in Algorithm 1; both codes start from p_T alone.
    - In the paper the mean of the potential lacks the factor :math:`\alpha_t / \alpha_\tau`, which its code has.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Diagonalised
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.schedules import Time
from scoreatlas.smc import Cloud, choose, systematic, take
from scoreatlas.solvers.particles.base import ParticleSolver


@final
@dataclass(frozen=True)
class MCGDiff(ParticleSolver[Measurement[Diagonalised, Gaussian], DiffusionPrior]):
    r"""A particle filter whose observations lie along the diffusion itself.

    In the coordinates of the singular value decomposition a datum is the coordinate x_0[i] plus
    noise :math:`\tau_i = \sigma_y / s_i`: just what the diffusion shows of it at the moment when
    its own noise is :math:`\tau_i`. Until then particles are guided by the potential
    :math:`g_t(x_t) = N(x_t[i]; \alpha_t \bar y_i, v_t)`, the law of x_t given the datum to come,
    and with :math:`\mu, \varsigma^2` mean and variance of the unguided step

    .. math::
       \text{weight} &= N(\alpha_s \bar y_i; \mu_i, \varsigma^2 + v_s) / g_t(x_t), \qquad
       K = \varsigma^2 / (\varsigma^2 + v_s) \\
       x_s[i] &= \mu_i + K (\alpha_s \bar y_i - \mu_i) + \varsigma \sqrt{1 - K} \, z

    Exact as particles and steps grow.

    Exactness card: ``book/cards/mcgdiff``.

    Args:
        steps: network calls of each particle; the paper uses 20 and 100.
        particles: of each row.
        eta: DDIM's, in (0, 1].
        kappa: variance that the last step, which has none, is given in coordinates met there.
        resampling: ``"multinomial"``, ancestors drawn independently as in the paper, or
            ``"systematic"``, which adds less noise.

    Raises:
        ValueError: no particle, eta outside (0, 1], kappa not positive or another resampling.
    """

    steps: int = 100
    particles: int = 64
    eta: float = 1.0
    kappa: float = 1e-4
    resampling: Literal["multinomial", "systematic"] = "multinomial"

    def __post_init__(self) -> None:
        if self.resampling not in ("multinomial", "systematic"):
            raise ValueError(f"resampling must be 'multinomial' or 'systematic', got {self.resampling!r}")
        if self.particles < 1 or not 0 < self.eta <= 1 or not self.kappa > 0:
            raise ValueError(f"needs particles >= 1, eta in (0, 1] and kappa > 0, got {self!r}")

    def clouds(self, m: Measurement[Diagonalised, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[Cloud]:
        def spectrum(x: Tensor) -> Tensor:
            return m.A.vt(x.flatten(0, 1)).unflatten(0, x.shape[:2])

        grid = prior.schedule.grid(self.steps)
        data = Path.through(m, grid)
        noise = spectrum(rng.normal(self.particles, *prior.shape))
        z = guided(torch.zeros_like(noise), noise, grid[0].sigma, grid[0].sigma, *data.potential(0))
        x = m.A.v(z.flatten(0, 1))
        for j, (t, s) in enumerate(zip(grid[:-1], grid[1:], strict=True)):
            x0 = prior.denoise(x, t)
            mean, std = prior.schedule.bridge(x, x0, t, s, self.eta)
            c = spectrum(mean.unflatten(0, z.shape[:2]))
            goal, v = data.potential(j + 1)
            width = std if s.sigma > 0 else math.sqrt(self.kappa)
            log_w = log_normal(c, goal, width**2 + v) - log_normal(z, *data.potential(j, ahead=j + 1))
            plain = self.resampling == "multinomial"
            i = choose(log_w, rng.uniform(self.particles)) if plain else systematic(log_w, rng.uniform(1))
            noise = spectrum(rng.normal(self.particles, *prior.shape))
            z = guided(take(c, i), noise, width, std, goal, v)
            x = m.A.v(z.flatten(0, 1))
            yield Cloud(x.unflatten(0, z.shape[:2]), take(x0.unflatten(0, z.shape[:2]), i), torch.zeros_like(log_w))


@dataclass(frozen=True)
class Path:
    """The data as observations of the diffusion on its way, in spectral coordinates.

    Attributes:
        y: V^T A^+ y, (b, 1, *k), 0 where nothing is seen.
        tau2: squared noise of each coordinate, (*k), infinite where nothing is seen.
        met2: squared noise level of the diffusion where the datum is met, (*k).
        met_at: that moment's place in the grid, (*k).
        grid: moments, from noise to image.
    """

    y: Tensor
    tau2: Tensor
    met2: Tensor
    met_at: Tensor
    grid: list[Time]

    @classmethod
    def through(cls, m: Measurement[Diagonalised, Gaussian], grid: list[Time]) -> "Path":
        """Each datum is met at the first moment, going down, that is no noisier than it."""
        y, tau = m.A.spectral(m.y, m.noise.std)
        levels = torch.tensor([t.noise for t in reversed(grid)], dtype=tau.dtype, device=tau.device)
        below = torch.searchsorted(levels, tau.contiguous(), right=True)
        return cls(y[:, None], tau.square(), levels[below - 1].square(), len(grid) - below, grid)

    def potential(self, j: int, ahead: int | None = None) -> tuple[Tensor, Tensor]:
        """Mean (b, 1, *k) and variance (*k) of g at ``grid[j]``; infinite for data met before ``grid[ahead]``."""
        t = self.grid[j]
        v = t.alpha**2 * (t.noise**2 + self.tau2 - 2 * self.met2).clamp_min(0)  # where it is met, rounding may go below
        return t.alpha * self.y, torch.where(self.met_at >= (j if ahead is None else ahead), v, math.inf)


def log_normal(z: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log N(z; mean, variance) of particles (b, k, *k), up to what all particles share, (b, k)."""
    return -0.5 * ((z - mean).abs().square() / variance).flatten(2).sum(2)


def guided(mean: Tensor, noise: Tensor, width: float, free: float, goal: Tensor, v: Tensor) -> Tensor:
    """Draws from N(mean, width^2) times N(goal, v); from N(mean, free^2) in coordinates without potential."""
    pull = width**2 / (width**2 + v)
    spread = torch.where(v.isinf(), free, width * (v / (width**2 + v)).sqrt())
    return mean + pull * (goal - mean) + spread * noise
