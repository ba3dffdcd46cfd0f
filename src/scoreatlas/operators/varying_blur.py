r"""Blur that changes across the image, by a few kernels and smooth weights.

J. G. Nagy and D. P. O'Leary, *Restoring images degraded by spatially variant blur*, SIAM J. Sci. Comput. 19, 1998;
M. Hirsch, S. Sra, B. Schölkopf and S. Harmeling, *Efficient filter flow for space-variant multiframe blind
deconvolution*, CVPR 2010.

Deviations:
    - The weights multiply the scene, before the blur: each *source* point has its own kernel and keeps its energy. With
      weights after the blur each *pixel* would have its own kernel, and that operator would keep grey images grey.
    - One FFT of the whole image for each kernel, where those papers treat overlapping patches.
"""

from typing import final

import torch
from torch import Tensor
from torch.fft import irfft2, rfft2

from scoreatlas.operators.base import Linear
from scoreatlas.operators.blur import Blur


@final
class VaryingBlur(Linear):
    r""":math:`y = \sum_k K_k (w_k \odot x)`, circular convolutions :math:`K_k`, weights :math:`w_k`.

    A point at u is drawn as the kernel :math:`\sum_k w_k(u) k_k`, centred at u. With n kernels it costs n + 1 Fourier
    transforms of an image. Where the weights sum to 1 and the kernels too, no light is lost: :math:`A^T 1 = 1`. A grey
    image does *not* stay exactly grey, :math:`A 1 \neq 1`.

    It is not diagonal in the Fourier basis, whose vectors know of no place, and no fast decomposition is known.

    Args:
        kernels: (n, kh, kw), centres at (kh // 2, kw // 2).
        weights: (n, h, w).
        shape: (c, h, w) of one image.
        dtype: real dtype of the images.

    Raises:
        ValueError: shapes disagree, or a kernel is larger than the image.
    """

    def __init__(
        self, kernels: Tensor, weights: Tensor, shape: tuple[int, int, int], dtype: torch.dtype = torch.float32
    ) -> None:
        c, h, w = shape
        if weights.shape != (kernels.shape[0], h, w):
            raise ValueError(f"{len(kernels)} kernels need weights {(len(kernels), h, w)}, got {tuple(weights.shape)}")
        self.shape = (c, h, w)
        delta = torch.zeros(1, 1, h, w, dtype=torch.float64)
        delta[..., 0, 0] = 1
        points = [Blur(kernel, (1, h, w), torch.float64)(delta)[0, 0] for kernel in kernels]
        self._half = rfft2(torch.stack(points)[:, None]).to(dtype.to_complex())  # (n, 1, h, w // 2 + 1)
        self._weights = weights[:, None].to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        weighed = rfft2(self._weights * x[:, None])  # (b, n, c, h, w // 2 + 1)
        return irfft2((self._half * weighed).sum(1), s=x.shape[-2:])

    def adjoint(self, y: Tensor) -> Tensor:
        back = irfft2(self._half.conj() * rfft2(y)[:, None], s=y.shape[-2:])
        return (self._weights * back).sum(1)


def radial_weights(shape: tuple[int, int], count: int) -> Tensor:
    """Weights (count, h, w) that sum to 1: hat functions of the distance from the centre of the image.

    The first is 1 at the centre, the last in the corners; lenses are sharpest on their axis.

    Raises:
        ValueError: fewer than two weights.
    """
    if count < 2:
        raise ValueError(f"weights that vary need at least 2 kernels, got {count}")
    h, w = shape
    i, j = torch.arange(h, dtype=torch.float64) - (h - 1) / 2, torch.arange(w, dtype=torch.float64) - (w - 1) / 2
    radius = torch.hypot(i[:, None], j)
    at = radius / radius.max() * (count - 1)
    return (1 - (at - torch.arange(count, dtype=torch.float64)[:, None, None]).abs()).clamp_min(0)
