r"""Samplers on the probability-flow ODE: Euler and Heun.

Song et al. (2021), *Score-Based Generative Modeling through SDEs*, arXiv:2011.13456, equation 13.
Karras et al. (2022), *Elucidating the Design Space of Diffusion-Based Generative Models*,
arXiv:2206.00364, Algorithm 1 (Heun).

In the variable z = x_t / alpha_t (image units) and against the noise level n = sigma_t / alpha_t, the
ODE of every schedule is the same,

.. math:: \frac{dz}{dn} = \frac{z - D(z; n)}{n},

so a schedule only says where to stop on the way. ``State.x`` is z, which is the image at n = 0.

Deviations:
    - EDM's Algorithm 1 is written for a general sigma(t), s(t); its recommended choice, sigma = t and
      s = 1, is this one. Churn (Algorithm 2) is left out.
    - On a grid uniform in t, the noise of VP and VE schedules behaves as sqrt(t) near 0, and the last
      step, which is Euler's, costs Heun its second order. Flow schedules and :class:`Karras` keep it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, final

from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.schedules import Schedule, Time
from scoreatlas.solvers.base import Solver, State


class Grid(Protocol):
    """Where an ODE sampler stops on the way from noise to image."""

    def __call__(self, schedule: Schedule, n: int, /) -> list[float]:
        """n + 1 noise levels sigma / alpha, from that of t = 1 down to 0."""
        ...


@final
@dataclass(frozen=True)
class Uniform:
    """Equally spaced in the schedule's time."""

    def __call__(self, schedule: Schedule, n: int, /) -> list[float]:
        return [t.noise for t in schedule.grid(n)]


@final
@dataclass(frozen=True)
class Karras:
    """Equally spaced in noise^(1 / rho) down to ``noise_min``, then 0 (EDM, equation 5).

    Raises:
        ValueError: on use, ``n < 1``.
    """

    rho: float = 7.0
    noise_min: float = 0.002

    def __call__(self, schedule: Schedule, n: int, /) -> list[float]:
        if n < 1:
            raise ValueError(f"a grid needs at least one step, got {n}")
        top, low = schedule.at(1.0).noise ** (1 / self.rho), self.noise_min ** (1 / self.rho)
        return [(top + i / max(n - 1, 1) * (low - top)) ** self.rho for i in range(n)] + [0.0]


@final
@dataclass(frozen=True)
class Euler(Solver[None, DiffusionPrior]):
    """First order: one network call a step.

    Args:
        steps: number of steps, at least 1.
        grid: noise levels.
    """

    steps: int = 50
    grid: Grid = Uniform()

    def iterate(self, m: None, prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        levels = self.grid(prior.schedule, self.steps)
        z = prior.initial(rng) / prior.schedule.at(1.0).alpha
        for n, low in zip(levels[:-1], levels[1:], strict=True):
            x0 = prior.denoise(z, Time(n, 1.0, n))
            z = z + (low - n) * (z - x0) / n
            yield State(z, x0)


@final
@dataclass(frozen=True)
class Heun(Solver[None, DiffusionPrior]):
    """Second order: two network calls a step, one in the last (2 steps - 1 in all).

    Args:
        steps: number of steps, at least 1.
        grid: noise levels.
    """

    steps: int = 25
    grid: Grid = Karras()

    def iterate(self, m: None, prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        levels = self.grid(prior.schedule, self.steps)
        z = prior.initial(rng) / prior.schedule.at(1.0).alpha
        for n, low in zip(levels[:-1], levels[1:], strict=True):
            x0 = prior.denoise(z, Time(n, 1.0, n))
            slope = (z - x0) / n
            ahead = z + (low - n) * slope
            if low > 0:
                x0 = prior.denoise(ahead, Time(low, 1.0, low))
                ahead = z + (low - n) * (slope + (ahead - x0) / low) / 2
            z = ahead
            yield State(z, x0)
