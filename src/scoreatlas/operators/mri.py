"""Cartesian magnetic resonance imaging: undersampled Fourier transforms of a complex image.

A complex image is two real channels (real, imaginary), (b, 2, h, w). Transforms are orthonormal
with the zero frequency at index 0; data are complex.
"""

from typing import final

import torch
from torch import Tensor
from torch.fft import fft2, ifft2

from scoreatlas.operators.base import Diagonalised, Linear
from scoreatlas.rng import Rng


def as_complex(x: Tensor) -> Tensor:
    """Two real channels (b, 2, h, w) to complex (b, h, w)."""
    return torch.complex(x[:, 0], x[:, 1])


def as_channels(z: Tensor) -> Tensor:
    """Complex (b, h, w) to two real channels (b, 2, h, w)."""
    return torch.stack([z.real, z.imag], 1)


class _Sampling:
    """Gathers and scatters the sampled positions of k-space."""

    def __init__(self, mask: Tensor) -> None:
        if mask.dtype != torch.bool or mask.ndim != 2:
            raise ValueError(f"mask must be boolean (h, w), got {mask.dtype} {tuple(mask.shape)}")
        if not bool(mask.any()):
            raise ValueError("the mask samples no point of k-space")
        self.mask = mask
        self._index = mask.flatten().nonzero().squeeze(1)

    def _gather(self, k: Tensor) -> Tensor:
        return k.flatten(-2).index_select(-1, self._index)

    def _scatter(self, y: Tensor) -> Tensor:
        flat = y.new_zeros(*y.shape[:-1], self.mask.numel())
        return flat.index_copy(-1, self._index, y).reshape(*y.shape[:-1], *self.mask.shape)


@final
class CartesianMRI(_Sampling, Diagonalised):
    """Single coil: y = M F x, complex (b, m). Singular values are 0 and 1.

    Args:
        mask: (h, w) boolean, True where k-space is sampled, zero frequency at [0, 0].
        dtype: real dtype of the images.

    Raises:
        ValueError: the mask is not boolean (h, w) or samples nothing.
    """

    def __init__(self, mask: Tensor, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(mask)
        self.shape = (2, *mask.shape)
        self._values = mask.to(dtype)

    @property
    def singular_values(self) -> Tensor:
        return self._values

    def vt(self, x: Tensor) -> Tensor:
        return fft2(as_complex(x), norm="ortho")

    def v(self, z: Tensor) -> Tensor:
        return as_channels(ifft2(z, norm="ortho"))

    def u(self, z: Tensor) -> Tensor:
        return self._gather(z)

    def ut(self, y: Tensor) -> Tensor:
        return self._scatter(y)

    def __call__(self, x: Tensor) -> Tensor:
        return self._gather(self.vt(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.v(self._scatter(y))


@final
class MultiCoilMRI(_Sampling, Linear):
    """Several coils: y_c = M F (S_c x), complex (b, coils, m).

    No singular value decomposition is at hand: the sensitivities mix with the transform.

    Args:
        coils: (coils, h, w) complex sensitivities.
        mask: (h, w) boolean, True where k-space is sampled.

    Raises:
        ValueError: shapes disagree or the mask samples nothing.
    """

    def __init__(self, coils: Tensor, mask: Tensor) -> None:
        super().__init__(mask)
        if not coils.is_complex() or coils.shape[1:] != mask.shape:
            raise ValueError(
                f"coils must be complex (coils, {', '.join(map(str, mask.shape))}), got {tuple(coils.shape)}"
            )
        self.shape = (2, *mask.shape)
        self._coils = coils

    def __call__(self, x: Tensor) -> Tensor:
        return self._gather(fft2(self._coils * as_complex(x)[:, None], norm="ortho"))

    def adjoint(self, y: Tensor) -> Tensor:
        images = ifft2(self._scatter(y), norm="ortho")
        return as_channels((self._coils.conj() * images).sum(1))


def cartesian_mask(shape: tuple[int, int], acceleration: float, centre: float, rng: Rng) -> Tensor:
    """Random phase-encoding lines (columns) with a fully sampled centre, (h, w), zero frequency at [0, 0].

    Args:
        shape: (h, w).
        acceleration: total columns over sampled columns, >= 1.
        centre: share of columns sampled around the zero frequency (autocalibration), 0.08 is usual.
        rng: draws the other columns; only its first problem is used.

    Raises:
        ValueError: the centre alone exceeds the budget.
    """
    h, w = shape
    budget, middle = round(w / acceleration), round(w * centre)
    if not 1 <= budget <= w or middle > budget:
        raise ValueError(f"acceleration {acceleration} leaves {budget} of {w} columns; the centre alone takes {middle}")
    distance = torch.fft.fftfreq(w).abs()
    priority = rng.uniform(w)[0].cpu() + 1.0
    priority[distance.argsort(stable=True)[:middle]] = 0.0
    mask = torch.zeros(w, dtype=torch.bool)
    mask[priority.argsort()[:budget]] = True
    return mask.expand(h, w).clone()
