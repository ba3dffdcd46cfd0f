"""The exact posterior of a Gaussian field as a benchmark wants it: one problem, any number of samples."""

from typing import final

from torch import Tensor

from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Linear
from scoreatlas.priors.gaussian_field import GaussianField
from scoreatlas.rng import Rng


@final
class FieldTruth:
    """p(x | y) of one row under a Gaussian field, by filters or conjugate gradients: no matrix of the image's size.

    Args:
        field: the prior.
        m: a measurement with one row.

    Attributes:
        mean: (1, c, h, w).
    """

    def __init__(self, field: GaussianField, m: Measurement[Linear, Gaussian]) -> None:
        self.field, self.m = field, m
        self.mean = field.posterior(m).mean

    def sample(self, rng: Rng) -> Tensor:
        """Draws (b, c, h, w), one per row of ``rng``."""
        return self.field.posterior(self.m.repeat(rng.batch)).sample(rng)
