r"""FlowChef (Patel et al., ICCV 2025, arXiv:2412.00100), Algorithm for linear inverse problems in pixel space.

Deviations:
    - Any schedule. The paper's rectified flow is the straight line x_t = (1 - t) x_0 + t eps with the velocity
      eps - x_0; elsewhere the iterate is moved with eps - x_0 held fixed, which is the paper's rule on straight lines.
    - The cost is half the squared residual, as in the branch ``likebaseline`` of the official code
      (``generate_inverseproblems_flowchef.py``); the other branch takes the mean over the m data, so that its
      ``gradient_scale`` s is our 2 s / m: 100 by default and 500 in its scripts, on images of 3 x 64 x 64.
    - The code of the pixel models takes one steering step a network call; ``inner`` are the K of the paper.
    - As in the official code, the last step is not steered.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Operator
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State
from scoreatlas.tweedie import flow_from_x0, x0_from_flow


@final
@dataclass(frozen=True)
class FlowChef(Solver[Measurement[Operator, Gaussian], DiffusionPrior]):
    r"""Steers a deterministic flow by the gradient at its end point, with the Jacobian of the network skipped.

    .. math:: x_t \gets x_t + \kappa \, A^T (y - A \hat x_0), \qquad
       \hat x_0 = \frac{x_t - \sigma_t u}{\alpha_t + \sigma_t}, \qquad u \text{ fixed}

    then a step along :math:`u = \hat \epsilon - \hat x_0`, Euler's on straight lines. It does not use sigma_y, and the
    only randomness is that of the start. One network call and no vector-Jacobian product a step; the operator may be
    anything differentiable.

    Exactness card: ``book/cards/flowchef``.

    Args:
        steps: network calls; the official scripts use 20, 100 and 200.
        scale: kappa, share of the residual that one steering step undoes where A A^T = I. Below 2 over the square of
            the largest singular value, or the steering overshoots.
        inner: steering steps a network call.
    """

    steps: int = 100
    scale: float = 1.0
    inner: int = 1

    def iterate(self, m: Measurement[Operator, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        x = prior.initial(rng)
        for t, s in prior.schedule.pairs(self.steps):
            x0 = prior.denoise(x, t)
            u = flow_from_x0(x, x0, t)
            for _ in range(self.inner if s.sigma > 0 else 0):
                x = x + self.scale * m.A.vjp(x0, m.y - m.A(x0))
                x0 = x0_from_flow(x, u, t)
            x = s.alpha * x0 + s.sigma * (x0 + u)
            yield State(x, x0)
