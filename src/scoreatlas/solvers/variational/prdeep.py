r"""prDeep: C. A. Metzler, P. Schniter, A. Veeraraghavan and R. G. Baraniuk, *prDeep: robust phase retrieval with a
flexible deep network*, ICML 2018, arXiv:1803.00212 (official code: ``Algorithms/prDeep.m``, ``Demos/PR_Demo.m``).

RED's objective with the misfit of amplitudes, |y - |L u||^2 / (2 sigma_y^2) + (rho / 2) x^T (x - D(x)), by proximal
gradient steps, started from HIO. As for RED, the steps follow a gradient only if the denoiser has a symmetric Jacobian
and is homogeneous.

Deviations:
    - Fixed steps 1 / L, L a bound on the curvature of the misfit; the authors use FASTA with adaptive ones.
    - rho is given as a multiple of 1 / sigma^2, as in our RED. The official demo has rho = 0.1 on images in
      [0, 255] and a denoiser for 50 grey levels: a multiple of 250, with a sigma_y estimated from the true image.
    - Levels may fall geometrically from ``first`` to ``last``; the demo has one level. The defaults were chosen on
      validation digits.
    - HIO has the whole image for support; the demo gives it the pixels at which the true image is positive.
    - A negative datum, which noise can produce, counts as 0.
    - Linear operators are served, too; every other operator than Fourier magnitudes starts from white images, as the
      demo does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch

from scoreatlas.linalg import rows
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Linear
from scoreatlas.operators.phase import Amplitude, FourierMagnitude
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State
from scoreatlas.solvers.classical.hio import HIO
from scoreatlas.solvers.classical.tv import squared_norm


@final
@dataclass(frozen=True)
class PrDeep(Solver[Measurement[Amplitude | Linear, Gaussian], DiffusionPrior]):
    r"""A gradient step on the misfit, and a weighted mean with the denoised image.

    .. math:: z = x + \tfrac1L J^T (y - A(x)), \qquad x \gets \frac{z + w \, D_\sigma(z)}{1 + w}, \qquad
       w = \frac{\lambda \, \sigma_y^2}{L \, \sigma^2}

    where L bounds :math:`J^T J`. For Fourier magnitudes the start is HIO's answer: the best of ``restarts`` short runs.

    Exactness card: ``book/cards/prdeep``.

    Args:
        steps: network calls; 200 in the demo.
        first, last: noise levels that the denoiser is told, image units; 50 grey levels are 0.39.
        lambd: weight of the prior.
        iterations, restarts: of HIO, which needs no network.
    """

    steps: int = 200
    first: float = 0.2
    last: float = 0.1
    lambd: float = 6.0
    iterations: int = 500
    restarts: int = 4

    def iterate(self, m: Measurement[Amplitude | Linear, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        variance = max(m.noise.std, 1e-3) ** 2  # noise-free data: the floor of DiffPIR
        if isinstance(m.A, FourierMagnitude):
            x = HIO(self.iterations, restarts=self.restarts)(Measurement(m.y, m.A, m.noise), None, rng)
        else:
            x = torch.ones_like(rng.normal(*m.A.shape))
        curvature = m.A.gain / 4 if isinstance(m.A, Amplitude) else rows(squared_norm(m.A, rng), x)
        y = m.y.clamp_min(0) if isinstance(m.A, Amplitude) else m.y  # no amplitude is negative
        for k in range(self.steps):
            sigma = self.first * (self.last / self.first) ** (k / max(self.steps - 1, 1))
            w = self.lambd * variance / (curvature * sigma**2)
            z = x + m.A.vjp(x, y - m.A(x)) / curvature
            d = prior.denoiser(z, z.new_full((), sigma))
            x = (z + w * d) / (1 + w)
            yield State(x, d)
