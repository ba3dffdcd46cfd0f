"""What particle solvers share: a row of the measurement is one run of k particles."""

from abc import abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from scoreatlas.rng import Rng
from scoreatlas.smc import Cloud, choose, systematic, take
from scoreatlas.solvers.base import M_contra, P_contra, Solver, State


class ParticleSolver(Solver[M_contra, P_contra]):
    """A sequential Monte Carlo method.

    Called like any solver it runs ``particles`` particles for each row and returns one of them,
    drawn by its weight: rows are independent samples, and k - 1 particles a row are thrown away.
    :meth:`cloud` keeps them all, as the papers do: k samples of one run, which are not independent
    of each other.

    Attributes:
        particles: k, particles of each row.
    """

    particles: int

    @abstractmethod
    def clouds(self, m: M_contra, prior: P_contra, rng: Rng) -> Iterator[Cloud]:
        """The algorithm box: the cloud after each step."""

    @final
    def iterate(self, m: M_contra, prior: P_contra, rng: Rng) -> Iterator[State]:
        """One particle of each row, at the same level of the weights' distribution throughout."""
        level = rng.uniform(1)
        for x, x0, log_w in self.clouds(m, prior, rng):
            i = choose(log_w, level)
            yield State(take(x, i)[:, 0], take(x0, i)[:, 0])

    @final
    @torch.no_grad()
    def cloud(self, m: M_contra, prior: P_contra, rng: Rng) -> Tensor:
        """All particles of the last cloud, equally weighted, (b, k, *s)."""
        x, _, log_w = deque(self.clouds(m, prior, rng), maxlen=1)[0]
        return take(x, systematic(log_w, rng.uniform(1)))
