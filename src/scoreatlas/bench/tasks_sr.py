"""Tasks of super-resolution and inpainting, and of what else an image may lose: colour, detail, highlights.

Factories are like those of :mod:`scoreatlas.bench.tasks`.
"""

import numpy as np
import torch

from scoreatlas.bench.cell import Task
from scoreatlas.measurement import Gaussian
from scoreatlas.operators.base import Operator
from scoreatlas.operators.bicubic import Bicubic
from scoreatlas.operators.clipping import Clip
from scoreatlas.operators.colourisation import Colourisation
from scoreatlas.operators.inpainting import Inpainting
from scoreatlas.operators.jpeg import JPEG
from scoreatlas.operators.masks import free_form_mask
from scoreatlas.rng import Rng

Shape = tuple[int, ...]


def bicubic4(shape: Shape, generator: np.random.Generator) -> Operator:
    """Bicubic averages, a quarter of the side, as MATLAB's imresize makes them."""
    c, h, w = shape
    return Bicubic((c, h, w), 4, torch.float64)


def freeform(shape: Shape, generator: np.random.Generator) -> Operator:
    """Brush strokes over 35 % of the pixels."""
    c, h, w = shape
    return Inpainting(free_form_mask((c, h, w), 0.35, Rng([int(generator.integers(2**31))])), torch.float64)


def colour(shape: Shape, generator: np.random.Generator) -> Operator:
    """The mean of the channels."""
    c, h, w = shape
    return Colourisation((c, h, w), torch.float64)


def jpeg(shape: Shape, generator: np.random.Generator) -> Operator:
    """JPEG of quality 10 without chroma subsampling; 0.01, about one grey level, of noise after decoding."""
    c, h, w = shape
    return JPEG((c, h, w), 10, torch.float64)


def clip(shape: Shape, generator: np.random.Generator) -> Operator:
    """Twice the image, clipped to [-1, 1]."""
    return Clip(shape, 2.0)


TASKS: tuple[Task, ...] = (
    Task("bicubic4", bicubic4, Gaussian(0.05)),
    Task("freeform", freeform, Gaussian(0.05)),
    Task("colour", colour, Gaussian(0.05)),
    Task("jpeg", jpeg, Gaussian(0.01)),
    Task("clip", clip, Gaussian(0.05)),
)
