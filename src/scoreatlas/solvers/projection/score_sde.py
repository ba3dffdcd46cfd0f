r"""Projection onto noised data, "Score-SDE" (Song, Shen, Xing and Ermon, ICLR 2022, arXiv:2111.08005), Algorithm 2.

Made for medical imaging: A = P(Lambda) T keeps some coefficients of an invertible transform T, the Fourier transform
for MRI, that and the projection-slice theorem for CT.

Deviations:
    - T^-1 Lambda P^-1 is the pseudo-inverse A^+ of any linear operator: by the singular values where they are known,
      else by ``cg`` conjugate-gradient steps on A^T A, which stop early on purpose. The official code (``cs.py``) goes
      through the Fourier transform of all views for CT.
    - The unconditional step is the ancestral one. The paper allows any; the code corrects (Langevin) and predicts, each
      after a projection of its own.
    - The last projection has weight lambda too, as in the paper; the code's has weight 1, whatever the noise.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from torch import Tensor

from scoreatlas.linalg import cg
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Diagonalised, Linear
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class ScoreSDE(Solver[Measurement[Linear, Gaussian], DiffusionPrior]):
    r"""Moves what the operator sees of the iterate towards the data, noised to the same level; then one free step.

    .. math:: x_t' = x_t + \lambda \, A^+ (\hat y_t - A x_t), \qquad \hat y_t = \alpha_t y + \sigma_t A z

    It takes no noise level of the data; a lambda below 1 stands for it.

    Exactness card: ``book/cards/scoresde``.

    Args:
        steps: network calls; 1000 levels, each predicted and corrected, in the paper.
        lambd: lambda in [0, 1], chosen on validation images in the paper; 1 in the official configuration.
        cg: iterations of the pseudo-inverse where the operator has no known SVD.
    """

    steps: int = 100
    lambd: float = 1.0
    cg: int = 5

    def iterate(self, m: Measurement[Linear, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        A, x = m.A, prior.initial(rng)
        for t, s in prior.schedule.pairs(self.steps):
            noised = t.alpha * m.y + t.sigma * A(rng.normal_like(x))
            x = x + self.lambd * self._pinv(A, noised - A(x))
            x0 = prior.denoise(x, t)
            mean, std = prior.schedule.bridge(x, x0, t, s)
            x = mean + std * rng.normal_like(x)
            if s.sigma == 0:
                x = x + self.lambd * self._pinv(A, m.y - A(x))
            yield State(x, x0)

    def _pinv(self, A: Linear, r: Tensor) -> Tensor:
        if isinstance(A, Diagonalised):
            return A.pinv(r)
        return cg(lambda z: A.adjoint(A(z)), A.adjoint(r), self.cg)
