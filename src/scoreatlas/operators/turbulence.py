r"""Imaging through turbulent air: every point is displaced (tilt), then smeared (blur).

S. H. Chan, *Tilt-then-blur or blur-then-tilt? Clarifying the atmospheric turbulence model*, IEEE Signal Process. Lett.
29, 2022, arXiv:2207.06377; the simplified model of H. Chung, J. Kim, S. Kim and J. C. Ye, *Parallel diffusion models of
operator and image for blind inverse problems* (BlindDPS), CVPR 2023, arXiv:2211.10656.

Deviations:
    - One Gaussian for the blur, given by its transfer function, where physics has a random kernel for each point.
    - The borders of tilt and blur are periodic. The official code of BlindDPS samples zeros outside in the tilt
      (``grid_sample``) and pads with zeros in the blur, which in [-1, 1] are grey.
    - The official tilt overwrites the displacement that it is given (``perform_tilt``); ours does not.
"""

from typing import final

import torch
from torch import Tensor
from torch.fft import fftfreq, irfft2, rfft2, rfftfreq

from scoreatlas.operators.base import Linear


class _Sampling:
    """Reads images between their pixels, at u + d(u), and puts values back there."""

    def __init__(self, displacement: Tensor, shape: tuple[int, int, int], cubic: bool) -> None:
        if displacement.shape[-3:] != (2, *shape[1:]) or displacement.ndim not in (3, 4):
            want = f"(2, {shape[1]}, {shape[2]}) or (b, 2, {shape[1]}, {shape[2]})"
            raise ValueError(f"displacements must be {want}, got {tuple(displacement.shape)}")
        self.shape = tuple(shape)
        self.displacement = displacement
        d = displacement if displacement.ndim == 4 else displacement[None]
        _, h, w = shape
        rows, down = _taps(d[:, 0], 0, cubic)
        columns, right = _taps(d[:, 1], 1, cubic)
        index = (rows % h)[:, :, None] * w + (columns % w)[:, None]
        self._index = index.flatten(3).flatten(1, 2)[:, None]  # (b or 1, 1, taps, h w)
        self._weight = (down[:, :, None] * right[:, None]).flatten(3).flatten(1, 2)[:, None]

    def _read(self, x: Tensor) -> Tensor:
        flat, taps = x.flatten(2)[:, :, None], self._index.shape[2]
        index = self._index.expand(*x.shape[:2], -1, -1)
        return (flat.expand(-1, -1, taps, -1).gather(3, index) * self._weight).sum(2).reshape(x.shape)

    def _put(self, y: Tensor) -> Tensor:
        share = (y.flatten(2)[:, :, None] * self._weight).flatten(2)
        index = self._index.expand(*y.shape[:2], -1, -1).flatten(2)
        return torch.zeros_like(y).flatten(2).scatter_add(2, index, share).reshape(y.shape)


