r"""Total variation by a primal-dual method.

A. Chambolle and T. Pock, *A first-order primal-dual algorithm for convex problems with applications to imaging*,
J. Math. Imaging Vis. 40, 2011, algorithm 1 with theta = 1; both terms dualised as in E. Y. Sidky, J. H. Jørgensen
and X. Pan, *Convex optimization problem prototyping for image reconstruction in computed tomography with the
Chambolle-Pock algorithm*, Phys. Med. Biol. 57, 2012, algorithm 4.

Deviations:
    - The noise level is in the objective, |A x - y|^2 / (2 sigma_y^2) + lambda TV(x), so that the answer is the MAP
      estimate under the prior; noise-free data become the constraint A x = y, with no special case.
    - The two dual variables have their own steps, s_p |grad|^2 = s_q |A|^2, with tau (s_p |grad|^2 + s_q |A|^2) < 1,
      the block form of the papers' tau sigma |K|^2 < 1 (T. Pock and A. Chambolle, ICCV 2011, lemma 2). One step for
      both stalls when |A| and |grad| differ.
    - |grad|^2 < 8 is a bound, and |A| comes from the singular values where they are known, else from 30 power
      iterations on the Gram operator, which underestimate it; 5 % are added.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from scoreatlas.linalg import norm, rows
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Diagonalised, Linear
from scoreatlas.priors.tv import TotalVariation
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class PrimalDualTV(Solver[Measurement[Linear, Gaussian], TotalVariation]):
    r"""argmin_x \|A x - y\|^2 / (2 sigma_y^2) + lambda TV(x), for any linear operator and images (b, c, h, w).

    The answer does not depend on ``rng``, which only starts the power iteration.

    Args:
        iterations: applications of A and of its adjoint.
        ratio: dual over primal step, in units of lambda: larger moves the dual variables, of size lambda, faster
            and the image, of size 1, slower. It changes the speed and not the limit.
    """

    iterations: int = 300
    ratio: float = 10.0

    def iterate(self, m: Measurement[Linear, Gaussian], prior: TotalVariation, rng: Rng) -> Iterator[State]:
        square, x = squared_norm(m.A, rng), m.A.adjoint(m.y)
        step = self.ratio * prior.weight  # s_p |grad|^2 = s_q |A|^2
        s_p, s_q, tau = step / 8, rows(step / square, m.y), 1 / (2 * step)
        x = bar = x / rows(square, x)
        p, q = torch.zeros_like(prior.gradient(x)), torch.zeros_like(m.y)
        for _ in range(self.iterations):
            p = prior.project(p + s_p * prior.gradient(bar))
            q = (q + s_q * (m.A(bar) - m.y)) / (1 + s_q * m.noise.std**2)
            x, previous = x - tau * (m.A.adjoint(q) - prior.divergence(p)), x
            bar = 2 * x - previous
            yield State(x, x)


def squared_norm(A: Linear, rng: Rng, iterations: int = 30) -> Tensor:
    """|A|^2, (b,), each row from its own start; or one number, (), where the singular values are known."""
    if isinstance(A, Diagonalised):
        return A.singular_values.max() ** 2
    x = rng.normal(*A.shape)
    for _ in range(iterations):
        x = A.adjoint(A(x / rows(norm(x), x)))
    return 1.05 * norm(x)
