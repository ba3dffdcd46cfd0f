r"""Generative diffusion prior, GDP (Fei et al., CVPR 2023, arXiv:2304.01247), Algorithm 2: GDP-x_0, known operator.

Deviations:
    - The step is :math:`\lambda A^T (y - A \hat x_0)`, lambda = ``scale`` / ``steps``. The official code
      (``scripts/sample_x0_*.py``) multiplies the gradient of a mean of squares on [0, 1] by s. With m data that is
      :math:`\lambda = s / (2 m)`, which depends on the size of the image: s = 6000 for deblurring at 3 x 256 x 256 and
      1000 steps is ``scale=15``, 4000 for inpainting is 10, 2000 for super-resolution by 4 is 81.
    - The estimate is not clipped, and the variance is the chain's, where the official ones are clipped and learned.
    - Reconstruction alone: exposure, colour and illumination losses are left out. The Adam objects that the official
      ``condition_mean`` makes never update anything, and are left out too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Operator
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class GDP(Solver[Measurement[Operator, Gaussian], DiffusionPrior]):
    r"""Moves the mean of each reverse step downhill in the misfit of the clean estimate, past the network.

    .. math:: x_s = \mu(x_t, \hat x_0) + \lambda \, A^T (y - A \hat x_0) + \mathrm{std} \; z

    The paper's GDP-x_0: the gradient is taken in the estimate and not in x_t, so the network is never
    differentiated, and it is not weighed by the variance of the step. Sigma_y is not used.

    Exactness card: ``book/cards/gdp``.

    Args:
        steps: network calls; the paper uses 1000.
        scale: lambda times ``steps``. A step longer than 2 / \|A\|^2 overshoots.
        eta: 1 is DDPM's ancestral step.
    """

    steps: int = 1000
    scale: float = 15.0
    eta: float = 1.0

    def iterate(self, m: Measurement[Operator, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        x = prior.initial(rng)
        for t, s in prior.schedule.pairs(self.steps):
            x0 = prior.denoise(x, t)
            down = m.A.vjp(x0, m.y - m.A(x0))
            mean, std = prior.schedule.bridge(x, x0, t, s, self.eta)
            x = mean + std * rng.normal_like(x) + self.scale / self.steps * down
            yield State(x, x0)
