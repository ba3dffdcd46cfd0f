r"""Analytical teleportation: the outline in closed form, the details by the network.

Wang & Vastola (2023), arXiv:2303.02490; (2024), arXiv:2412.09726.

Where the noise is larger than the data, the network's flow is nearly that of the Gaussian with the data's mean and
covariance, which costs no network call. The walk begins there and goes on with Heun's method.

Deviations:
    - No official code of the hybrid sampler was found. The papers go on with whichever solver is at hand; ours is
      Heun's, on the same grid that it would have walked from the beginning.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from scoreatlas.gaussian_flow import GaussianFlow
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.samplers.ode import Grid, Karras
from scoreatlas.schedules import Time
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class Outline(Solver[None, DiffusionPrior]):
    """The flow of a Gaussian down to a noise level, then Heun's method on the rest of the grid.

    ``State.x`` is z = x_t / alpha_t, as in :mod:`scoreatlas.samplers.ode`. A step in closed form yields a state like
    any other.

    Args:
        gaussian: mean and covariance of the data.
        skip: steps that end at or above this noise level (in image units) are taken in closed form.
        steps: of the whole grid.
        grid: noise levels.
    """

    gaussian: GaussianFlow
    skip: float = 1.0
    steps: int = 25
    grid: Grid = Karras()

    def iterate(self, m: None, prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        levels = self.grid(prior.schedule, self.steps)
        z = start = prior.initial(rng) / prior.schedule.at(1.0).alpha
        for n, low in zip(levels[:-1], levels[1:], strict=True):
            if low >= self.skip:
                z = self.gaussian.move(start, levels[0], low)
                yield State(z, self.gaussian(z, z.new_full((), low)))
                continue
            x0 = prior.denoise(z, Time(n, 1.0, n))
            slope = (z - x0) / n
            ahead = z + (low - n) * slope
            if low > 0:
                x0 = prior.denoise(ahead, Time(low, 1.0, low))
                ahead = z + (low - n) * (slope + (ahead - x0) / low) / 2
            z = ahead
            yield State(z, x0)

    def calls(self, prior: DiffusionPrior) -> int:
        """Network calls of one chain: two a step below ``skip``, one in the last step."""
        below = [low for low in self.grid(prior.schedule, self.steps)[1:] if low < self.skip]
        return sum(2 if low > 0 else 1 for low in below)
