"""What was measured: data, operator and noise, which together are the likelihood."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar, final

from torch import Tensor

from scoreatlas.operators.base import Operator, real_rows
from scoreatlas.rng import Rng

O_co = TypeVar("O_co", bound=Operator, covariant=True)


class Noise(ABC):
    """A noise model p(y | clean data)."""

    @abstractmethod
    def sample(self, clean: Tensor, rng: Rng) -> Tensor:
        """Noisy data of the shape of ``clean`` (b, *m)."""

    @abstractmethod
    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        """log p(y | clean) of each row, shape (b,)."""


N_co = TypeVar("N_co", bound=Noise, covariant=True)


@final
@dataclass(frozen=True)
class Gaussian(Noise):
    """Additive white Gaussian noise.

    Args:
        std: sigma_y in data units (images are in [-1, 1]); for complex data, of the real and of
            the imaginary part each. 0 means noise-free data.

    Raises:
        ValueError: ``std`` is negative or not finite.
    """

    std: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.std) and self.std >= 0):
            raise ValueError(f"noise std must be finite and >= 0, got {self.std}")

    def sample(self, clean: Tensor, rng: Rng) -> Tensor:
        return clean + self.std * rng.normal_like(clean)

    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        r = real_rows(y - clean)
        return -0.5 * (r / self.std).square().sum(1) - r.shape[1] * math.log(self.std * math.sqrt(2 * math.pi))


@final
@dataclass(frozen=True, eq=False)
class Measurement(Generic[O_co, N_co]):
    """Data, operator and noise: the likelihood p(y | x).

    Attributes:
        y: data (b, *m), one row per problem.
        A: forward operator, shared by the rows.
        noise: noise model.
    """

    y: Tensor
    A: O_co
    noise: N_co

    def log_likelihood(self, x: Tensor) -> Tensor:
        """log p(y | x) of each row, (b,), for images (b, *s)."""
        return self.noise.log_prob(self.y, self.A(x))

    def repeat(self, n: int) -> "Measurement[O_co, N_co]":
        """The same problems with each row repeated ``n`` times: n samples each, with ``Rng(seeds, rows=n)``."""
        return Measurement(self.y.repeat_interleave(n, 0), self.A, self.noise)


def simulate(x: Tensor, A: Operator, noise: Noise, rng: Rng) -> Measurement[Operator, Noise]:
    """Measure images (b, *s): y = A(x) plus noise drawn from ``rng``."""
    return Measurement(noise.sample(A(x), rng), A, noise)
