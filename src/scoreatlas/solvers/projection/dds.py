r"""Decomposed diffusion sampling, DDS (Chung, Lee and Ye, ICLR 2024, arXiv:2303.05754), in two dimensions.

Deviations:
    - A fixed share eta of the *total* noise is fresh at each step, as in the official code (``solver_2d.py``) and in
      DDRM; DDIM's eta, which the paper's formula has, shrinks with the step.
    - The code tests for the last step with ``j != 0`` where the last pair has j = -1: it drops the noise one step early
      and then calls the network once more on a clean image. Here the last step is the last.
    - The code's single-coil branch projects, x_0 - A^+ (A x_0 - y), whatever ``sigma_y`` says, and its two-dimensional
      solver never adds noise to the data. Here noisy data always go through the proximal problem.
    - Norms in conjugate gradients are those of each row (the code flattens the batch), and their number is fixed.
    - Levels are equally spaced in t under whatever schedule the prior has.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from scoreatlas.linalg import cg
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Linear
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class DDS(Solver[Measurement[Linear, Gaussian], DiffusionPrior]):
    r"""A few conjugate-gradient steps from the denoised image towards the data; no gradient through the network.

    .. math::
       \hat x_0 &= \mathrm{CG}_M \left[ (I + \gamma A^T A) \, x = x_0(x_t) + \gamma A^T y \right]
          \quad\text{started at } x_0(x_t) \\
       x_s &= \alpha_s \hat x_0 + \sigma_s \left( \sqrt{1 - \eta^2} \, \epsilon(x_t) + \eta z \right)

    Noise-free data drop the identity: :math:`A^T A x = A^T y`. The argument of the paper is that the Krylov space of
    the residual, in which the M steps stay, lies in the tangent space of the images at x_0.

    Exactness card: ``book/cards/dds``.

    Args:
        steps: network calls; 20 to 100 in the paper, 50 in the official code.
        gamma: weight of the data, 1 in the code. It knows neither sigma_y nor the level of x_t; a proximal step of an
            image of variance v would have v / sigma_y^2.
        cg: M, 5 in paper and code. One operator and one adjoint each, and one of both to start.
        eta: share of fresh noise, 0.85 in the official scripts.
    """

    steps: int = 50
    gamma: float = 1.0
    cg: int = 5
    eta: float = 0.85

    def iterate(self, m: Measurement[Linear, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        A, keep, back = m.A, math.sqrt(1 - self.eta**2), m.A.adjoint(m.y)
        x = prior.initial(rng)
        for t, s in prior.schedule.pairs(self.steps):
            x0 = prior.denoise(x, t)
            noise = prior.noise(x, x0, t)
            if m.noise.std == 0:
                x0 = cg(lambda z: A.adjoint(A(z)), back, self.cg, x0)
            else:
                x0 = cg(lambda z: z + self.gamma * A.adjoint(A(z)), x0 + self.gamma * back, self.cg, x0)
            x = s.alpha * x0 + s.sigma * (keep * noise + self.eta * rng.normal_like(x))
            yield State(x, x0)
