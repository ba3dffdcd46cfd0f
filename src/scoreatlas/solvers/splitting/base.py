"""What samplers that split share: noise levels, and draws from a Gaussian times the likelihood."""

import math
from itertools import pairwise

from torch import Tensor

from scoreatlas.linalg import norm, ridge_dual, rows
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Linear, Operator
from scoreatlas.rng import Rng
from scoreatlas.solvers.classical.tv import squared_norm

QUIETEST = 1e-3  # what noise-free data count as, in data units


def levels(first: float, last: float, n: int) -> list[tuple[float, float]]:
    """n steps (s, next s) between noise levels: EDM's n + 1 levels from ``first`` to ``last``, with 0 for the end.

    Equally spaced in the seventh root (Karras et al., 2022, arXiv:2206.00364, equation 5).
    """
    a, b = first ** (1 / 7), last ** (1 / 7)
    return list(pairwise([*((a + i / n * (b - a)) ** 7 for i in range(n)), 0.0]))


def exact_draw(A: Linear, y: Tensor, x: Tensor, variance: float, std: float, rng: Rng, cg: int) -> Tensor:
    r"""Draws (b, \*s) from :math:`N(x, v I)` times :math:`N(y; A \cdot, \sigma^2 I)`, by perturbation.

    A draw from the prior and one of the data it would give, then the Kalman gain (Matheron's rule): two
    applications of A and one solve, exact where the operator is diagonalised.

    Args:
        A: linear operator.
        y: data (b, \*m).
        x: centre (b, \*s).
        variance: v.
        std: sigma, positive.
        rng: noise.
        cg: iterations of the solve where the operator has no known SVD.
    """
    x = x + math.sqrt(variance) * rng.normal_like(x)
    r = y + std * rng.normal_like(y) - A(x)
    return x + A.adjoint(ridge_dual(A, r, std**2 / variance, cg))


def langevin(
    m: Measurement[Operator, Gaussian], x: Tensor, variance: float, std: float, steps: int, rate: float, rng: Rng
) -> Tensor:
    r"""Unadjusted Langevin steps (b, \*s) from x towards :math:`N(x, v I)` times :math:`N(y; A(\cdot), \sigma^2 I)`.

    Steps are ``rate`` long, or what is stable at x if that is shorter.
    """
    limit = 1 / (rows(squared_slope(m.A, x, rng), x) / std**2 + 1 / variance)
    step, z = limit.clamp_max(rate), x
    for _ in range(steps):
        g = m.A.vjp(z, m.y - m.A(z)) / std**2 + (x - z) / variance
        z = z + step * g + (2 * step).sqrt() * rng.normal_like(z)
    return z


def squared_slope(A: Operator, x: Tensor, rng: Rng, iterations: int = 10) -> Tensor:
    """Largest squared singular value of the derivative of A at x, (b,): by power iteration, differences for J v."""
    if isinstance(A, Linear):
        return squared_norm(A, rng, iterations).expand(len(x))
    y, v = A(x), rng.normal_like(x)
    h = 1e-3 * math.sqrt(math.prod(A.shape))  # 1e-3 a pixel
    for _ in range(iterations):
        size = norm(v).clamp_min(1e-12)
        v = A.vjp(x, (A(x + rows(h / size, x) * v) - y) / h)
    return 1.2 * norm(v)
