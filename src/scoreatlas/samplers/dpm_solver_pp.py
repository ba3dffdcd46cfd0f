r"""DPM-Solver++: the exponential integrator of DPM-Solver around the clean image instead of the noise.

Lu et al. (2022), *DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models*,
arXiv:2211.01095, Algorithms 1 (2S) and 2 (2M); 3M as in the official code.

In z = x / alpha and n = sigma / alpha, with h = log(n_s / n_t), a step is

.. math:: z_t = \frac{n_t}{n_s} z_s + \Big(1 - \frac{n_t}{n_s}\Big) \bar D,

between the iterate and a clean image D-bar. First order (DDIM again) takes the estimate at s. 2S asks the network
a second time at the geometric middle; 2M extrapolates from the estimate of the step before, which costs nothing:
D-bar = D_i + (D_i - D_{i-1}) h_i / (2 h_{i-1}).

Deviations:
    - 3M expands the estimate to its second derivative, *twice* the second divided difference. The official code (and
      what descends from it) leaves the 2 out in this one update, not in its singlestep sibling, and so is of order 2:
      tests/test_dpm_solver.py measures both.
    - No thresholding of the estimate: it biases an exact sampler (in the paper it is for large guidance).
    - The step to the image is order 1, as with DPM-Solver. ``lower_order_final`` of the official library, which also
      lowers the order of the steps just before the end, is left out.
    - The first step of 2M and the first two of 3M have lower order for want of a history, as in the paper.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, final

from torch import Tensor

from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.samplers.dpm_solver import LogSNR
from scoreatlas.samplers.ode import Grid
from scoreatlas.schedules import Time
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class DPMSolverPP(Solver[None, DiffusionPrior]):
    """Network calls: ``steps`` for 2M and 3M, 2 steps - 1 for 2S.

    Args:
        steps: number of steps, at least 1.
        variant: ``"2M"`` or ``"3M"``, multistep of order 2 or 3, or ``"2S"``, singlestep of order 2.
        grid: noise levels.

    Raises:
        ValueError: another variant.
    """

    steps: int = 20
    variant: Literal["2M", "2S", "3M"] = "2M"
    grid: Grid = LogSNR()

    def __post_init__(self) -> None:
        if self.variant not in ("2M", "2S", "3M"):
            raise ValueError(f"variant must be '2M', '2S' or '3M', got {self.variant!r}")

    def iterate(self, m: None, prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        levels = self.grid(prior.schedule, self.steps)
        z = prior.initial(rng) / prior.schedule.at(1.0).alpha
        past: list[tuple[float, Tensor]] = []  # (noise level, estimate), latest first

        def toward(z: Tensor, x0: Tensor, n: float, low: float) -> Tensor:
            return low / n * z + (1 - low / n) * x0

        for n, low in zip(levels[:-1], levels[1:], strict=True):
            x0 = prior.denoise(z, Time(n, 1.0, n))
            past = [(n, x0), *past[: 0 if self.variant == "2S" else int(self.variant[0]) - 1]]
            if low == 0:
                z = x0
            elif self.variant == "2S":
                middle = math.sqrt(n * low)
                z = toward(z, prior.denoise(toward(z, x0, n, middle), Time(middle, 1.0, middle)), n, low)
            elif len(past) == 3:
                z = toward(z, x0, n, low) + _third(past, low)
            elif len(past) == 2:
                ratio = math.log(n / low) / math.log(past[1][0] / n)
                z = toward(z, x0 + ratio / 2 * (x0 - past[1][1]), n, low)
            else:
                z = toward(z, x0, n, low)
            yield State(z, x0)


def _third(past: list[tuple[float, Tensor]], low: float) -> Tensor:
    """What 3M adds to the first-order step: divided differences of the last three estimates in lambda."""
    (n, d), (n1, d1), (n2, d2) = past
    h, before, earlier = math.log(n / low), math.log(n1 / n), math.log(n2 / n1)
    slope, slope_before = (d - d1) / before, (d1 - d2) / earlier
    bend = (slope - slope_before) / (before + earlier)  # half the second derivative
    phi2 = math.expm1(-h) / h + 1
    phi3 = phi2 / h - 0.5
    return h * (phi2 * (slope + before * bend) - h * phi3 * 2 * bend)
