"""Super-resolution: the instrument averages blocks of pixels."""

import math
from typing import final

import torch
from torch import Tensor

from scoreatlas.operators.base import Diagonalised


@final
class BlockAverage(Diagonalised):
    """y = mean of each f x f block, (b, c, h / f, w / f).

    The rows of A have disjoint supports, so A A^T = I / f^2 and the one non-zero singular value is
    1 / f. V is the two-dimensional cosine basis of each block, whose first vector is constant.

    Args:
        shape: (c, h, w) of one image.
        factor: f, which must divide h and w.
        dtype: real dtype of the images.

    Raises:
        ValueError: ``factor`` does not divide the image.
    """

    def __init__(self, shape: tuple[int, int, int], factor: int, dtype: torch.dtype = torch.float32) -> None:
        c, h, w = shape
        if factor < 1 or h % factor or w % factor:
            raise ValueError(f"factor {factor} does not divide an image of {h}x{w}")
        self.shape, self.factor = (c, h, w), factor
        basis = _cosine_basis(factor)
        self._basis = torch.kron(basis, basis).to(dtype)  # (f^2, f^2), row 0 is constant
        values = torch.zeros(factor**2, dtype=dtype)
        values[0] = 1 / factor
        self._values = values

    @property
    def singular_values(self) -> Tensor:
        return self._values

    def vt(self, x: Tensor) -> Tensor:
        b, (c, h, w), f = x.shape[0], self.shape, self.factor
        blocks = x.reshape(b, c, h // f, f, w // f, f).transpose(3, 4).reshape(b, c, h // f, w // f, f * f)
        return blocks @ self._basis.T

    def v(self, z: Tensor) -> Tensor:
        b, (c, h, w), f = z.shape[0], self.shape, self.factor
        blocks = (z @ self._basis).reshape(b, c, h // f, w // f, f, f)
        return blocks.transpose(3, 4).reshape(b, c, h, w)

    def u(self, z: Tensor) -> Tensor:
        return z[..., 0]

    def ut(self, y: Tensor) -> Tensor:
        return torch.nn.functional.pad(y[..., None], (0, self.factor**2 - 1))

    def __call__(self, x: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(x, self.factor)

    def adjoint(self, y: Tensor) -> Tensor:
        f = self.factor
        return y.repeat_interleave(f, -1).repeat_interleave(f, -2) / f**2


def _cosine_basis(n: int) -> Tensor:
    """Orthonormal DCT-II matrix (n, n), rows are basis vectors."""
    k = torch.arange(n, dtype=torch.float64)[:, None]
    i = torch.arange(n, dtype=torch.float64)[None, :]
    basis = math.sqrt(2 / n) * torch.cos(math.pi * k * (2 * i + 1) / (2 * n))
    basis[0] /= math.sqrt(2)
    return basis
