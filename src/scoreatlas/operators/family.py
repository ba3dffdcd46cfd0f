"""Families of operators: an instrument with unknown settings phi, a row of settings for each problem."""

import math
from typing import Literal, Protocol, final, runtime_checkable

import torch
from torch import Tensor
from torch.fft import irfft2, rfft2
from torch.nn.functional import interpolate, pad

from scoreatlas.operators.base import Linear, Operator


@runtime_checkable
class Family(Protocol):
    """Operators that differ in a few numbers phi.

    Attributes:
        shape: shape of one image, without the batch axis.
    """

    shape: tuple[int, ...]

    def at(self, phi: Tensor) -> Operator:
        """The operator with settings phi, (b, *p): row i acts on row i of images (b, *s), differentiably in phi.

        One row of settings serves any number of images.
        """
        ...


@final
class RowwiseBlur(Linear):
    """y_i = k_i * x_i, circular convolution of each channel, with a kernel for each row.

    Args:
        kernels: (b, kh, kw), centres at (kh // 2, kw // 2), or one for all rows, (1, kh, kw). The answer is
            differentiable in them.
        shape: (c, h, w) of one image, at least as large as the kernels.

    Raises:
        ValueError: the kernels are larger than the image, or lack their axis of rows.
    """

    def __init__(self, kernels: Tensor, shape: tuple[int, int, int]) -> None:
        _, h, w = shape
        if kernels.ndim != 3 or kernels.shape[1] > h or kernels.shape[2] > w:
            raise ValueError(f"need kernels (b, kh, kw) within the image {h}x{w}, got {list(kernels.shape)}")
        kh, kw = kernels.shape[1:]
        self.shape, self.kernels = tuple(shape), kernels
        padded = pad(kernels, (0, w - kw, 0, h - kh)).roll((-(kh // 2), -(kw // 2)), (1, 2))
        self._half = rfft2(padded)[:, None]  # (b or 1, 1, h, w // 2 + 1)

    def __call__(self, x: Tensor) -> Tensor:
        return irfft2(self._half * rfft2(x), s=x.shape[-2:])

    def adjoint(self, y: Tensor) -> Tensor:
        return irfft2(self._half.conj() * rfft2(y), s=y.shape[-2:])


@final
class GaussianBlurs:
    """Periodic Gaussian blur of unknown width: phi is the natural logarithm of the width in pixels, (b, 1).

    Widths are held between 0.1 pixel, where the sampled kernel is a delta, and ``size``, where it is a box; beyond,
    the operator stays what it is and its gradient is 0.

    Args:
        size: side of the kernel, odd.
        shape: (c, h, w) of one image.
    """

    def __init__(self, size: int, shape: tuple[int, int, int]) -> None:
        self.size, self.shape = size, tuple(shape)

    def kernels(self, phi: Tensor) -> Tensor:
        """Kernels (b, size, size), each summing to 1."""
        i = torch.arange(self.size, dtype=phi.dtype, device=phi.device) - self.size // 2
        width = phi.reshape(-1, 1).clamp(math.log(0.1), math.log(self.size)).exp()
        g = (-0.5 * (i / width).square()).exp()
        return g[:, :, None] * g[:, None] / g.sum(1).square()[:, None, None]

    def at(self, phi: Tensor) -> RowwiseBlur:
        return RowwiseBlur(self.kernels(phi), self.shape)  # type: ignore[arg-type]


@final
class MotionBlurs:
    """Straight, uniform motion during the exposure: phi is the displacement (down, right) in pixels, (b, 2).

    The path is drawn with a soft pen, a Gaussian of half a pixel, and centred; phi and -phi are the same blur. What
    leaves the kernel is lost before it is normalised to sum 1.

    Args:
        size: side of the kernel, odd.
        shape: (c, h, w) of one image.
        points: along the path.
    """

    def __init__(self, size: int, shape: tuple[int, int, int], points: int = 33) -> None:
        self.size, self.shape, self.points = size, tuple(shape), points

    def kernels(self, phi: Tensor) -> Tensor:
        """Kernels (b, size, size), each summing to 1."""
        i = torch.arange(self.size, dtype=phi.dtype, device=phi.device) - self.size // 2
        along = torch.linspace(-0.5, 0.5, self.points, dtype=phi.dtype, device=phi.device)
        path = along[:, None, None] * phi.reshape(-1, 1, 2, 1).clamp(-self.size, self.size)  # (b, points, 2, 1)
        pen = (-2 * (i - path).square()).exp()  # (b, points, 2, size)
        k = torch.einsum("bpi,bpj->bij", pen[:, :, 0], pen[:, :, 1])
        return k / k.sum((1, 2), keepdim=True)

    def at(self, phi: Tensor) -> RowwiseBlur:
        return RowwiseBlur(self.kernels(phi), self.shape)  # type: ignore[arg-type]


@final
class KernelBlurs:
    """Periodic blur with any kernel that is not negative and sums to 1: phi is a picture of it, (b, size, size).

    Args:
        size: side of the kernel.
        shape: (c, h, w) of one image.
        link: how phi becomes a kernel. "softmax" exponentiates (the last layer of BIRD's kernel network); "clip" takes
            phi for an image in [-1, 1], clips it, moves -1 to 0 and divides by the sum (BlindDPS). Where all of it is
            clipped away, the kernel is 0.
    """

    def __init__(self, size: int, shape: tuple[int, int, int], link: Literal["softmax", "clip"] = "softmax") -> None:
        self.size, self.shape, self.link = size, tuple(shape), link

    def kernels(self, phi: Tensor) -> Tensor:
        """Kernels (b, size, size), each summing to 1."""
        flat = phi.reshape(-1, self.size**2)
        if self.link == "softmax":
            k = flat.softmax(1)
        else:
            k = (flat.clamp(-1, 1) + 1) / 2
            k = k / k.sum(1, keepdim=True).clamp_min(1e-6)
        return k.reshape(-1, self.size, self.size)

    def at(self, phi: Tensor) -> RowwiseBlur:
        return RowwiseBlur(self.kernels(phi), self.shape)  # type: ignore[arg-type]


@final
class Light(Operator):
    """y = f x + M: a light factor f, (b,), and an offset M, (b, 1, h, w) or broadcast."""

    def __init__(self, factor: Tensor, offset: Tensor, shape: tuple[int, ...]) -> None:
        self.factor, self.offset, self.shape = factor, offset, tuple(shape)

    def __call__(self, x: Tensor) -> Tensor:
        return self.factor.reshape(-1, 1, 1, 1) * x + self.offset


@final
class Lights:
    """Unknown exposure: phi is f and then M on a coarse grid, (b, 1 + gh gw); M is bilinear in between.

    Args:
        shape: (c, h, w) of one image.
        grid: (gh, gw) of the offset; (1, 1) is one number for the image.
    """

    def __init__(self, shape: tuple[int, int, int], grid: tuple[int, int] = (1, 1)) -> None:
        self.shape, self.grid = tuple(shape), grid

    def at(self, phi: Tensor) -> Light:
        coarse = phi[:, 1:].reshape(-1, 1, *self.grid)
        if self.grid == (1, 1):
            return Light(phi[:, 0], coarse, self.shape)
        offset = interpolate(coarse, size=self.shape[-2:], mode="bilinear", align_corners=True)
        return Light(phi[:, 0], offset, self.shape)
