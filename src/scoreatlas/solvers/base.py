"""A solver maps (measurement, prior, rng) to samples."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar, final

import torch
from torch import Tensor

from scoreatlas.rng import Rng

M_contra = TypeVar("M_contra", contravariant=True)
P_contra = TypeVar("P_contra", contravariant=True)


class State(NamedTuple):
    """What a solver shows after each step.

    Attributes:
        x: the iterate (b, *s).
        x0: the current estimate of the clean image (b, *s).
        phi: operator parameters, for blind solvers.
    """

    x: Tensor
    x0: Tensor
    phi: Tensor | None = None


class Solver(ABC, Generic[M_contra, P_contra]):
    """A method, as a frozen dataclass: fields are hyper-parameters, type arguments are hypotheses.

    ``class DPS(Solver[Measurement[Operator, Gaussian], DiffusionPrior])`` says: any operator,
    Gaussian noise, a diffusion prior. The catalogue reads the class line and refuses the rest.
    """

    @abstractmethod
    def iterate(self, m: M_contra, prior: P_contra, rng: Rng) -> Iterator[State]:
        """The algorithm box of the paper. Callers use :meth:`run`."""

    @final
    @torch.no_grad()
    def run(self, m: M_contra, prior: P_contra, rng: Rng) -> Iterator[State]:
        """Every state, without autograd history. The last ``x`` is the answer."""
        yield from self.iterate(m, prior, rng)

    @final
    def __call__(self, m: M_contra, prior: P_contra, rng: Rng) -> Tensor:
        """The answer (b, *s), one row per row of the measurement."""
        return deque(self.run(m, prior, rng), maxlen=1)[0].x
