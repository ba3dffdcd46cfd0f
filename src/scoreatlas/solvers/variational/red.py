r"""Regularisation by denoising, RED (Romano, Elad and Milanfar, SIAM J. Imaging Sci. 10, 2017, arXiv:1611.02862),
the fixed-point strategy and steepest descent (section 4.2; official code: ``minimizers/RunFP.m`` and ``RunSD.m``).

The paper derives both from the objective |y - A x|^2 / (2 sigma_y^2) + (rho / 2) x^T (x - D(x)). Its gradient is what
they follow only if D is locally homogeneous and has a symmetric Jacobian; Reehorst and Schniter (IEEE Trans. Comput.
Imaging 5, 2019, arXiv:1806.02296) show that common denoisers have not, and that then no objective has that gradient.
What is solved, whatever D, is the equation in the docstring.

Deviations:
    - rho, the paper's lambda, is given as a multiple of 1 / sigma^2. With 1 and the posterior mean as denoiser the
      regulariser's gradient is the negative score of the prior, blurred by sigma. The official parameters are 0.21
      (uniform blur: 0.02 at 3.25 grey levels) and 0.07 (super-resolution: 0.008 at 3).
    - Steepest descent with step 1 / (|A|^2 / sigma_y^2 + rho), the reciprocal of a Lipschitz constant if the Jacobian
      of D is between 0 and 1. The paper takes 2 / (1 / sigma_y^2 + rho), at the edge of stability and for |A| = 1.
    - It starts from a grey image, and iterates are not clipped. The official code clips them to [0, 255], and takes its
      data step by descent where no Fourier transform solves it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from scoreatlas.linalg import ridge, rows
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Linear
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State
from scoreatlas.solvers.classical.tv import squared_norm


@final
@dataclass(frozen=True)
class RED(Solver[Measurement[Linear, Gaussian], DiffusionPrior]):
    r"""Solves :math:`A^T (A x - y) / \sigma_y^2 + \rho (x - D_\sigma(x)) = 0` with :math:`\rho = \lambda / \sigma^2`.

    .. math::
       \text{fixed point:} \quad & x \gets (A^T A / \sigma_y^2 + \rho I)^{-1} (A^T y / \sigma_y^2 + \rho D_\sigma(x)) \\
       \text{descent:} \quad & x \gets x - \mu \left( A^T (A x - y) / \sigma_y^2 + \rho \, (x - D_\sigma(x)) \right)

    The fixed-point strategy is HQS at one level, :class:`~scoreatlas.solvers.splitting.dpir.DPIR` with
    ``first = last``, ended after its data step.

    Exactness card: ``book/cards/red``.

    Args:
        steps: network calls.
        sigma: noise level that the denoiser is told, image units.
        lambd: weight of the prior.
        descent: steepest descent instead of the fixed-point strategy; cheaper steps, and many more of them.
        cg: iterations of the data step where the operator has no known SVD.
    """

    steps: int = 100
    sigma: float = 0.1
    lambd: float = 1.0
    descent: bool = False
    cg: int = 10

    def iterate(self, m: Measurement[Linear, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        variance = max(m.noise.std, 1e-3) ** 2  # noise-free data: the floor of DiffPIR
        rho, back = variance * self.lambd / self.sigma**2, m.A.adjoint(m.y)  # rho times sigma_y^2
        x = ridge(m.A, back, rho, self.cg)
        mu = 1 / (rows(squared_norm(m.A, rng), x) + rho) if self.descent else None
        for _ in range(self.steps):
            d = prior.denoiser(x, x.new_full((), self.sigma))
            if mu is None:
                x = ridge(m.A, back + rho * d, rho, self.cg, x)
            else:
                x = x - mu * (m.A.adjoint(m.A(x)) - back + rho * (x - d))
            yield State(x, d)
