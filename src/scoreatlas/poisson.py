r"""Photon noise: counts are Poisson, and what that means where a method wants Gaussian noise.

Anscombe's transform: F. J. Anscombe, *The transformation of Poisson, binomial and negative-binomial data*, Biometrika
35, 1948. The Gaussian with the data as variance: H. Chung et al., DPS (ICLR 2023, arXiv:2209.14687), section 3.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from scoreatlas.measurement import Gaussian, Noise
from scoreatlas.rng import Rng


@final
@dataclass(frozen=True)
class Poisson(Noise):
    """y = Poisson(peak * clean) / peak: photon counts, in units of the clean intensity.

    Mean ``clean``, variance ``clean / peak``.

    Args:
        peak: photons per unit of intensity.

    Raises:
        ValueError: ``peak`` is not positive and finite.
    """

    peak: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.peak) and self.peak > 0):
            raise ValueError(f"peak must be positive and finite, got {self.peak}")

    def sample(self, clean: Tensor, rng: Rng) -> Tensor:
        """Counts by inversion of the distribution function, one uniform number each, over the peak.

        Raises:
            ValueError: a clean intensity is negative.
        """
        if bool((clean < 0).any()):
            raise ValueError("photon noise needs intensities >= 0: a clean datum is negative")
        u = rng.uniform(*clean.shape[1:])
        u = u.double() + torch.finfo(u.dtype).eps / 4  # uniform numbers are multiples of eps / 2: take the middles
        return (counts(u, self.peak * clean.double()) / self.peak).to(clean.dtype)

    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        """Log probability of the counts peak * y, exact, (b,); an expected 0 with a count above 0 gives -infinity.

        Differentiable in ``clean`` where that is positive.
        """
        k, expected = self.peak * y, self.peak * clean
        return (torch.xlogy(k, expected) - expected - torch.lgamma(k + 1)).flatten(1).sum(1)

    def surrogate_log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        """The same of DPS's Gaussian, mean ``clean`` and variance y / peak, per unit of count, (b,).

        Deviations:
            - A datum of no photon counts as one in the variance: the paper's and the official code's 1 / y is infinite.
            - With its normalising constant, so that it can be compared with :meth:`log_prob`.
        """
        k, expected = self.peak * y, self.peak * clean
        variance = k.clamp_min(1)
        return (-0.5 * ((k - expected).square() / variance + (2 * math.pi * variance).log())).flatten(1).sum(1)


def counts(u: Tensor, expected: Tensor) -> Tensor:
    """The smallest k with P(Poisson(expected) <= k) > u, for u in (0, 1), by bisection; all float64.

    P(X <= k) is the regularised incomplete gamma function Q(k + 1, expected).
    """
    low = torch.full_like(expected, -1)  # P(X <= -1) = 0 is never above u
    high = (expected + 12 * expected.sqrt() + 60).ceil()  # P(X > high) < 1e-16
    for _ in range(32):  # a bracket of up to 2^32 counts
        middle = ((low + high) / 2).floor()
        above = torch.special.gammaincc(middle.clamp_min(0) + 1, expected) > u
        above &= middle >= 0
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return high


def anscombe(count: Tensor) -> Tensor:
    """2 sqrt(k + 3/8): a standard deviation of 1 whatever the mean, if that is not below a few counts."""
    return 2 * (count + 3 / 8).sqrt()


def stabilised(y: Tensor, noise: Poisson) -> tuple[Tensor, Gaussian]:
    """Intensities with photon noise as amplitudes with Gaussian noise: sqrt(y + 3 / (8 peak)), std 1 / (2 sqrt(peak)).

    Half of Anscombe's transform of the counts over sqrt(peak). The mean is sqrt(clean + 1 / (8 peak)) to first order,
    so that weak amplitudes come out too large.
    """
    return anscombe(noise.peak * y) / (2 * math.sqrt(noise.peak)), Gaussian(0.5 / math.sqrt(noise.peak))
