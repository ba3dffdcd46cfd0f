r"""JPEG: the instrument rounds the cosine coefficients of 8 x 8 blocks.

ITU-T T.81 (1992), annexes A and K; quality as in the Independent JPEG Group's library; colours as in JFIF.

Deviations:
    - Colour is not subsampled (4:4:4), no entropy coding is done, since it loses nothing, and the decoded image is
      neither rounded to 8 bits nor clipped to the range.
    - The derivative is not the true one, see :class:`JPEG`.
"""

import math
from typing import final

import torch
from torch import Tensor

from scoreatlas.operators.base import Operator

_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), *((99,) * 8,) * 4,
)  # fmt: skip


@final
class JPEG(Operator):
    r"""y = the decoded image, (b, c, h, w): :math:`T^{-1} q \, \mathrm{round}(T x / q)`, non-linear.

    T maps an image to grey levels and Y, C_b, C_r, and these to the orthonormal cosine coefficients of 8 x 8 blocks;
    q is the step of each coefficient. Encoding twice loses no more than once.

    Rounding has the derivative 0 almost everywhere. The one used here is *straight-through*: round counts as
    the identity, so that :math:`J^T v = v`. It is the derivative of the average of the operator over a random
    shift of the grid of each coefficient (dither), uniform over one step.

    Args:
        shape: (c, h, w), one channel (grey) or three (red, green, blue); h and w multiples of 8.
        quality: 1 ... 100; 50 means the tables of the standard.
        dtype: real dtype of the images.

    Raises:
        ValueError: the shape or the quality is not one of these.
    """

    def __init__(self, shape: tuple[int, int, int], quality: int, dtype: torch.dtype = torch.float32) -> None:
        c, h, w = shape
        if c not in (1, 3) or h % 8 or w % 8:
            raise ValueError(f"JPEG needs 1 or 3 channels and sides that are multiples of 8, got {list(shape)}")
        self.shape, self.quality = (c, h, w), quality
        tables = torch.stack([quantisation_table(quality, chroma) for chroma in (False, True, True)[:c]])
        self._steps = tables[:, None, :, None].to(dtype)  # (c, 1, 8, 1, 8), against blocks (c, h / 8, 8, w / 8, 8)
        self._basis = _cosine_basis().to(dtype)
        colour = _to_ycc() if c == 3 else torch.ones(1, 1, dtype=torch.float64)
        self._colour, self._back = colour.to(dtype), torch.linalg.inv(colour).to(dtype)

    def coefficients(self, x: Tensor) -> Tensor:
        """T x / q: cosine coefficients in units of their steps, (b, c, h / 8, 8, w / 8, 8)."""
        c, h, w = self.shape
        levels = torch.einsum("ij,bjhw->bihw", self._colour, 127.5 * (x + 1) - 128)
        blocks = levels.reshape(-1, c, h // 8, 8, w // 8, 8)
        return torch.einsum("ui,vj,bcpiqj->bcpuqv", self._basis, self._basis, blocks) / self._steps

    def decode(self, z: Tensor) -> Tensor:
        """The image (b, c, h, w) of coefficients in units of their steps."""
        blocks = torch.einsum("ui,vj,bcpuqv->bcpiqj", self._basis, self._basis, z * self._steps)
        levels = torch.einsum("ij,bjhw->bihw", self._back, blocks.reshape(-1, *self.shape))
        return (levels + 128) / 127.5 - 1

    def __call__(self, x: Tensor) -> Tensor:
        z = self.coefficients(x)
        return self.decode(z + (z.round() - z).detach())  # rounded, with the derivative of z

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """Straight-through: v."""
        return v


def quantisation_table(quality: int, chroma: bool = False) -> Tensor:
    """Steps (8, 8) of the cosine coefficients in grey levels, zero frequency first, in float64.

    The standard's table times 50 / q for q < 50, times 2 - q / 50 above, rounded, at least 1.

    Raises:
        ValueError: quality outside 1 ... 100.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"JPEG quality must lie in 1 ... 100, got {quality}")
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    table = torch.tensor(_CHROMINANCE if chroma else _LUMINANCE, dtype=torch.float64)
    return ((table * percent + 50) / 100).floor().clamp(1, 255)


def _cosine_basis() -> Tensor:
    """Orthonormal DCT-II matrix (8, 8), rows are basis vectors."""
    k, i = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(8, dtype=torch.float64)[None]
    basis = 0.5 * torch.cos(math.pi * k * (2 * i + 1) / 16)
    basis[0] /= math.sqrt(2)
    return basis


def _to_ycc() -> Tensor:
    """JFIF: grey levels minus 128 of red, green, blue to Y - 128, C_b - 128, C_r - 128."""
    red, green, blue = 0.299, 0.587, 0.114
    luma = torch.tensor([red, green, blue], dtype=torch.float64)
    e = torch.eye(3, dtype=torch.float64)
    return torch.stack([luma, (e[2] - luma) / (2 * (1 - blue)), (e[0] - luma) / (2 * (1 - red))])
