r"""DiffPIR: plug-and-play restoration along a diffusion (Zhu et al., CVPR-W 2023, arXiv:2305.08995), Algorithm 1.

Deviations:
    - sigma_y and sigma_t are in the same units, [-1, 1]. The official code (``main_ddpir_*.py``)
      quotes sigma_y on [0, 1] and sigma_t on [-1, 1] when it forms rho_t, so its lambda is four
      times ours.
    - Levels are equally spaced in t; the official code spaces them quadratically.
    - The data step is taken at the last level too, where the code skips it; the known pixels are
      not pasted back at the end.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from scoreatlas.linalg import ridge
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Linear
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class DiffPIR(Solver[Measurement[Linear, Gaussian], DiffusionPrior]):
    r"""Half-quadratic splitting: denoise, fit the data nearby, go to the next noise level.

    .. math::
       \hat x_0 &= \arg\min_x \| y - A x \|^2 + \rho_t \| x - x_0(x_t) \|^2,
       \qquad \rho_t = \lambda \, \sigma_y^2 / (\sigma_t / \alpha_t)^2 \\
       x_s &= \alpha_s \hat x_0 + \sigma_s \left(\sqrt{1 - \zeta} \, \hat\epsilon + \sqrt{\zeta} \, z\right)

    Exactness card: ``book/cards/diffpir``.

    Args:
        steps: network calls; the paper uses 20 to 100.
        lambd: weight of the prior; 1 in the official code (1/4 in these units), 1 to 25 in the paper.
        zeta: share of fresh noise; official code 0.1 (deblurring, super-resolution), 1 (inpainting).
        cg: iterations of the data step where the operator has no known SVD.
    """

    steps: int = 100
    lambd: float = 1.0
    zeta: float = 0.1
    cg: int = 10

    def iterate(self, m: Measurement[Linear, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        variance = max(m.noise.std, 1e-3) ** 2  # noise-free data: the floor of the official code
        back, x = m.A.adjoint(m.y), prior.initial(rng)
        for t, s in prior.schedule.pairs(self.steps):
            x0 = prior.denoise(x, t)
            rho = self.lambd * variance / t.noise**2
            x0 = ridge(m.A, back + rho * x0, rho, self.cg, x0)
            kept, fresh = math.sqrt(1 - self.zeta), math.sqrt(self.zeta)
            noise = kept * prior.noise(x, x0, t) + fresh * rng.normal_like(x)
            x = s.alpha * x0 + s.sigma * noise
            yield State(x, x0)
