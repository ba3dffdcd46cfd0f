r"""Generative diffusion prior, GDP (Fei et al., CVPR 2023, arXiv:2304.01247), Algorithm 2 with unknown degradation.

Deviations:
    - Those of :class:`~scoreatlas.solvers.guidance.gdp.GDP`.
    - The degradation is any family; the paper's is y = f x + M with a mask M of the size of the image
      (:class:`~scoreatlas.operators.family.Lights`), and blur is always known to it.
    - Parameters start at their prior mean and have no prior afterwards; the official f and M start at noise next to 0.
    - ``rate`` multiplies the gradient of the mean square of the residual. The official code
      (``scripts/sample_x0_enhancement*.py``) has 1, on images in [0, 1]: for a mask with a value in each pixel a short
      step, for a constant M the edge of divergence.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from scoreatlas.blind import BlindMeasurement, JointPrior
from scoreatlas.measurement import Gaussian
from scoreatlas.operators.base import real_rows
from scoreatlas.operators.family import Family
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import State
from scoreatlas.solvers.blind.base import BlindSolver


@final
@dataclass(frozen=True)
class BlindGDP(BlindSolver[BlindMeasurement[Family, Gaussian], JointPrior]):
    r"""GDP whose operator is fitted along the way, by gradient steps on the misfit of the clean estimate.

    .. math:: \varphi \gets \varphi - \ell \, \nabla_\varphi \tfrac1m \| y - A_\varphi(\hat x_0) \|^2, \qquad
       x_s = \mu(x_t, \hat x_0) + \lambda \, A_\varphi^T (y - A_\varphi \hat x_0) + \mathrm{std} \; z

    Args:
        steps: network calls; the paper uses 1000.
        scale: lambda times ``steps``, as GDP's.
        rate: l, at each of the steps; 0 keeps the parameters. It has to suit the family, and diverges beyond 2 over the
            largest curvature of the mean square, which for a constant M is 2.
        inner: gradient steps on the parameters and on the mean at each level; 1 to 6 in the official scripts.
        eta: 1 is DDPM's ancestral step.
    """

    steps: int = 1000
    scale: float = 15.0
    rate: float = 0.05
    inner: int = 1
    eta: float = 1.0

    def iterate(self, m: BlindMeasurement[Family, Gaussian], prior: JointPrior, rng: Rng) -> Iterator[State]:
        image, per_datum = prior.image, 2 / real_rows(m.y).shape[1]
        x, phi = image.initial(rng), prior.guess(rng)
        for t, s in image.schedule.pairs(self.steps):
            x0 = image.denoise(x, t)
            mean, std = image.schedule.bridge(x, x0, t, s, self.eta)
            for _ in range(self.inner):
                _, down, down_phi = m.downhill(x0, phi)
                mean = mean + self.scale / self.steps * down
                phi = phi + self.rate * per_datum * down_phi
            x = mean + std * rng.normal_like(x)
            yield State(x, x0, phi)
