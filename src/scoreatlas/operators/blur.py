"""Blur with periodic boundaries, diagonal in the Fourier basis."""

import math
from typing import final

import torch
from torch import Tensor
from torch.fft import fft2, ifft2, irfft2, rfft2

from scoreatlas.operators.base import Diagonalised


@final
class Blur(Diagonalised):
    """y = k * x, circular convolution of each channel.

    With the orthonormal Fourier basis F, A = F^H diag(kappa) F, so the singular values are
    |kappa|, V = F^H, and U = F^H diag(phase). Coefficients are complex and keep the symmetry of
    the transform of a real image.

    Args:
        kernel: (kh, kw), its centre at (kh // 2, kw // 2); odd sizes have a true centre.
        shape: (c, h, w) of one image, at least as large as the kernel.
        dtype: real dtype of the images.

    Raises:
        ValueError: the kernel is larger than the image.
    """

    def __init__(self, kernel: Tensor, shape: tuple[int, int, int], dtype: torch.dtype = torch.float32) -> None:
        (kh, kw), (_, h, w) = kernel.shape, shape
        if kh > h or kw > w:
            raise ValueError(f"kernel {kh}x{kw} is larger than the image {h}x{w}")
        self.shape, self.kernel = tuple(shape), kernel
        padded = torch.zeros(h, w, dtype=torch.float64)
        padded[:kh, :kw] = kernel
        transfer = fft2(padded.roll((-(kh // 2), -(kw // 2)), (0, 1)))  # kernel centre at the origin
        size = transfer.abs()
        self._values = size.to(dtype)
        self._phase = torch.where(size > 0, transfer / size.clamp_min(1e-300), 0).to(dtype.to_complex())
        self._half = rfft2(padded.roll((-(kh // 2), -(kw // 2)), (0, 1))).to(dtype.to_complex())

    @property
    def singular_values(self) -> Tensor:
        return self._values

    def v(self, z: Tensor) -> Tensor:
        return ifft2(z, norm="ortho").real

    def vt(self, x: Tensor) -> Tensor:
        return fft2(x, norm="ortho")

    def u(self, z: Tensor) -> Tensor:
        return self.v(self._phase * z)

    def ut(self, y: Tensor) -> Tensor:
        return self._phase.conj() * self.vt(y)

    def __call__(self, x: Tensor) -> Tensor:
        return irfft2(self._half * rfft2(x), s=x.shape[-2:])

    def adjoint(self, y: Tensor) -> Tensor:
        return irfft2(self._half.conj() * rfft2(y), s=y.shape[-2:])


def gaussian_kernel(size: int, std: float) -> Tensor:
    """Gaussian kernel (size, size) in pixels, summing to 1."""
    i = torch.arange(size, dtype=torch.float64) - size // 2
    g = (-0.5 * (i / std) ** 2).exp()
    return torch.outer(g, g) / g.sum() ** 2


def motion_kernel(size: int, length: float, angle: float) -> Tensor:
    """Straight motion blur (size, size), summing to 1: a segment of ``length`` pixels at ``angle`` degrees.

    The segment is sampled finely and each sample shared bilinearly between four pixels.

    Raises:
        ValueError: the segment does not fit into the kernel.
    """
    if length > size - 1:
        raise ValueError(f"a segment of {length} pixels does not fit into a kernel of {size}")
    s = torch.linspace(-0.5, 0.5, 64 * size, dtype=torch.float64) * length
    y = size // 2 - s * math.sin(math.radians(angle))
    x = size // 2 + s * math.cos(math.radians(angle))
    kernel = torch.zeros(size, size, dtype=torch.float64)
    for dy in (0, 1):
        for dx in (0, 1):
            weight = (1 - (y.floor() + dy - y).abs()) * (1 - (x.floor() + dx - x).abs())
            rows, columns = (y.floor() + dy).long().clamp(0, size - 1), (x.floor() + dx).long().clamp(0, size - 1)
            kernel.index_put_((rows, columns), weight, accumulate=True)
    return kernel / kernel.sum()
