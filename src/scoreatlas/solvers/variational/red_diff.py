r"""RED-diff (Mardani et al., ICLR 2024, arXiv:2305.04391), Algorithm 1.

The loss and the optimiser as in the official code (``algos/reddiff.py``, ``_configs/algo/reddiff.yaml`` at 66482f2). It
is not RED, whose denoiser sees the iterate itself at one level.

Deviations:
    - Means over pixels and data are taken row by row. The official code takes them over the batch too, which Adam
      undoes up to its epsilon of 1e-8: gradients of large batches of large images are not far from that.
    - It starts from the ridge estimate with unit prior variance, the pseudo-inverse for small sigma_y, or from grey
      if the operator is not linear. The official code starts from pseudo-inverses, in blurs cut at 3e-2, and from y.
    - The variational standard deviation is 0, as in the official configuration.
    - The answer is the last iterate, the official one that before the last step.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from scoreatlas.linalg import ridge
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Linear, Operator, real_rows
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class REDdiff(Solver[Measurement[Operator, Gaussian], DiffusionPrior]):
    r"""A point estimate :math:`\mu`: data against the residuals of the denoiser at falling noise levels, by Adam.

    .. math::
       g_t = -\frac1m J_A^T (y - A(\mu)) + \frac{\lambda_t}{n} \left( \hat\epsilon(x_t) - \epsilon \right),
       \qquad x_t = \alpha_t \mu + \sigma_t \epsilon, \qquad \lambda_t = \lambda \, (\sigma_t / \alpha_t)^p

    The gradient of the regulariser is taken without the Jacobian of the network. With p = 1, the inverse of the
    signal-to-noise ratio, it is :math:`\lambda (\mu - \hat x_0(x_t)) / n`: RED with a denoiser that is shown the
    iterate with noise on it. The noise of the data is not in the formula; :math:`\lambda` stands for it.

    Exactness card: ``book/cards/reddiff``.

    Args:
        steps: network calls; 50 in the official defaults, 100 in its example, 1000 in its scripts.
        rate: of Adam, with betas 0.9 and 0.99: 0.1 in the official configuration, 0.5 in its example.
        lambd: 0.25 there; it multiplies a mean over pixels, the data term being half a mean over data.
        power: p, "linear" being 1; "sqrt", "square" and "const" of the official code are 0.5, 2 and 0.
        cg: iterations of the first estimate where the operator is linear without a known SVD.
    """

    steps: int = 1000
    rate: float = 0.1
    lambd: float = 0.25
    power: float = 1.0
    cg: int = 10

    def iterate(self, m: Measurement[Operator, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        mu = self.start(m, prior, rng)
        size, data = mu[0].numel(), real_rows(m.y).shape[1]
        first, second = torch.zeros_like(mu), torch.zeros_like(mu)
        for i, (t, _) in enumerate(prior.schedule.pairs(self.steps), 1):
            x0 = prior.denoise(t.alpha * mu + t.sigma * rng.normal_like(mu), t)
            weight = self.lambd * t.noise ** (self.power - 1)  # of mu - x0, which is (eps_hat - eps) sigma_t / alpha_t
            g = weight * (mu - x0) / size - m.A.vjp(mu, m.y - m.A(mu)) / data
            first, second = 0.9 * first + 0.1 * g, 0.99 * second + 0.01 * g**2
            spread = (second / (1 - 0.99**i)).sqrt() + 1e-8
            mu = mu - self.rate * first / (1 - 0.9**i) / spread
            yield State(mu, x0)

    def start(self, m: Measurement[Operator, Gaussian], prior: DiffusionPrior, rng: Rng) -> Tensor:
        """The first estimate (b, *s)."""
        if isinstance(m.A, Linear):
            return ridge(m.A, m.A.adjoint(m.y), max(m.noise.std, 1e-3) ** 2, self.cg)
        return torch.zeros(rng.batch, *prior.shape, dtype=rng.dtype, device=rng.device)
