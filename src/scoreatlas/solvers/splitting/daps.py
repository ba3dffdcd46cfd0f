r"""Decoupled annealing posterior sampling (Zhang et al., CVPR 2025, arXiv:2407.01521), Algorithm 1.

The settings of the official code (``configs/sampler/edm_daps.yaml``, ``cores/mcmc.py`` at 098df6b).

Deviations:
    - The ODE ends at noise 0, where the official one ends at 0.01 and leaves that much noise in its estimate. The
      levels at which the network is called are the same.
    - A Langevin step is no longer than what is stable for the operator. Official steps of 5e-5 to 1e-4 with tau = 0.01
      are at that limit where the largest singular value is 1, and beyond it where it is larger.
    - ``langevin=0`` draws from the same Gaussian exactly where the operator is linear.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from torch import Tensor

from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Linear, Operator
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State
from scoreatlas.solvers.splitting.base import QUIETEST, exact_draw, langevin, levels


@final
@dataclass(frozen=True)
class DAPS(Solver[Measurement[Operator, Gaussian], DiffusionPrior]):
    r"""Estimate the image by the probability flow, draw near the estimate given the data, add less noise than before.

    .. math::
       \hat x_0 &= \text{ODE from } x_t \text{ at } \sigma_t \text{ to } 0 \\
       x_0 &\sim N(\hat x_0, r_t^2 I) \, N(y; A(x_0), \tau^2 I), \qquad r_t = \sigma_t \\
       x_s &= x_0 + \sigma_s z

    If the first two lines drew from p(x_0 | x_t, y), every :math:`x_s` would have the law p(x_s | y) (the paper's
    Proposition 1). Their Gaussian is :math:`p(x_0 \mid x_t)` only if its mean is the posterior mean, which is the
    ODE's after ``ode=1`` step and not after many, and only if its variance is right, which ``prior_std`` makes it
    for a Gaussian prior. It lives on noise levels of its own and does not use the prior's schedule.

    Exactness card: ``book/cards/daps``.

    Args:
        steps: noise levels, 200 in the official code for "DAPS-1K", 1000 network calls.
        ode: Euler steps of each flow, one network call each: the run makes ``steps * ode``.
        langevin: Langevin steps of each draw; 0 draws exactly.
        rate: length of the first Langevin step, falling linearly to a hundredth; official code: 1e-4 (super-resolution,
            Gaussian deblurring), 5e-5 (inpainting, phase retrieval), 2e-5 (high dynamic range).
        tau: noise that the data are taken to have, 0.01 in the official code although theirs is 0.05; None is sigma_y.
        first, last: the first level and where levels end. What the data do not see keeps the noise of the last level if
            draws are exact or Langevin steps many.
        prior_std: s in r_t^2 = s^2 sigma_t^2 / (s^2 + sigma_t^2); None is the paper's r_t = sigma_t.
        cg: iterations of the exact draw where the operator has no known SVD.

    Raises:
        ValueError: an exact draw for an operator that is not linear.
    """

    steps: int = 200
    ode: int = 5
    langevin: int = 100
    rate: float = 1e-4
    tau: float | None = 0.01
    first: float = 100.0
    last: float = 0.1
    prior_std: float | None = None
    cg: int = 10

    def iterate(self, m: Measurement[Operator, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        x = self.first * rng.normal(*prior.shape)
        for k, (t, s) in enumerate(levels(self.first, self.last, self.steps)):
            x0 = self.draw(m, self.flow(prior, x, t), t, k, rng)
            x = x0 + s * rng.normal_like(x)
            yield State(x, x0)

    def flow(self, prior: DiffusionPrior, x: Tensor, sigma: float) -> Tensor:
        """The probability flow from noise sigma to 0, by Euler's method."""
        for t, s in levels(sigma, min(0.01, 0.1 * sigma), self.ode):
            x0 = prior.denoiser(x, x.new_full((), t))
            x = x0 + s / t * (x - x0)
        return x

    def draw(self, m: Measurement[Operator, Gaussian], x0: Tensor, sigma: float, k: int, rng: Rng) -> Tensor:
        """An image near x0 that explains the data, at the k-th level."""
        tau = max(m.noise.std if self.tau is None else self.tau, QUIETEST)
        variance = sigma**2 if self.prior_std is None else 1 / (1 / sigma**2 + 1 / self.prior_std**2)
        if self.langevin > 0:
            return langevin(m, x0, variance, tau, self.langevin, self.rate * (1 - 0.99 * k / self.steps), rng)
        if not isinstance(m.A, Linear):
            raise ValueError(f"langevin=0 draws exactly and needs a linear operator, got {type(m.A).__name__}")
        return exact_draw(m.A, m.y, x0, variance, tau, rng, self.cg)
