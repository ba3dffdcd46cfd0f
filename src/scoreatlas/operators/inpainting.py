"""Inpainting: some pixels are seen, the others are not."""

import math
from typing import final

import torch
from torch import Tensor

from scoreatlas.operators.base import Diagonalised
from scoreatlas.rng import Rng


@final
class Inpainting(Diagonalised):
    """y = the seen pixels, as a vector (b, m): there is no datum, and no noise, where nothing was measured.

    V is the identity, the singular values are the mask. The adjoint puts the pixels back and
    leaves 0 elsewhere.

    Args:
        mask: boolean, of the shape of one image (c, h, w); True where the pixel is seen.
        dtype: real dtype of the images.

    Raises:
        ValueError: the mask is not boolean, or sees nothing.
    """

    def __init__(self, mask: Tensor, dtype: torch.dtype = torch.float32) -> None:
        if mask.dtype != torch.bool:
            raise ValueError(f"mask must be boolean (True = seen), got {mask.dtype}")
        if not bool(mask.any()):
            raise ValueError("the mask sees no pixel at all")
        self.shape = tuple(mask.shape)
        self.mask = mask
        self._values = mask.to(dtype)
        self._index = mask.flatten().nonzero().squeeze(1)  # indices, not a boolean mask: no synchronisation

    @property
    def singular_values(self) -> Tensor:
        return self._values

    def v(self, z: Tensor) -> Tensor:
        return z

    def vt(self, x: Tensor) -> Tensor:
        return x

    def u(self, z: Tensor) -> Tensor:
        return z.flatten(1).index_select(1, self._index)

    def ut(self, y: Tensor) -> Tensor:
        flat = y.new_zeros(y.shape[0], math.prod(self.shape))
        return flat.index_copy(1, self._index, y).reshape(-1, *self.shape)

    def __call__(self, x: Tensor) -> Tensor:
        return self.u(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.ut(y)


def box_mask(shape: tuple[int, int, int], top: int, left: int, height: int, width: int) -> Tensor:
    """Mask (c, h, w) that misses one box.

    Raises:
        ValueError: the box leaves the image.
    """
    _, h, w = shape
    if not (0 <= top and 0 <= left and top + height <= h and left + width <= w):
        raise ValueError(f"box {height}x{width} at ({top}, {left}) leaves the {h}x{w} image")
    mask = torch.ones(shape, dtype=torch.bool)
    mask[:, top : top + height, left : left + width] = False
    return mask


def random_mask(shape: tuple[int, int, int], seen: float, rng: Rng) -> Tensor:
    """Mask (c, h, w) that sees exactly ``round(seen * h * w)`` pixels, all channels of each.

    Raises:
        ValueError: ``seen`` is not in (0, 1].
    """
    if not 0 < seen <= 1:
        raise ValueError(f"the share of seen pixels must lie in (0, 1], got {seen}")
    c, h, w = shape
    order = rng.uniform(h * w)[0].argsort()
    mask = torch.zeros(h * w, dtype=torch.bool)
    mask[order[: round(seen * h * w)].cpu()] = True
    return mask.reshape(1, h, w).expand(c, h, w).clone()
