r"""Pseudo-inverse guidance, ΠGDM (Song et al., ICLR 2023, openreview 9_gsMA8MRKQ), Algorithm 1.

Deviations:
    - The guidance enters as the guided posterior mean, E[x_0 | x_t, y] = E[x_0 | x_t] +
      (sigma_t^2 / alpha_t) grad log p(y | x_t), and the DDIM step follows from it. The paper adds
      sqrt(alpha-bar_t) r_t^2 grad log p(y | x_t) after an unguided step, a weight chosen for
      images; ours is the one the probability calculus gives, and is exact for a Gaussian prior of
      variance ``prior_std``^2 as steps grow.
    - Works with sigma_y > 0. The authors' code (``NVlabs/RED-diff/algos/pgdm.py``) treats data as
      noise-free.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from scoreatlas.linalg import ridge_dual
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Linear
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class PiGDM(Solver[Measurement[Linear, Gaussian], DiffusionPrior]):
    r"""Takes p(x_0 | x_t) for a Gaussian of variance r_t^2, so that p(y | x_t) is Gaussian too.

    .. math:: \nabla \log p(y \mid x_t) \approx
       \frac{\partial \hat x_0}{\partial x_t}^T A^T (r_t^2 A A^T + \sigma_y^2 I)^{-1} (y - A \hat x_0),
       \qquad r_t^2 = \frac{s^2 \, (\sigma_t / \alpha_t)^2}{s^2 + (\sigma_t / \alpha_t)^2}

    Exactness card: ``book/cards/pigdm``.

    Args:
        steps: network calls; the paper uses 20 to 100.
        eta: 1 is the ancestral step, 0 deterministic.
        prior_std: s, standard deviation of the data. The paper takes 1, which makes
            r_t^2 = 1 - alpha-bar_t under a VP schedule.
        cg: iterations of the inner solve where the operator has no known SVD.
    """

    steps: int = 100
    eta: float = 1.0
    prior_std: float = 1.0
    cg: int = 10

    def iterate(self, m: Measurement[Linear, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        x = prior.initial(rng)
        for t, s in prior.schedule.pairs(self.steps):
            x0, pull = prior.denoise_vjp(x, t)
            r2 = 1 / (1 / t.noise**2 + 1 / self.prior_std**2)
            w = ridge_dual(m.A, (m.y - m.A(x0)) / r2, m.noise.std**2 / r2, self.cg)
            x0 = x0 + t.sigma**2 / t.alpha * pull(m.A.adjoint(w))
            mean, std = prior.schedule.bridge(x, x0, t, s, self.eta)
            x = mean + std * rng.normal_like(x)
            yield State(x, x0)
