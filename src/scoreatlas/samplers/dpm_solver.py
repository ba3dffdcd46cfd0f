r"""DPM-Solver: an exponential integrator for the probability-flow ODE, of order 1, 2 or 3.

Lu et al. (2022), *DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10
Steps*, arXiv:2206.00927, equation 3.7 (order 1), Algorithms 1 and 2 (orders 2 and 3), singlestep.

With lambda = log(alpha / sigma), h = lambda_t - lambda_s > 0 and the variables of
:mod:`scoreatlas.samplers.ode`, z = x / alpha and n = sigma / alpha = exp(-lambda), the paper's factors are
differences of noise levels, sigma_t (e^h - 1) = alpha_t (n_s - n_t), and the solvers read

.. math::
   z_t &= z_s + (n_t - n_s) \epsilon_s & \text{(1)} \\
   z_t &= z_s + (n_t - n_s) \epsilon\big(z_s + (n_1 - n_s) \epsilon_s, n_1\big),
       \quad n_1 = \sqrt{n_s n_t} & \text{(2)}

so order 1 is DDIM, and order 2 (with the paper's r_1 = 1/2) the midpoint rule with the *geometric* middle. No
schedule is left in them but the grid.

Deviations:
    - The paper stops at t = 1e-3 or 1e-4; the official library can add a step to the image. Ours always
      takes that step, which is order 1 (lambda is infinite there): the estimate itself.
    - The default grid of the official library is uniform in time; the paper's for small images is uniform in
      lambda, and so is ours, down to the noise level at which :class:`~scoreatlas.samplers.ode.Karras` ends.
    - "DPM-Solver-fast" (orders mixed to spend an odd budget) and the adaptive step are left out.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, final

from torch import Tensor

from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.samplers.ode import Grid
from scoreatlas.schedules import Schedule, Time
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class LogSNR:
    """Equally spaced in log(alpha / sigma) down to ``noise_min``, then 0.

    Raises:
        ValueError: on use, ``n < 1``.
    """

    noise_min: float = 0.002

    def __call__(self, schedule: Schedule, n: int, /) -> list[float]:
        if n < 1:
            raise ValueError(f"a grid needs at least one step, got {n}")
        top, low = math.log(schedule.at(1.0).noise), math.log(self.noise_min)
        return [math.exp(top + i / max(n - 1, 1) * (low - top)) for i in range(n)] + [0.0]


@final
@dataclass(frozen=True)
class DPMSolver(Solver[None, DiffusionPrior]):
    """``order`` network calls a step, one in the last: order (steps - 1) + 1 in all.

    Args:
        steps: number of steps, at least 1.
        order: 1, 2 or 3.
        grid: noise levels.

    Raises:
        ValueError: another order.
    """

    steps: int = 10
    order: Literal[1, 2, 3] = 2
    grid: Grid = LogSNR()

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise ValueError(f"order must be 1, 2 or 3, got {self.order}")

    def iterate(self, m: None, prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        levels = self.grid(prior.schedule, self.steps)
        z = prior.initial(rng) / prior.schedule.at(1.0).alpha

        def eps(z: Tensor, n: float) -> Tensor:
            return (z - prior.denoise(z, Time(n, 1.0, n))) / n

        for n, low in zip(levels[:-1], levels[1:], strict=True):
            noise = eps(z, n)
            x0 = z - n * noise
            if low == 0 or self.order == 1:
                z = z + (low - n) * noise
            elif self.order == 2:
                middle = math.sqrt(n * low)  # lambda_s + h / 2
                z = z + (low - n) * eps(z + (middle - n) * noise, middle)
            else:
                z = _third(eps, z, noise, n, low)
            yield State(z, x0)


def _third(eps: Callable[[Tensor, float], Tensor], z: Tensor, noise: Tensor, n: float, low: float) -> Tensor:
    """Algorithm 2 with r_1 = 1/3 and r_2 = 2/3, divided by alpha_t."""
    h = math.log(n / low)
    first, second = n * math.exp(-h / 3), n * math.exp(-2 * h / 3)
    d1 = eps(z + (first - n) * noise, first) - noise
    phi = math.expm1(2 * h / 3) / (2 * h / 3) - 1
    d2 = eps(z + (second - n) * noise - 2 * second * phi * d1, second) - noise
    return z + (low - n) * noise - 1.5 * low * (math.expm1(h) / h - 1) * d2
