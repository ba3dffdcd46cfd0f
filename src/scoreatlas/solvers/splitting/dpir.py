r"""DPIR: plug-and-play by half-quadratic splitting with a deep denoiser (Zhang et al., TPAMI 2022, arXiv:2008.13751),
Algorithm 1, the levels as in the official code (``utils/utils_pnp.py``, ``main_dpir_deblur.py`` at 15bca3f).

Deviations:
    - Levels are in units of [-1, 1]: the official 49 / 255 on [0, 1] is 49 / 127.5 here, the floor of sigma_y 0.002.
      lambda multiplies a ratio of variances and needs no conversion.
    - The last level is sigma_y for every task. The official code stops higher in super-resolution (the factor, in grey
      levels) and at 0.6 grey levels or sigma_y in demosaicking.
    - It starts from a grey image, whose data step is Tikhonov's estimate. The official code starts from the blurred
      image, its bicubic interpolation or its linear demosaicking, one for each task.
    - No flips or rotations between the iterations (``x8``): digits are not invariant under them.
"""

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
class DPIR(Solver[Measurement[Linear, Gaussian], DiffusionPrior]):
    r"""Half-quadratic splitting: fit the data near z, denoise, lower the noise level.

    .. math::
       x_k &= \arg\min_x \| y - A x \|^2 + \alpha_k \| x - z_{k-1} \|^2,
       \qquad \alpha_k = \lambda \, \sigma_y^2 / \sigma_k^2 \\
       z_k &= D_{\sigma_k}(x_k), \qquad \sigma_1 > \dots > \sigma_K \text{ equally spaced in } \log \sigma

    The answer is :math:`z_K`; it does not depend on ``rng``. With ``first = last`` it is plug-and-play HQS at one
    level, which is the fixed-point iteration of RED.

    Exactness card: ``book/cards/dpir``.

    Args:
        steps: K, network calls; official code: 8 (deblurring), 24 (super-resolution), 40 (demosaicking).
        lambd: 0.23 in the official code.
        first: sigma_1, 49 grey levels in the official code.
        last: sigma_K; None is sigma_y.
        cg: iterations of the data step where the operator has no known SVD.
    """

    steps: int = 8
    lambd: float = 0.23
    first: float = 49 / 127.5
    last: float | None = None
    cg: int = 10

    def iterate(self, m: Measurement[Linear, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        noise = max(m.noise.std, 0.002)  # noise-free data: the floor of the official code
        last = noise if self.last is None else self.last
        back = m.A.adjoint(m.y)
        z = torch.zeros_like(back)
        for k in range(self.steps):
            sigma = self.first * (last / self.first) ** (k / max(self.steps - 1, 1))
            alpha = self.lambd * (noise / sigma) ** 2
            x = ridge(m.A, back + alpha * z, alpha, self.cg, z)
            z = prior.denoiser(x, x.new_full((), sigma))
            yield State(z, x)
