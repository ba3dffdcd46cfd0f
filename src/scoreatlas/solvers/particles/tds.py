r"""Twisted diffusion sampler (Wu et al., NeurIPS 2023, arXiv:2306.17775), Algorithm 1.

Deviations:
    - The twisting function has variance :math:`\sigma_y^2 + r_t^2`, with r_t the spread that the clean
      image is taken to have around its estimate, for noisy and noise-free data alike. Equation 9 of
      the paper has r_t = 0 (``prior_std=0``), its equation for inpainting sigma_y = 0 and r_t = sigma_t;
      the official code (``image_exp``) offers several r_t, ours being its ``pred_xstart_var_type`` 6.
    - As in the official code, and not in Algorithm 1, the last step is not twisted: it has no noise,
      so the particle becomes its estimate and is weighed by the likelihood of that.
    - The estimate of the clean image is not clipped; the official code clips the twisted one to [-1, 1].
    - Variances are those of the chain, scaled by ``eta``; official ones are learned.
    - Noise-free data have no likelihood to weigh with: sigma_y counts as 1e-3 at least. The paper sets
      the seen pixels in the last step instead, which needs a mask.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, final

from torch import Tensor

from scoreatlas.linalg import dot
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Operator
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.schedules import Time
from scoreatlas.smc import Cloud, resample, take
from scoreatlas.solvers.particles.base import ParticleSolver

QUIETEST = 1e-3  # sigma_y in image units


@final
@dataclass(frozen=True)
class TDS(ParticleSolver[Measurement[Operator, Gaussian], DiffusionPrior]):
    r"""DPS as the proposal of a particle filter, whose weights undo its errors.

    The likelihood of the estimate, :math:`\tilde p(y \mid x_t) = N(y; A \hat x_0(x_t), \sigma_y^2 + r_t^2)`,
    guides the steps, and weights account for it being neither p(y | x_t) nor followed exactly:

    .. math::
       w = \frac{p(x_s \mid x_t) \, \tilde p(y \mid x_s)}{\tilde p(x_s \mid x_t, y) \, \tilde p(y \mid x_t)}

    Exact as particles and steps grow, whatever the twisting function.

    Exactness card: ``book/cards/tds``.

    Args:
        steps: network calls of each particle, each with its gradient.
        particles: of each row.
        eta: DDIM's, in (0, 1].
        prior_std: s in r_t^2 = s^2 n^2 / (s^2 + n^2), n = sigma_t / alpha_t: standard deviation of
            the data. Chooses the twisting function, not the target.
        threshold: resample where the effective sample size is below this share of the particles; 1
            is at every step, as in the paper.

    Raises:
        ValueError: no particle, or eta, threshold or prior_std out of range.
    """

    steps: int = 100
    particles: int = 64
    eta: float = 1.0
    prior_std: float = 1.0
    threshold: float = 1.0

    def __post_init__(self) -> None:
        if self.particles < 1 or not 0 < self.eta <= 1 or not 0 <= self.threshold <= 1 or not self.prior_std >= 0:
            raise ValueError(
                f"needs particles >= 1, eta in (0, 1], threshold in [0, 1] and prior_std >= 0, got {self!r}"
            )

    def clouds(self, m: Measurement[Operator, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[Cloud]:
        every, shape = m.repeat(self.particles), (self.particles, *prior.shape)
        grid = prior.schedule.grid(self.steps)
        x = grid[0].sigma * rng.normal(*shape)
        now = self.twist(every, prior, x, grid[0])
        log_w = now.log_p
        for t, s in zip(grid[:-1], grid[1:], strict=True):
            i, log_w = resample(log_w, rng.uniform(1), self.threshold)
            x, now = take(x, i), Twist(*(take(part, i) for part in now))
            mean, std = prior.schedule.bridge(x, now.x0, t, s, self.eta)
            if s.sigma > 0:
                guided, _ = prior.schedule.bridge(x, now.x0 + now.step, t, s, self.eta)
                z, shift = rng.normal(*shape), (guided - mean) / std
                x = guided + std * z
                then = self.twist(every, prior, x, s)
                log_w = log_w + then.log_p - now.log_p - (shift * (z + 0.5 * shift)).flatten(2).sum(2)
                now = then
            else:
                x = mean
                log_w = log_w + now.log_p * (self.variance(m, t) / self.variance(m, s) - 1)
            yield Cloud(x, now.x0, log_w)

    def variance(self, m: Measurement[Operator, Gaussian], t: Time) -> float:
        """sigma_y^2 + r_t^2; at t = 0 the likelihood's own."""
        spread = self.prior_std * t.noise
        r2 = spread**2 / (self.prior_std**2 + t.noise**2) if spread > 0 else 0.0
        return max(m.noise.std, QUIETEST) ** 2 + r2

    def twist(self, m: Measurement[Operator, Gaussian], prior: DiffusionPrior, x: Tensor, t: Time) -> "Twist":
        """The twisting function at particles (b, k, *s), and its gradient as a step of the estimate."""
        flat, variance = x.flatten(0, 1), self.variance(m, t)
        x0, pull = prior.denoise_vjp(flat, t)
        r = m.y - m.A(x0)
        step = t.sigma**2 / t.alpha / variance * pull(m.A.vjp(x0, r))
        parts = (x0, -0.5 / variance * dot(r, r), step)
        return Twist(*(part.unflatten(0, x.shape[:2]) for part in parts))


class Twist(NamedTuple):
    """The clean estimate (b, k, *s), log p~(y | x_t) (b, k), and sigma_t^2 / alpha_t times its gradient (b, k, *s)."""

    x0: Tensor
    log_p: Tensor
    step: Tensor
