r"""Plug-and-play ADMM (Venkatakrishnan, Bouman and Wohlberg, GlobalSIP 2013), parametrised as in Algorithm 1 of
S. H. Chan, X. Wang and O. A. Elgendy, *Plug-and-Play ADMM for Image Restoration: Fixed Point Convergence and
Applications*, IEEE Trans. Comput. Imaging 3, 2017, arXiv:1605.01710.

Deviations:
    - The noise level is in the objective, |y - A x|^2 / (2 sigma_y^2), so that lambda = 1 is what a negative log prior
      has; Chan et al. write |y - A x|^2 / 2 and absorb sigma_y into lambda.
    - One starts from the denoiser's level sigma and takes rho = lambda / sigma^2; Chan et al. start from rho.
    - Of the two rules by which Chan et al. raise rho, the monotone one: rho times gamma after every iteration; with
      gamma = 1 rho stays, as in Venkatakrishnan et al. The adaptive rule compares norms, and rows would part company.
    - A fixed number of iterations, from a grey image.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch

from scoreatlas.linalg import ridge
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Linear
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class PnPADMM(Solver[Measurement[Linear, Gaussian], DiffusionPrior]):
    r"""ADMM for :math:`\|y - A x\|^2 / 2 \sigma_y^2 + \lambda R(x)`, the proximal step of R replaced by a denoiser.

    .. math::
       x &= \arg\min_x \tfrac{1}{2 \sigma_y^2} \| y - A x \|^2 + \tfrac{\rho}{2} \| x - (v - u) \|^2,
       \qquad \rho = \lambda / \sigma^2 \\
       v &= D_\sigma(x + u) \\
       u &\gets u + x - v

    The answer is v, the denoised image; it does not depend on ``rng``.

    Exactness card: ``book/cards/pnpadmm``.

    Args:
        steps: network calls.
        sigma: noise level that the denoiser is told, image units; it sets the fixed point and the speed.
        lambd: weight of the prior.
        gamma: factor of rho after each iteration, at least 1; sigma is divided by its root.
        cg: iterations of the data step where the operator has no known SVD.
    """

    steps: int = 100
    sigma: float = 0.1
    lambd: float = 1.0
    gamma: float = 1.0
    cg: int = 10

    def iterate(self, m: Measurement[Linear, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        variance = max(m.noise.std, 1e-3) ** 2  # noise-free data: the floor of DiffPIR
        back = m.A.adjoint(m.y)
        v = u = torch.zeros_like(back)
        for k in range(self.steps):
            sigma = self.sigma / math.sqrt(self.gamma) ** k
            rho = variance * self.lambd / sigma**2  # times sigma_y^2
            x = ridge(m.A, back + rho * (v - u), rho, self.cg, v - u)
            v = prior.denoiser(x + u, x.new_full((), sigma))
            u = u + x - v
            yield State(v, x)
