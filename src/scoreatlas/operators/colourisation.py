"""Colourisation: the instrument averages the colour channels."""

import math
from typing import final

import torch
from torch import Tensor

from scoreatlas.operators.base import Diagonalised


@final
class Colourisation(Diagonalised):
    r"""y = mean of the channels, (b, 1, h, w).

    The rows of A have disjoint supports, so A A^T = I / c and the one non-zero singular value is
    :math:`1 / \sqrt c`. V is, in each pixel, the Householder reflection that takes the first axis to the grey axis.

    Colour television and JPEG weigh the channels 0.299, 0.587, 0.114 instead; the mean is the convention of DDRM.

    Args:
        shape: (c, h, w) of one image, c > 1.
        dtype: real dtype of the images.

    Raises:
        ValueError: there is one channel only, and nothing to lose.
    """

    def __init__(self, shape: tuple[int, int, int], dtype: torch.dtype = torch.float32) -> None:
        c, h, w = shape
        if c < 2:
            raise ValueError(f"colour needs at least 2 channels, got {c}")
        self.shape = (c, h, w)
        mirror = torch.full((c,), -1 / math.sqrt(c), dtype=torch.float64)
        mirror[0] += 1
        basis = torch.eye(c, dtype=torch.float64) - 2 * torch.outer(mirror, mirror) / mirror.square().sum()
        self._basis = basis.to(dtype)  # symmetric; its first row is constant
        self._values = torch.zeros(c, 1, 1, dtype=dtype)
        self._values[0] = 1 / math.sqrt(c)

    @property
    def singular_values(self) -> Tensor:
        return self._values

    def vt(self, x: Tensor) -> Tensor:
        return torch.einsum("ij,bjhw->bihw", self._basis, x)

    def v(self, z: Tensor) -> Tensor:
        return self.vt(z)  # a reflection is its own inverse

    def u(self, z: Tensor) -> Tensor:
        return z[:, :1]

    def ut(self, y: Tensor) -> Tensor:
        return torch.nn.functional.pad(y, (0, 0, 0, 0, 0, self.shape[0] - 1))

    def __call__(self, x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True)

    def adjoint(self, y: Tensor) -> Tensor:
        c = self.shape[0]
        return y.expand(-1, c, -1, -1) / c
