"""The tasks that suite files name: what is measured of an image.

Each operator factory takes the shape of an image and a numpy generator, which only the random
operators use. Operators are made in double precision; an instance casts them to its world's.
"""

import numpy as np
import torch

from scoreatlas.bench import tasks_blur, tasks_mrict, tasks_phase, tasks_sr
from scoreatlas.bench.cell import Task
from scoreatlas.errors import AtlasError
from scoreatlas.measurement import Gaussian
from scoreatlas.operators.base import Diagonalised, Operator
from scoreatlas.operators.blur import Blur, gaussian_kernel
from scoreatlas.operators.compressed import CompressedSensing
from scoreatlas.operators.dense import Dense
from scoreatlas.operators.inpainting import Inpainting, box_mask, random_mask
from scoreatlas.operators.superresolution import BlockAverage
from scoreatlas.rng import Rng

Shape = tuple[int, ...]


def row(shape: Shape, generator: np.random.Generator) -> Operator:
    """One random direction of unit length on average: y is one number."""
    (n,) = shape
    return Dense(torch.from_numpy(generator.standard_normal((1, n)) / np.sqrt(n)), shape)


def rank1(shape: Shape, generator: np.random.Generator) -> Operator:
    """One random direction with a random singular value (arXiv:2308.07983)."""
    return _published(1, shape, generator)


def rank2(shape: Shape, generator: np.random.Generator) -> Operator:
    """Two random directions with random singular values (arXiv:2308.07983)."""
    return _published(2, shape, generator)


def rank4(shape: Shape, generator: np.random.Generator) -> Operator:
    """Four random directions with random singular values (arXiv:2308.07983)."""
    return _published(4, shape, generator)


def relative(A: Operator, generator: np.random.Generator) -> Gaussian:
    """sigma_y uniform between 0 and the largest singular value (arXiv:2308.07983)."""
    assert isinstance(A, Diagonalised)
    return Gaussian(float(generator.uniform() * A.singular_values.max()))


def half(shape: Shape, generator: np.random.Generator) -> Operator:
    """Every second coordinate."""
    return Inpainting(torch.arange(*shape) % 2 == 0, torch.float64)


def smooth(shape: Shape, generator: np.random.Generator) -> Operator:
    """A Gaussian moving average, standard deviation 1.5 coordinates, not periodic, every row summing to 1."""
    i = torch.arange(*shape, dtype=torch.float64)
    kernel = (-0.5 * ((i[:, None] - i) / 1.5) ** 2).exp()
    return Dense(kernel / kernel.sum(1, keepdim=True), shape)


def inpaint(shape: Shape, generator: np.random.Generator) -> Operator:
    """A missing box in the middle, 3/8 of the side."""
    c, h, w = shape
    height, width = 3 * h // 8, 3 * w // 8
    return Inpainting(box_mask((c, h, w), (h - height) // 2, (w - width) // 2, height, width), torch.float64)


def random(shape: Shape, generator: np.random.Generator) -> Operator:
    """30 % of the pixels, at random."""
    c, h, w = shape
    return Inpainting(random_mask((c, h, w), 0.3, _rng(generator)), torch.float64)


def sr4(shape: Shape, generator: np.random.Generator) -> Operator:
    """Means of 4 x 4 blocks."""
    c, h, w = shape
    return BlockAverage((c, h, w), 4, torch.float64)


def deblur(shape: Shape, generator: np.random.Generator) -> Operator:
    """Periodic Gaussian blur, standard deviation 1.5 pixels."""
    c, h, w = shape
    return Blur(gaussian_kernel(9, 1.5), (c, h, w), torch.float64)


def cs(shape: Shape, generator: np.random.Generator) -> Operator:
    """A quarter of the Walsh-Hadamard coefficients of the image with random signs."""
    c, h, w = shape
    return CompressedSensing((c, h, w), 0.25, _rng(generator), torch.float64)


def _published(rank: int, shape: Shape, generator: np.random.Generator) -> Operator:
    """The singular vectors of a standard normal matrix, singular values uniform in [0, 1], largest first."""
    u, _, vt = np.linalg.svd(generator.standard_normal((rank, *shape)), full_matrices=False)
    values = np.sort(generator.uniform(size=rank))[::-1]
    return Dense(torch.from_numpy((u * values) @ vt), shape)


def _rng(generator: np.random.Generator) -> Rng:
    return Rng([int(generator.integers(2**31))])


TASKS = {
    t.name: t
    for t in (
        Task("row", row, Gaussian(0.3)),
        *(Task(f.__name__, f, relative) for f in (rank1, rank2, rank4)),
        Task("half", half, Gaussian(0.1)),
        Task("smooth", smooth, Gaussian(0.1)),
        *(Task(f.__name__, f, Gaussian(0.05)) for f in (inpaint, random, sr4, deblur, cs)),
        *tasks_blur.TASKS,
        *tasks_sr.TASKS,
        *tasks_phase.TASKS,
        *tasks_mrict.TASKS,
    )
}


def task(name: str) -> Task:
    """The task named ``name``.

    Raises:
        AtlasError: there is none.
    """
    if name not in TASKS:
        raise AtlasError(f"no task named {name!r}; there are {', '.join(sorted(TASKS))}")
    return TASKS[name]
