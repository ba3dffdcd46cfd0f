"""Denoising: the instrument adds noise and nothing else."""

from typing import final

import torch
from torch import Tensor

from scoreatlas.operators.base import Diagonalised


@final
class Identity(Diagonalised):
    """y = x. All singular values are 1.

    Args:
        shape: shape of one image.
        dtype: real dtype of the images.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> None:
        self.shape = tuple(shape)
        self._ones = torch.ones(shape, dtype=dtype)

    @property
    def singular_values(self) -> Tensor:
        return self._ones

    def v(self, z: Tensor) -> Tensor:
        return z

    def vt(self, x: Tensor) -> Tensor:
        return x

    def u(self, z: Tensor) -> Tensor:
        return z

    def ut(self, y: Tensor) -> Tensor:
        return y

    def __call__(self, x: Tensor) -> Tensor:
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        return y
