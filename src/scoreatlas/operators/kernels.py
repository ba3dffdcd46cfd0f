r"""Kernels beyond the round Gaussian and the straight line of :mod:`scoreatlas.operators.blur`.

All are (size, size), float64, sum to 1 and have their centre of mass at the centre of the array, so that blurring does
not move the image.

Sources: official configurations of DDRM (``Gaussian`` of two widths, arXiv:2201.11793) and of DPS (shake kernels drawn
by the package ``motionblur`` of L. Borodenko, arXiv:2209.14687).

Deviations:
    - The path of a shake has constant speed and a direction that walks at random, so that its size has a closed form;
      ``motionblur`` draws step lengths and angles from beta and triangular laws that depend on one "intensity".
"""

import math

import torch
from torch import Tensor

from scoreatlas.rng import Rng


def anisotropic_kernel(size: int, major: float, minor: float, angle: float) -> Tensor:
    """Gaussian with standard deviations ``major`` and ``minor`` pixels, its long axis at ``angle`` degrees.

    Angles turn counter-clockwise from the horizontal, as in ``motion_kernel``. The Gaussian is cut at the border of the
    array: a standard deviation of more than a third of ``size`` leaves a box rather than a Gaussian.

    Raises:
        ValueError: a standard deviation is not positive.
    """
    if not (major > 0 and minor > 0):
        raise ValueError(f"the standard deviations of a Gaussian kernel must be > 0, got {major} and {minor}")
    i = torch.arange(size, dtype=torch.float64) - size // 2
    down, right = i[:, None], i
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    along, across = c * right - s * down, s * right + c * down
    kernel = (-0.5 * ((along / major) ** 2 + (across / minor) ** 2)).exp()
    return kernel / kernel.sum()


def disk_kernel(size: int, radius: float, fine: int = 32) -> Tensor:
    """A disk of ``radius`` pixels, what a lens out of focus draws of a point; each pixel is ``fine``^2 sample points.

    Raises:
        ValueError: the disk does not fit into the kernel.
    """
    if not 0 < radius <= size / 2:
        raise ValueError(f"a disk of radius {radius} does not fit into a kernel of {size}")
    i = (torch.arange(size * fine, dtype=torch.float64) + 0.5) / fine - 0.5 - size // 2
    inside = (i[:, None] ** 2 + i**2 <= radius**2).double()
    kernel = inside.reshape(size, fine, size, fine).sum((1, 3))
    return kernel / kernel.sum()


def shake_kernel(size: int, length: float, wobble: float, rng: Rng) -> Tensor:
    r"""The path of a hand-held camera: ``length`` pixels at constant speed, in a direction that walks at random.

    The direction is uniform at first and changes by a Brownian motion of ``wobble`` radians per root pixel: 0 is a
    straight line, :func:`~scoreatlas.operators.blur.motion_kernel`; large values curl up. In polymer physics this is
    the worm-like chain of persistence length :math:`P = 2 / \text{wobble}^2`, whose mean squared radius about its
    centre of mass is :math:`LP/3 - P^2 + 2P^3/L - 2P^4/L^2 (1 - e^{-L/P})` for length L.

    Args:
        size: side of the kernel; no point of a path is further than half its length from its centre of mass.
        length: in pixels.
        wobble: in radians per root pixel.
        rng: draws the path; only its first problem is used.

    Raises:
        ValueError: the path may not fit into the kernel, or ``wobble`` is negative.
    """
    if not 0 < length <= size - 1:
        raise ValueError(f"a path of {length} pixels may not fit into a kernel of {size}")
    if wobble < 0:
        raise ValueError(f"the wobble must be >= 0, got {wobble}")
    n = 32 * size
    first = 2 * math.pi * rng.uniform(1)[0].cpu().double()
    turns = wobble * math.sqrt(length / n) * rng.normal(n - 1)[0].cpu().double()
    direction = first + torch.cat([torch.zeros(1, dtype=torch.float64), turns.cumsum(0)])
    y = (-direction.sin()).cumsum(0) * length / n
    x = direction.cos().cumsum(0) * length / n
    return splat(y - y.mean() + size // 2, x - x.mean() + size // 2, size)


def splat(y: Tensor, x: Tensor, size: int) -> Tensor:
    """Kernel (size, size) of points at rows y and columns x, (n,), each shared bilinearly between four pixels."""
    kernel = torch.zeros(size, size, dtype=torch.float64)
    for dy in (0, 1):
        for dx in (0, 1):
            weight = (1 - (y.floor() + dy - y).abs()) * (1 - (x.floor() + dx - x).abs())
            rows, columns = (y.floor() + dy).long().clamp(0, size - 1), (x.floor() + dx).long().clamp(0, size - 1)
            kernel.index_put_((rows, columns), weight, accumulate=True)
    return kernel / kernel.sum()
