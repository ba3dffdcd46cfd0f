"""The best linear estimate: the posterior mean of a Gaussian prior.

N. Wiener, *Extrapolation, interpolation, and smoothing of stationary time series*, 1949 (filtering a stationary
signal); the same formula for any linear operator is the Gauss-Markov estimate.

Deviations:
    - Not only for convolutions: what is diagonal in Fourier space is filtered, everything else goes through
      conjugate gradients.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Linear
from scoreatlas.priors.gaussian_field import GaussianField
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class Wiener(Solver[Measurement[Linear, Gaussian], GaussianField]):
    """E[x | y] under a Gaussian random field; the linear estimate of least mean squared error.

    Exactness card: ``book/cards/wiener``.

    Args:
        iterations: of conjugate gradients, unused where the operator is diagonal in Fourier space.
    """

    iterations: int = 400

    def iterate(self, m: Measurement[Linear, Gaussian], prior: GaussianField, rng: Rng) -> Iterator[State]:
        x = prior.posterior(m, self.iterations).mean
        yield State(x, x)
