"""Compressed sensing with a fast orthonormal transform."""

from typing import final

import torch
from torch import Tensor

from scoreatlas.operators.base import Diagonalised
from scoreatlas.rng import Rng


@final
class CompressedSensing(Diagonalised):
    """y = a random subset of the Walsh-Hadamard transform of the image with random signs, (b, m).

    V^T = H diag(signs) with H the orthonormal two-dimensional Hadamard matrix (Sylvester order),
    so singular values are 0 and 1 and noise keeps its size. The transform of DDRM's "cs" task
    without its fixed permutation.

    Args:
        shape: (c, h, w), h and w powers of two; channels are measured alike.
        ratio: share of coefficients measured, in (0, 1].
        rng: draws signs and rows; only its first problem is used.
        dtype: real dtype of the images.

    Raises:
        ValueError: a size is not a power of two, or the ratio is outside (0, 1].
    """

    def __init__(self, shape: tuple[int, int, int], ratio: float, rng: Rng, dtype: torch.dtype = torch.float32) -> None:
        c, h, w = shape
        if h & (h - 1) or w & (w - 1):
            raise ValueError(f"image sides must be powers of two, got {h}x{w}")
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio must lie in (0, 1], got {ratio}")
        self.shape = (c, h, w)
        u = rng.uniform(2, h * w)[0].cpu()
        self._signs = torch.where(u[0] < 0.5, -1.0, 1.0).to(dtype).reshape(h, w)
        chosen = u[1].argsort()[: max(1, round(ratio * h * w))].sort().values
        self._index = (torch.arange(c)[:, None] * h * w + chosen).flatten()
        self._values = torch.zeros(c * h * w, dtype=dtype).index_fill(0, self._index, 1).reshape(c, h, w)
        self._left, self._right = (_hadamard(n).to(dtype) for n in (h, w))

    @property
    def singular_values(self) -> Tensor:
        return self._values

    def vt(self, x: Tensor) -> Tensor:
        return self._left @ (self._signs * x) @ self._right  # Hadamard matrices are symmetric

    def v(self, z: Tensor) -> Tensor:
        return self._signs * (self._left @ z @ self._right)

    def u(self, z: Tensor) -> Tensor:
        return z.flatten(1).index_select(1, self._index)

    def ut(self, y: Tensor) -> Tensor:
        flat = y.new_zeros(y.shape[0], self._values.numel())
        return flat.index_copy(1, self._index, y).reshape(-1, *self.shape)

    def __call__(self, x: Tensor) -> Tensor:
        return self.u(self.vt(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.v(self.ut(y))


def _hadamard(n: int) -> Tensor:
    """Orthonormal Hadamard matrix (n, n) for n a power of two."""
    h = torch.ones(1, 1, dtype=torch.float64)
    while len(h) < n:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    return h / n**0.5
