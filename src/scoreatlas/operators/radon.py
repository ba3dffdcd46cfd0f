r"""Parallel-beam tomography: line integrals along parallel rays, as a sparse matrix with its exact transpose.

P. M. Joseph, *An improved algorithm for reprojecting rays through pixel images*, IEEE Trans. Med. Imaging 1, 1982: a
ray visits each row (or column, whichever it crosses more steeply) once and reads it by linear interpolation.

**Units.** Lengths are in sides of the image, the longer of the two: a pixel is :math:`\delta = 1 / \max(h, w)` wide, as
is a detector bin. The line integral of the constant image 1 along a row is 1, so data of images in [-1, 1] are of order
one, and :math:`|A|^2` is near (number of views) / max(h, w).

**Geometry.** The view at angle theta integrates along the lines :math:`x \cos\theta + y \sin\theta = s`, with x to the
right and y up, both from the centre of the image, as in ``skimage.transform.radon``. The image is 0 outside its frame.
"""

import math
import warnings
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from scoreatlas.operators.base import Linear


@final
class Radon(Linear):
    r"""y[theta, s] = integral of x along the line (theta, s), real (b, views, bins).

    Sparse views, limited angle: see :func:`even_angles`. No singular value decomposition is at hand.

    Args:
        shape: (1, h, w) of one image.
        angles: of the views, in degrees.
        bins: of the detector, each as wide as a pixel, centred; by default as many as cover the diagonal.
        dtype: real dtype of the images.

    Raises:
        ValueError: the image has more than one channel, or there is no view or no bin.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        angles: Sequence[float],
        bins: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        c, h, w = shape
        if c != 1:
            raise ValueError(f"tomography is of one channel, got {c}")
        bins = math.ceil(math.hypot(h, w)) if bins is None else bins
        if len(angles) == 0 or bins < 1:
            raise ValueError(f"at least one view and one bin are needed, got {len(angles)} and {bins}")
        self.shape, self.angles, self.bins = (1, h, w), tuple(float(a) for a in angles), bins
        parts = [_view(math.radians(a), h, w, bins) for a in self.angles]
        rays = torch.cat([i * bins + ray for i, (ray, _, _) in enumerate(parts)])
        pixels, values = (torch.cat([part[k] for part in parts]) for k in (1, 2))
        m, n = len(parts) * bins, h * w
        self._size = (m, n)
        self._rows, self._columns, self._values = _compress(rays, pixels, values.to(dtype), m, n)
        self._trows, self._tcolumns, self._tvalues = _compress(pixels, rays, values.to(dtype), n, m)

    @property
    def pixel(self) -> float:
        """Width of a pixel and of a bin, in sides of the image."""
        return 1 / max(self.shape[1:])

    @property
    def positions(self) -> Tensor:
        """Centres of the bins (bins,), in sides of the image."""
        return (torch.arange(self.bins, dtype=torch.float64) - (self.bins - 1) / 2) * self.pixel

    def __call__(self, x: Tensor) -> Tensor:
        sums = _sparse(self._rows, self._columns, self._values, self._size) @ x.flatten(1).T
        return sums.T.reshape(-1, len(self.angles), self.bins)

    def adjoint(self, y: Tensor) -> Tensor:
        """Back-projection, unfiltered: the transpose of the matrix, entry for entry."""
        sums = _sparse(self._trows, self._tcolumns, self._tvalues, self._size[::-1]) @ y.flatten(1).T
        return sums.T.reshape(-1, *self.shape)


def even_angles(views: int, first: float = 0.0, last: float = 180.0) -> tuple[float, ...]:
    """Equally spaced angles in [first, last), degrees: few views, or a limited angle if last - first < 180.

    Raises:
        ValueError: ``views`` below 1.
    """
    if views < 1:
        raise ValueError(f"at least one view is needed, got {views}")
    return tuple(first + (last - first) * i / views for i in range(views))


def _view(theta: float, h: int, w: int, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Entries of one view: ray, pixel, and length times interpolation weight."""
    c, s = math.cos(theta), math.sin(theta)
    place = torch.arange(bins, dtype=torch.float64) - (bins - 1) / 2  # s of the rays, in pixels
    steep = abs(c) >= abs(s)  # the ray runs more down than across: one reading per row, else per column
    lines, across = (h, w) if steep else (w, h)
    line = torch.arange(lines, dtype=torch.float64) - (lines - 1) / 2
    # y = -line: x cos - line sin = s on steep rays; across a flat ray, row = (x cos - s) / sin.
    where = (place[:, None] + line * s) / c if steep else (line * c - place[:, None]) / s
    where = where + (across - 1) / 2
    low = where.floor()
    length = 1 / (max(h, w) * max(abs(c), abs(s)))
    ray = torch.arange(bins)[:, None].expand(bins, lines)
    entries = []
    for cell, weight in ((low.long(), 1 - (where - low)), (low.long() + 1, where - low)):
        inside = (cell >= 0) & (cell < across) & (weight > 1e-12)
        along = torch.arange(lines).expand(bins, lines)
        pixel = along * w + cell if steep else cell * w + along
        entries.append((ray[inside], pixel[inside], length * weight[inside]))
    first, second = entries
    return (torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]]), torch.cat([first[2], second[2]]))


def _compress(rows: Tensor, columns: Tensor, values: Tensor, m: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Compressed sparse rows of an (m, n) matrix without repeated entries: row pointers, columns, values."""
    order = (rows * n + columns).argsort()
    pointers = torch.cat([rows.new_zeros(1), torch.bincount(rows, minlength=m).cumsum(0)])
    return pointers, columns[order], values[order]


def _sparse(rows: Tensor, columns: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(rows, columns, values, size, check_invariants=False)
