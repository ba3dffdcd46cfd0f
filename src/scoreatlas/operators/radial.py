r"""Radial sampling of k-space, off the grid: an exact non-uniform Fourier transform."""

import math
from typing import final

import torch
from torch import Tensor

from scoreatlas.operators.base import Linear
from scoreatlas.operators.mri import as_channels, as_complex


@final
class RadialMRI(Linear):
    r"""Spokes through the centre of k-space, complex image as two channels (2, h, w): y complex (b, m).

    .. math:: y_j = \frac{1}{\sqrt{h w}} \sum_{p, q} x_{pq} \, e^{-i (\kappa_j (p - \bar p) + \lambda_j (q - \bar q))}

    at frequencies (kappa, lambda) along ``spokes`` diameters of ``readout`` points each, with the origin at pixel
    (h // 2, w // 2). Summed as it stands, one exponential an axis, with no gridding and no approximation; its cost is
    m h w, so it is for small images. By the projection-slice theorem a spoke is the Fourier transform of a view of
    tomography.

    Args:
        shape: (h, w).
        spokes: number of diameters, equally spaced in angle.
        readout: samples of a diameter, which is as long as k-space is wide. The default, max(h, w), puts them as far
            apart as the points of the Cartesian grid.
        dtype: real dtype of the images.

    Raises:
        ValueError: no spoke or no sample.
    """

    def __init__(
        self, shape: tuple[int, int], spokes: int, readout: int | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        h, w = shape
        readout = max(h, w) if readout is None else readout
        if spokes < 1 or readout < 1:
            raise ValueError(f"at least one spoke and one sample are needed, got {spokes} and {readout}")
        self.shape = (2, h, w)
        r = 2 * math.pi * (torch.arange(readout, dtype=torch.float64) / readout - 0.5)  # radians per pixel
        a = math.pi * torch.arange(spokes, dtype=torch.float64) / spokes
        self.frequencies = torch.stack([torch.outer(a.sin(), r), torch.outer(a.cos(), r)], -1).flatten(0, 1)
        down, right = (torch.arange(n, dtype=torch.float64) - n // 2 for n in (h, w))
        one = torch.ones((), dtype=torch.float64)
        self._down = torch.polar(one / math.sqrt(h), -self.frequencies[:, :1] * down).to(dtype.to_complex())
        self._right = torch.polar(one / math.sqrt(w), -self.frequencies[:, 1:] * right).to(dtype.to_complex())

    def __call__(self, x: Tensor) -> Tensor:
        return ((self._down @ as_complex(x)) * self._right).sum(-1)

    def adjoint(self, y: Tensor) -> Tensor:
        return as_channels(self._down.mH @ (y[..., None] * self._right.conj()))
