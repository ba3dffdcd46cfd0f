r"""Total variation: the prior density :math:`p(x) \propto \exp(-\lambda \, \mathrm{TV}(x))`.

L. I. Rudin, S. Osher and E. Fatemi, *Nonlinear total variation based noise removal algorithms*, Physica D 60,
1992 (the ROF model); A. Chambolle, *An algorithm for total variation minimization and applications*, J. Math.
Imaging Vis. 20, 2004 (the dual); A. Beck and M. Teboulle, *Fast gradient-based algorithms for constrained total
variation image denoising and deblurring problems*, IEEE Trans. Image Process. 18, 2009 (FGP, its acceleration).
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import pad

from scoreatlas.linalg import dot


@final
@dataclass(frozen=True)
class TotalVariation:
    r"""lambda TV(x), the sum over pixels of the length of the gradient of an image (b, c, h, w).

    Forward differences, none across the border (Neumann). Channels are one vector in each pixel, so that a
    complex image held as two channels has the total variation of its complex gradient:

    .. math:: \mathrm{TV}(x) = \sum_{ij} \Big( \sum_c (\partial_1 x_c)_{ij}^2 + (\partial_2 x_c)_{ij}^2 \Big)^{1/2}
       \quad\text{or}\quad \sum_{ij} \sum_d \Big( \sum_c (\partial_d x_c)_{ij}^2 \Big)^{1/2}

    Args:
        weight: lambda > 0, in units of 1 / data: the mean length of the gradient of an image that the prior
            expects is of order 1 / lambda. It knows nothing of the noise; the weight that textbooks put in
            front of TV beside ``1/2 |A x - y|^2`` is ``lambda sigma_y^2``.
        isotropic: the first of the two definitions; the second does not care for rotations by 45 degrees.

    Raises:
        ValueError: ``weight`` is not positive and finite.
    """

    weight: float
    isotropic: bool = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"the weight of a total variation prior must be finite and > 0, got {self.weight}")

    @staticmethod
    def gradient(x: Tensor) -> Tensor:
        """Forward differences (b, 2, c, h, w) of images (b, c, h, w), down and to the right; 0 at the far border."""
        down = torch.diff(x, dim=-2, append=x[..., -1:, :])
        right = torch.diff(x, dim=-1, append=x[..., -1:])
        return torch.stack([down, right], 1)

    @staticmethod
    def divergence(p: Tensor) -> Tensor:
        """Minus the adjoint of :meth:`gradient`, (b, 2, c, h, w) to (b, c, h, w); the far border is ignored."""
        down = torch.diff(pad(p[:, 0, ..., :-1, :], (0, 0, 1, 1)), dim=-2)
        right = torch.diff(pad(p[:, 1, ..., :-1], (1, 1)), dim=-1)
        return down + right

    def length(self, p: Tensor) -> Tensor:
        """Lengths of the vectors of a field (b, 2, c, h, w): (b, 1, 1, h, w), or (b, 2, 1, h, w) if anisotropic."""
        return torch.linalg.vector_norm(p, dim=(1, 2) if self.isotropic else 2, keepdim=True)

    def value(self, x: Tensor) -> Tensor:
        """lambda TV(x) of each row, (b,)."""
        return self.weight * self.length(self.gradient(x)).flatten(1).sum(1)

    def project(self, p: Tensor, scale: float = 1.0) -> Tensor:
        """Nearest field (b, 2, c, h, w) whose vectors are no longer than ``scale`` * lambda."""
        return p / (self.length(p) / (scale * self.weight)).clamp_min(1)

    def prox(self, y: Tensor, step: float, iterations: int = 200) -> Tensor:
        r"""argmin_x 1/2 \|x - y\|^2 + step * lambda TV(x), (b, c, h, w): the ROF model.

        With ``step`` = sigma^2 it is the MAP estimate of an image seen with white noise of standard deviation
        sigma. Its distance to the true minimiser is at most the square root of twice the :meth:`gap`.
        """
        return y + self.divergence(self.dual(y, step, iterations))

    def dual(self, y: Tensor, step: float, iterations: int = 200) -> Tensor:
        r"""The field p (b, 2, c, h, w) with \|p\| <= step * lambda for which y + div p is shortest (Chambolle's dual).

        Fast gradient projection (Beck & Teboulle, 2009, algorithm FGP without the box), which needs
        O(1 / sqrt(gap)) iterations. The step 1/8 is theirs: ||div||^2 < 8 on any grid.
        """
        p = r = torch.zeros_like(self.gradient(y))
        t = 1.0
        for _ in range(iterations):
            p, previous = self.project(r + self.gradient(y + self.divergence(r)) / 8, step), p
            t, last = (1 + math.sqrt(1 + 4 * t**2)) / 2, t
            r = p + (last - 1) / t * (p - previous)
        return p

    def gap(self, y: Tensor, p: Tensor, step: float) -> Tensor:
        r"""Duality gap (b,) of x = y + div p in :meth:`prox`: bounds the excess of the objective from above.

        step * lambda TV(x) + <x, div p>. The objective is strongly convex, so \|x - x*\|^2 <= 2 gap.
        """
        div = self.divergence(p)
        x = y + div
        return step * self.value(x) + dot(x, div)