@final
class Tilt(_Sampling, Linear):
    """(T x)(u) = x(u + d(u)): an image looked at through moving air, without blur.

    Linear in x, not in d. The adjoint puts each value back to where it was read. It is differentiable in d wherever
    u + d(u) is not exactly on a pixel (``cubic``: everywhere), and a grey image stays as it is.

    Args:
        displacement: d in pixels, down and to the right, (2, h, w), or (b, 2, h, w) with a field for each row.
        shape: (c, h, w) of one image; the border is periodic.
        cubic: read by Keys' cubic convolution (a = -1/2) instead of bilinear interpolation, which blurs more.

    Raises:
        ValueError: shapes disagree.
    """

    def __init__(self, displacement: Tensor, shape: tuple[int, int, int], cubic: bool = False) -> None:
        super().__init__(displacement, shape, cubic)

    def __call__(self, x: Tensor) -> Tensor:
        return self._read(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._put(y)


@final
class Turbulence(_Sampling, Linear):
    r"""y = K T x: tilt, then a Gaussian blur of transfer function :math:`e^{-2 \pi^2 s^2 |f|^2}`.

    Args:
        displacement: d in pixels, (2, h, w) or (b, 2, h, w), see :class:`Tilt`.
        blur: standard deviation s in pixels, () or (b,).
        shape: (c, h, w) of one image; borders are periodic.
        cubic: interpolation of the tilt.
        tilt_first: False is the other order, y = T K x, which warps the kernels too.

    Raises:
        ValueError: shapes disagree.
    """

    def __init__(
        self,
        displacement: Tensor,
        blur: Tensor,
        shape: tuple[int, int, int],
        cubic: bool = False,
        tilt_first: bool = True,
    ) -> None:
        super().__init__(displacement, shape, cubic)
        if blur.ndim > 1:
            raise ValueError(f"the blur must be one number, or one for each row, got shape {tuple(blur.shape)}")
        self.tilt_first = tilt_first
        self._transfer = gaussian_transfer(blur.reshape(-1, 1, 1, 1), shape[1:])

    def __call__(self, x: Tensor) -> Tensor:
        return self._blur(self._read(x)) if self.tilt_first else self._read(self._blur(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self._put(self._blur(y)) if self.tilt_first else self._blur(self._put(y))

    def _blur(self, x: Tensor) -> Tensor:
        """Its own adjoint: the transfer function is real and even."""
        return irfft2(self._transfer * rfft2(x), s=x.shape[-2:])


@final
class Burst(_Sampling, Linear):
    """y_f = K T_f x, (b, frames, c, h, w): frames of one scene, each with its own tilt, all with one blur.

    Args:
        displacement: (frames, 2, h, w) in pixels, see :class:`Tilt`.
        blur: standard deviation s in pixels, ().
        shape: (c, h, w) of one image; borders are periodic.
        cubic: interpolation of the tilt.

    Raises:
        ValueError: shapes disagree.
    """

    def __init__(self, displacement: Tensor, blur: Tensor, shape: tuple[int, int, int], cubic: bool = False) -> None:
        super().__init__(displacement, shape, cubic)
        if displacement.ndim != 4 or blur.ndim:
            raise ValueError(
                f"a burst needs displacements (frames, 2, h, w) and one blur, got {tuple(displacement.shape)}"
                f" and {tuple(blur.shape)}"
            )
        self._transfer = gaussian_transfer(blur, shape[1:])

    def __call__(self, x: Tensor) -> Tensor:
        frames = self._read(x.flatten(0, 1).expand(len(self.displacement), -1, -1, -1))  # (frames, b c, h, w)
        y = irfft2(self._transfer * rfft2(frames), s=x.shape[-2:])
        return y.unflatten(1, x.shape[:2]).transpose(0, 1)

    def adjoint(self, y: Tensor) -> Tensor:
        back = irfft2(self._transfer * rfft2(y.transpose(0, 1).flatten(1, 2)), s=y.shape[-2:])
        return self._put(back).sum(0).unflatten(0, (y.shape[0], y.shape[2]))


def gaussian_transfer(std: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Transfer function (*b, h, w // 2 + 1), for ``rfft2``, of a Gaussian of ``std`` pixels, (*b, 1, 1)."""
    h, w = shape
    f = fftfreq(h, dtype=std.dtype, device=std.device)[:, None]
    g = rfftfreq(w, dtype=std.dtype, device=std.device)
    return (-2 * torch.pi**2 * std**2 * (f**2 + g**2)).exp()


def long_exposure_kernel(size: int, std: float) -> Tensor:
    r"""What the mean over many frames of a bilinear :class:`Tilt` convolves with, (size, size), float64, summing to 1.

    If each displacement is N(0, std^2) down and, independently, to the right, then
    :math:`E[x(u + d)] = \sum_j k_j x(u + j)` whatever the displacements of other pixels do, with k the product of two
    one-dimensional kernels, each the expectation of a hat function, which is the second difference of
    :math:`s \phi(j / s) + j \Phi(j / s)`: the Gaussian, widened by what linear interpolation blurs, 1/6 in variance.

    Raises:
        ValueError: ``std`` is not positive.
    """
    if not std > 0:
        raise ValueError(f"the standard deviation of the displacements must be > 0, got {std}")
    j = torch.arange(-1, size + 1, dtype=torch.float64) - size // 2
    ramp = std * (-0.5 * (j / std) ** 2).exp() / (2 * torch.pi) ** 0.5 + j * torch.special.ndtr(j / std)
    k = ramp[2:] - 2 * ramp[1:-1] + ramp[:-2]
    return torch.outer(k, k) / k.sum() ** 2


def _taps(d: Tensor, axis: int, cubic: bool) -> tuple[Tensor, Tensor]:
    """Indices along an axis and their weights, (b, taps, h, w), of the points u + d(u), d (b, h, w)."""
    u = torch.arange(d.shape[1 + axis], device=d.device)
    first = d.detach().floor()
    f = (d - first)[:, None]
    offsets = torch.arange(-1, 3, device=d.device) if cubic else torch.arange(2, device=d.device)
    index = (u[:, None] if axis == 0 else u) + first.long()[:, None] + offsets[:, None, None]
    r = (f - offsets[:, None, None]).abs()
    if not cubic:
        return index, 1 - r
    near, far = (1.5 * r - 2.5) * r**2 + 1, ((-0.5 * r + 2.5) * r - 4) * r + 2
    return index, torch.where(r <= 1, near, far)
