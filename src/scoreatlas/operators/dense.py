"""A small matrix as an operator."""

import math
from typing import final

import torch
from torch import Tensor

from scoreatlas.operators.base import Diagonalised


@final
class Dense(Diagonalised):
    """y = M vec(x), (b, m), with the singular value decomposition computed once in double precision.

    Args:
        matrix: M, real (m, n).
        shape: shape of one image, with n numbers.

    Raises:
        ValueError: the matrix does not fit the shape.
    """

    def __init__(self, matrix: Tensor, shape: tuple[int, ...]) -> None:
        if matrix.ndim != 2 or matrix.shape[1] != math.prod(shape):
            raise ValueError(f"matrix {tuple(matrix.shape)} does not act on images of shape {tuple(shape)}")
        self.shape = tuple(shape)
        u, s, vt = torch.linalg.svd(matrix.double(), full_matrices=True)
        rank = len(s)
        self._u, self._vt = u[:, :rank], vt
        self._values = torch.cat([s, s.new_zeros(vt.shape[0] - rank)])
        self._matrix = matrix.double()

    @property
    def singular_values(self) -> Tensor:
        return self._values

    def v(self, z: Tensor) -> Tensor:
        return (z @ self._vt).reshape(-1, *self.shape)

    def vt(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self._vt.T

    def u(self, z: Tensor) -> Tensor:
        return z[:, : self._u.shape[1]] @ self._u.T

    def ut(self, y: Tensor) -> Tensor:
        return torch.nn.functional.pad(y @ self._u, (0, self._vt.shape[0] - self._u.shape[1]))

    def __call__(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self._matrix.T

    def adjoint(self, y: Tensor) -> Tensor:
        return (y @ self._matrix).reshape(-1, *self.shape)
