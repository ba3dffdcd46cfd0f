r"""Loss-guided diffusion, LGD-MC (Song et al., ICML 2023, PMLR 202:32483), with the loss of an inverse problem.

There is no official code. The implementation that others compare with, InverseBench's (``algo/lgd.py``), averages the
gradients of the samples without the weights below: for a linear operator that average does not depend on the spread of
the samples, and what is left is DPS plus noise, in steps that are shorter the wider the spread.

Deviations:
    - ``zeta`` steps along the gradient of an effective residual R (below), as DPS does along that of the residual; the
      paper's guidance is that of the log-likelihood. ``zeta=None`` gives it the weight of the probability calculus.
    - Noise-free data: sigma_y counts as 1e-3 at least, since the weights divide by it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch

from scoreatlas.linalg import dot, rows
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Operator
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State

QUIETEST = 1e-3  # sigma_y in image units


@final
@dataclass(frozen=True)
class LGD(Solver[Measurement[Operator, Gaussian], DiffusionPrior]):
    r"""Takes p(x_0 | x_t) for a Gaussian of variance r_t^2 and averages the likelihood over n samples of it.

    .. math::
       p(y \mid x_t) \approx \frac1n \sum_i p(y \mid \hat x_0 + r_t z_i) =: e^{-R^2 / 2 \sigma_y^2}, \qquad
       r_t^2 = \frac{s^2 \, (\sigma_t / \alpha_t)^2}{s^2 + (\sigma_t / \alpha_t)^2}

    and moves by :math:`- \zeta \, \nabla_{x_t} R`. Without spread (s = 0) this is DPS; with ``zeta=None``, a linear
    operator and n to infinity it is PiGDM. The operator may be anything differentiable. With few samples in many
    dimensions one of them has all the weight. One network call, one vector-Jacobian product through it, and n calls and
    n products of A a step.

    Exactness card: ``book/cards/lgd``.

    Args:
        steps: network calls.
        samples: n; the samples lie on an inner axis, so that rows stay independent.
        zeta: step size. None: the guided posterior mean, E[x_0 | x_t] + (sigma_t^2 / alpha_t) grad log p(y | x_t),
            which runs away where r_t is much larger than sigma_y and samples are few.
        eta: 1 is DDPM's ancestral step.
        prior_std: s, standard deviation of the data; 1 in the paper.

    Raises:
        ValueError: no sample, or a negative ``prior_std``.
    """

    steps: int = 1000
    samples: int = 10
    zeta: float | None = 1.0
    eta: float = 1.0
    prior_std: float = 1.0

    def __post_init__(self) -> None:
        if self.samples < 1 or not self.prior_std >= 0:
            raise ValueError(f"needs samples >= 1 and prior_std >= 0, got {self!r}")

    def iterate(self, m: Measurement[Operator, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        variance, n, every = max(m.noise.std, QUIETEST) ** 2, self.samples, m.repeat(self.samples)
        tiny = torch.finfo(rng.dtype).tiny
        x = prior.initial(rng)
        for t, s in prior.schedule.pairs(self.steps):
            x0, pull = prior.denoise_vjp(x, t)
            spread = self.prior_std * t.noise / math.hypot(self.prior_std, t.noise)
            z = (x0[:, None] + spread * rng.normal(n, *prior.shape)).flatten(0, 1)
            r = every.y - m.A(z)
            log_p = (-0.5 / variance * dot(r, r)).unflatten(0, (-1, n))
            weighted = rows(log_p.softmax(1).flatten(), r) * r
            uphill = pull(m.A.vjp(z, weighted).unflatten(0, (-1, n)).sum(1))  # sigma_y^2 grad log p(y | x_t)
            if self.zeta is None:
                x0 = x0 + t.sigma**2 / t.alpha / variance * uphill
            mean, std = prior.schedule.bridge(x, x0, t, s, self.eta)
            x = mean + std * rng.normal_like(x)
            if self.zeta is not None:
                residual = (2 * variance * (math.log(n) - log_p.logsumexp(1))).clamp_min(tiny).sqrt()
                x = x + self.zeta * uphill / rows(residual, x)
            yield State(x, x0)
