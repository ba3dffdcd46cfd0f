r"""Blind problems with an exact answer: a Gaussian field seen through a convolution that is known up to a few numbers.

In the Fourier basis a convolution multiplies and a stationary field is independent from frequency to frequency, so
the image can be integrated out: :math:`p(y \mid \varphi)` is a product over frequencies, and p(phi | y) is a sum over a
grid of phi.
"""

import math
from typing import final

import torch
from torch import Tensor
from torch.fft import fft2, ifft2

from scoreatlas.blind import BlindMeasurement
from scoreatlas.measurement import Gaussian
from scoreatlas.operators.family import Family
from scoreatlas.priors.gaussian_field import GaussianField
from scoreatlas.rng import Rng


@final
class BlindFieldPosterior:
    r"""p(x, phi | y) of each row, on a grid of phi.

    With :math:`A_\varphi x = F^H \kappa F x + c`, spectrum S and r the transform of :math:`y - A_\varphi m`,

    .. math::
       \log p(y \mid \varphi) = -\frac12 \sum_k \Big[
         \frac{|r_k|^2}{|\kappa_k|^2 S_k + \sigma_y^2} + \log 2 \pi (|\kappa_k|^2 S_k + \sigma_y^2) \Big].

    The first term alone is what is left when the image is maximised over instead, :attr:`log_profile`.

    Args:
        field: the prior of the image.
        m: data (b, c, h, w), a family of convolutions (plus constants), noise. The noise may be given as one standard
            deviation for each point of the grid by ``stds``.
        grid: (g, *p), the values of phi.
        log_prior: log p(phi) on the grid up to a constant, (g,).
        stds: sigma_y at the points of the grid, (g,); that of the measurement by default.

    Raises:
        ValueError: noise-free data.

    Attributes:
        log_evidence: log p(y | phi), (b, g).
        log_profile: log of max_x p(y, x | phi), (b, g), up to a constant in phi.
        log_weights: log p(phi | y), (b, g), normalised over the grid.
    """

    def __init__(
        self,
        field: GaussianField,
        m: BlindMeasurement[Family, Gaussian],
        grid: Tensor,
        log_prior: Tensor,
        stds: Tensor | None = None,
    ) -> None:
        if m.noise.std == 0:
            raise ValueError("the exact posterior needs noise: sigma_y is 0")
        self.field, self.m, self.grid = field, m, grid
        A, zero = m.family.at(grid), torch.zeros(len(grid), *field.shape, dtype=grid.dtype, device=grid.device)
        delta = zero.clone()
        delta[..., 0, 0] = 1
        constant = A(zero)
        self._kappa = fft2(A(delta) - constant)  # (g, c, h, w)
        self._mean = A(field.mean.expand_as(zero))
        s = torch.full((len(grid),), m.noise.std, dtype=grid.dtype, device=grid.device) if stds is None else stds
        self._variance = s.square().reshape(-1, 1, 1, 1)
        total = self._kappa.abs().square() * field.spectrum + self._variance
        volume = (2 * math.pi * total).log().flatten(1).sum(1)
        noise = (2 * math.pi * self._variance).log().flatten(1).sum(1) * math.prod(field.shape)
        square = torch.stack(
            [(fft2(y - self._mean, norm="ortho").abs().square() / total).flatten(1).sum(1) for y in m.y]
        )
        self.log_evidence = -0.5 * (square + volume)
        self.log_profile = -0.5 * (square + noise)
        self.log_weights = (self.log_evidence + log_prior).log_softmax(1)

    def mean(self, values: Tensor) -> Tensor:
        """Posterior mean (b, *q) of values (g, *q) given on the grid."""
        return torch.tensordot(self.log_weights.exp(), values, 1)

    def sample(self, rng: Rng) -> tuple[Tensor, Tensor]:
        """Draws of images (b, c, h, w) and parameters (b, *p): phi on the grid, then the image by Matheron's rule."""
        i = rng.choice(self.log_weights.exp())
        kappa, mean, variance = self._kappa[i], self._mean[i], self._variance[i]
        x = self.field.sample(rng)
        seen = ifft2(kappa * fft2(x - self.field.mean)).real + mean + variance.sqrt() * rng.normal(*self.field.shape)
        gain = kappa.conj() * self.field.spectrum / (kappa.abs().square() * self.field.spectrum + variance)
        return x + ifft2(gain * fft2(self.m.y - seen)).real, self.grid[i]
