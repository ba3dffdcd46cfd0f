r"""PnP-DM: diffusion models as plug-and-play priors (Wu et al., NeurIPS 2024, arXiv:2405.18782), Algorithms 1 and 2.

The settings of the official code (``commands.sh``, ``configs/sampler/pnp_edm.yaml`` at ca65f9b).

Deviations:
    - The prior step starts at noise rho itself, with ``inner`` levels from there to 0.002. The official code cuts one
      grid of 100 levels from 80 to 0.002 at the first level below rho, so that it has 67 of them at rho = 10 and 30 at
      0.3, and tells the network slightly less noise than there is.
    - A step of it is the ancestral one, q(x_s | x_t, x_0) at the estimate of x_0, which is Euler's to first order. The
      official last step, Euler's without noise, goes as far beyond the denoised image as it was before it.
    - Langevin steps start at x, as there, and so must be many enough to forget it. Steps are no longer than is stable.
    - One sample a run, the last x. The official code averages 20 of iterations 41 to 100.
    - Noise-free data count as having noise 1e-3.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from torch import Tensor

from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Linear, Operator
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.schedules import Schedule, Time
from scoreatlas.solvers.base import Solver, State
from scoreatlas.solvers.splitting.base import QUIETEST, exact_draw, langevin, levels


@final
@dataclass(frozen=True)
class PnPDM(Solver[Measurement[Operator, Gaussian], DiffusionPrior]):
    r"""A Gibbs sampler on an image and its noisy double, which meets the data.

    .. math::
       z &\sim N(z; x, \rho^2 I) \, p(y \mid z) && \text{likelihood step} \\
       x &\sim N(x; z, \rho^2 I) \, p(x) && \text{prior step: denoise z from noise } \rho \text{ by diffusion}

    At a constant :math:`\rho`, and with exact steps, the law of x tends to the posterior under data whose noise has
    covariance :math:`\sigma_y^2 I + \rho^2 A A^T` if A is linear: exact as :math:`\rho \to 0`, while the chain then
    needs ever more iterations to forget its start. So :math:`\rho` falls geometrically to its end.

    Exactness card: ``book/cards/pnpdm``.

    Args:
        steps: Gibbs iterations, 100 in the paper.
        inner: network calls of each prior step: the run makes ``steps * inner``.
        rho: the last rho, 0.3 for linear and 0.1 for non-linear operators in the official commands.
        first: the first rho.
        decay: factor from one rho to the next, until the last.
        langevin: Langevin steps of the likelihood step; where the operator is linear, it is exact instead.
        rate: length of a Langevin step, or what is stable if that is shorter.
        cg: iterations of the exact likelihood step where the operator has no known SVD.
    """

    steps: int = 100
    inner: int = 30
    rho: float = 0.3
    first: float = 10.0
    decay: float = 0.9
    langevin: int = 100
    rate: float = 1e-4
    cg: int = 10

    def iterate(self, m: Measurement[Operator, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        std, x = max(m.noise.std, QUIETEST), rng.normal(*prior.shape)
        for k in range(self.steps):
            rho = max(self.first * self.decay**k, self.rho)
            if isinstance(m.A, Linear):
                z = exact_draw(m.A, m.y, x, rho**2, std, rng, self.cg)
            else:
                z = langevin(m, x, rho**2, std, self.langevin, self.rate, rng)
            x = self.denoise(prior, z, rho, rng)
            yield State(x, x)

    def denoise(self, prior: DiffusionPrior, x: Tensor, rho: float, rng: Rng) -> Tensor:
        """A draw from p(x_0 | x_0 + rho eps = x), by the reverse diffusion."""
        for t, s in levels(rho, min(0.002, 0.1 * rho), self.inner):
            x0 = prior.denoiser(x, x.new_full((), t))
            mean, std = Schedule.bridge(x, x0, Time(t, 1.0, t), Time(s, 1.0, s))
            x = mean + std * rng.normal_like(x)
        return x
