r"""Moment matching posterior sampling, MMPS (Rozet et al., NeurIPS 2024, arXiv:2405.13712), Algorithm 2.

The approximation is that of :mod:`~scoreatlas.solvers.guidance.tmpd`; what is new is the solve, by conjugate gradients
on products with the Jacobian, so that no matrix is formed and a few products are enough.

Deviations:
    - The step is DDIM's with ``eta``, the ancestral one by default; the official code has this and others.
    - A number of iterations and no tolerance, so that rows do not wait for each other. The official code has both
      (``priors/diffusion.py``: at most 1 iteration by default, relative tolerance 1e-3).
    - The Jacobian of a posterior mean is symmetric and positive, that of a network nearly so. Conjugate gradients may
      then run away; ours end, row by row, where the curvature falls below what theory allows. The authors' later
      library (``azula/guidance/mmps.py``) takes GMRES by default.
    - Noise-free data: sigma_y counts as 1e-4 at least.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from scoreatlas.linalg import dot, rows
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Linear
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State

QUIETEST = 1e-4  # sigma_y in image units


@final
@dataclass(frozen=True)
class MMPS(Solver[Measurement[Linear, Gaussian], DiffusionPrior]):
    r"""Takes p(x_0 | x_t) for the Gaussian with its own mean and covariance, and inverts by conjugate gradients.

    .. math:: \mathrm{E}[x_0 \mid x_t, y] \approx \hat x_0 + C_t A^T w, \qquad
       (A C_t A^T + \sigma_y^2 I) \, w = y - A \hat x_0, \qquad
       C_t = \frac{\sigma_t^2}{\alpha_t} \frac{\partial \hat x_0}{\partial x_t}

    Exact for Gaussian priors as steps and iterations grow; m iterations are enough for m real data.

    Exactness card: ``book/cards/mmps``.

    Args:
        steps: network calls.
        cg: iterations; the official default is 1. A step takes one network call and ``cg + 1`` vector-Jacobian
            products.
        eta: 1 is the ancestral step, 0 deterministic.
    """

    steps: int = 100
    cg: int = 3
    eta: float = 1.0

    def iterate(self, m: Measurement[Linear, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        variance = max(m.noise.std, QUIETEST) ** 2
        x = prior.initial(rng)
        for t, s in prior.schedule.pairs(self.steps):
            x0, pull = prior.denoise_vjp(x, t)
            gain = t.sigma**2 / t.alpha

            def matrix(v: Tensor, pull: Callable[[Tensor], Tensor] = pull, gain: float = gain) -> Tensor:
                return m.A(gain * pull(m.A.adjoint(v))) + variance * v

            w = conjugate_gradients(matrix, m.y - m.A(x0), self.cg, variance)
            x0 = x0 + gain * pull(m.A.adjoint(w))
            mean, std = prior.schedule.bridge(x, x0, t, s, self.eta)
            x = mean + std * rng.normal_like(x)
            yield State(x, x0)


def conjugate_gradients(matrix: Callable[[Tensor], Tensor], b: Tensor, iterations: int, smallest: float) -> Tensor:
    """Solve matrix w = b, rows independent, for a matrix that should be symmetric, no eigenvalue below ``smallest``.

    A row ends where the curvature p . matrix p falls below half of that: what it found before is kept.

    Args:
        matrix: row-wise linear map (b, *m) -> (b, *m).
        b: right-hand side (b, *m).
        iterations: number of products.
        smallest: positive.
    """
    w, r, p = torch.zeros_like(b), b, b
    rr = dot(r, r)
    floor = torch.finfo(rr.dtype).tiny
    sound = torch.ones_like(rr, dtype=torch.bool)
    for _ in range(iterations):
        q = matrix(p)
        curvature = dot(p, q)
        sound = sound & (curvature > 0.5 * smallest * dot(p, p))
        step = rows(sound * rr / curvature.clamp_min(floor), b)
        w, r = w + step * p, r - step * q
        rr, previous = dot(r, r), rr
        p = r + rows(sound * rr / previous.clamp_min(floor), b) * p
    return w
