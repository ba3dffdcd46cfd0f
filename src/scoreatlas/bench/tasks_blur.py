"""Tasks of blurring and turbulence, in the form of :mod:`scoreatlas.bench.tasks`. Lengths grow with the image."""

import math

import numpy as np
import torch

from scoreatlas.bench.cell import Task
from scoreatlas.measurement import Gaussian
from scoreatlas.operators.base import Operator
from scoreatlas.operators.blur import Blur, gaussian_kernel
from scoreatlas.operators.kernels import anisotropic_kernel, shake_kernel
from scoreatlas.operators.turbulence_family import TurbulenceFamily
from scoreatlas.operators.varying_blur import VaryingBlur, radial_weights
from scoreatlas.rng import Rng

Shape = tuple[int, ...]


def motion(shape: Shape, generator: np.random.Generator) -> Operator:
    """Periodic blur by a shaken camera, its path 3/16 of the side long, another one in each instance."""
    c, h, w = shape
    length = 3 * h / 16
    kernel = shake_kernel(2 * math.ceil(length / 2) + 1, length, 0.5, _rng(generator))
    return Blur(kernel, (c, h, w), torch.float64)


def anisotropic(shape: Shape, generator: np.random.Generator) -> Operator:
    """Periodic Gaussian blur, standard deviations 3 and 1 pixels, long axis at 30 degrees."""
    c, h, w = shape
    return Blur(anisotropic_kernel(15, 3.0, 1.0, 30.0), (c, h, w), torch.float64)


def varying(shape: Shape, generator: np.random.Generator) -> Operator:
    """Gaussian blur of standard deviation 0.5 pixels in the centre to 2.5 in the corners, periodic; no fast SVD."""
    c, h, w = shape
    kernels = torch.stack([gaussian_kernel(13, std) for std in (0.5, 1.2, 1.8, 2.5)])
    return VaryingBlur(kernels, radial_weights((h, w), 4), (c, h, w), torch.float64)


def turbulence(shape: Shape, generator: np.random.Generator) -> Operator:
    """A known random tilt of 1.5/64 of the side, correlated over an eighth of it, then a Gaussian blur of 1 pixel."""
    c, h, w = shape
    family = TurbulenceFamily((c, h, w), modes=4)
    return family.at(family.draw(1.5 * h / 64, h / 8, 1.0, _rng(generator))[0])


def _rng(generator: np.random.Generator) -> Rng:
    return Rng([int(generator.integers(2**31))], dtype=torch.float64)


TASKS: tuple[Task, ...] = tuple(Task(f.__name__, f, Gaussian(0.05)) for f in (motion, anisotropic, varying, turbulence))
