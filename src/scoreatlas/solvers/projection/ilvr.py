r"""Iterative latent variable refinement, ILVR (Choi et al., ICCV 2021, arXiv:2108.02938), Algorithm 1.

Deviations:
    - The paper's low-pass filter :math:`\phi_N`, bicubic shrinking by N and enlarging again, is :math:`N^2 A^T A`
      with A the shrinking. That is no projection: it takes a gradient step towards the data and does not quite get
      there. By default phi is :math:`A^+ A` of any diagonalised operator, the orthogonal projection on what the
      operator sees. With ``factor`` it is the paper's. The reference image, which inverse problems lack, is
      :math:`A^+ y`.
    - The reference is noised to the level of the new iterate, as in the paper. The official code
      (``jychoi118/ilvr_adm``) takes the level of the old one, by mistake (its issue 13).
    - The official code leaves the last ``range_t`` + 1 steps free, and always the very last one; that is ``stop`` =
      (``range_t`` + 1) / steps. The paper's Algorithm 1 leaves none.
    - Nothing is clipped; the reverse variance is the posterior variance, not a learned one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

from torch import Tensor

from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Diagonalised
from scoreatlas.operators.bicubic import bicubic_matrix, enlargement_matrix
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class ILVR(Solver[Measurement[Diagonalised, Gaussian], DiffusionPrior]):
    r"""After each reverse step, replaces the low frequencies by those of a reference image, noised to the same level.

    .. math:: x_s \gets x_s' + \phi(\alpha_s r + \sigma_s z) - \phi(x_s'), \qquad r = A^+ y

    It takes the data as noise-free, whatever sigma_y says; ``stop`` is the one way to be less sure of them.

    Exactness card: ``book/cards/ilvr``.

    Args:
        steps: network calls; 1000 in the paper, 100 in the official example.
        stop: time below which steps are free, in [0, 1]. At 0 none is, and the data are fitted exactly; 0.21 is that
            of the official example, ``range_t`` = 20 of 100 steps.
        factor: N of the bicubic filter, which must divide the image; 0 for :math:`A^+ A`.
    """

    steps: int = 100
    stop: float = 0.0
    factor: int = 0

    def iterate(self, m: Measurement[Diagonalised, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        reference, x = m.A.pinv(m.y), prior.initial(rng)
        phi = self.lowpass(m.A, x)
        for t, s in prior.schedule.pairs(self.steps):
            x0 = prior.denoise(x, t)
            mean, std = prior.schedule.bridge(x, x0, t, s)
            x = mean + std * rng.normal_like(x)
            noised = s.alpha * reference + s.sigma * rng.normal_like(x)
            if s.t > self.stop - 1e-9:  # times are multiples of 1 / steps, up to rounding
                x = x + phi(noised - x)
            yield State(x, x0)

    def lowpass(self, A: Diagonalised, x: Tensor) -> Callable[[Tensor], Tensor]:
        """phi for images like x (b, *s), a linear map.

        Raises:
            ValueError: ``factor`` is given for images that are not (c, h, w), or does not divide them.
        """
        f, shape = self.factor, x.shape[1:]
        if f == 0:
            return lambda x: A.pinv(A(x))
        if len(shape) != 3 or f < 0 or shape[1] % f or shape[2] % f:
            raise ValueError(f"ILVR: factor {f} does not divide images of shape {list(shape)}")
        rows, columns = ((enlargement_matrix(n, f) @ bicubic_matrix(n, f)).to(x) for n in shape[1:])
        return lambda x: rows @ x @ columns.T
