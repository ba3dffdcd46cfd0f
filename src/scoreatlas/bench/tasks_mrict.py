"""Tasks of magnetic resonance imaging and tomography: what is measured of heads and trunks, real images (1, h, w).

k-space of a real image in [-1, 1] under the orthonormal transform, with noise of 0.05 in the real and in the imaginary
part of each sample. Sinograms in units of image sides (see :mod:`scoreatlas.operators.radon`), with noise of 0.01: at
the scale of ``data.ct`` (a side of 44 cm, water 0.2 / cm, so 8.8 for a side of water) that is 0.09 in the logarithm of
the transmission, what 5 x 10^4 photons per ray leave behind 30 cm of water.
"""

import numpy as np
import torch

from scoreatlas.bench.cell import Task
from scoreatlas.measurement import Gaussian
from scoreatlas.operators.base import Operator
from scoreatlas.operators.mri import cartesian_mask
from scoreatlas.operators.mri_masks import equispaced_mask, poisson_mask, spoke_mask
from scoreatlas.operators.mri_real import RealMRI
from scoreatlas.operators.radon import Radon, even_angles
from scoreatlas.rng import Rng

Shape = tuple[int, ...]


def mri4(shape: Shape, generator: np.random.Generator) -> Operator:
    """A quarter of the columns of k-space at random, 8 % in the centre, single coil, real image."""
    _, h, w = shape
    return RealMRI(cartesian_mask((h, w), 4, 0.08, _rng(generator)), torch.float64)


def mri_equi(shape: Shape, generator: np.random.Generator) -> Operator:
    """Every fourth column of k-space and 8 % in the centre, single coil, real image."""
    _, h, w = shape
    return RealMRI(equispaced_mask((h, w), 4, 0.08, offset=1), torch.float64)


def radialmask(shape: Shape, generator: np.random.Generator) -> Operator:
    """Spokes of k-space, one for each 4 pixels of width, moved to the grid, single coil, real image."""
    _, h, w = shape
    return RealMRI(spoke_mask((h, w), w // 4), torch.float64)


def poisson8(shape: Shape, generator: np.random.Generator) -> Operator:
    """An eighth of k-space in Poisson discs, denser in the centre, single coil, real image."""
    _, h, w = shape
    return RealMRI(poisson_mask((h, w), 8, 0.08, _rng(generator)), torch.float64)


def sparseview(shape: Shape, generator: np.random.Generator) -> Operator:
    """30 parallel-beam views over 180 degrees."""
    c, h, w = shape
    return Radon((c, h, w), even_angles(30), dtype=torch.float64)


def limitedangle(shape: Shape, generator: np.random.Generator) -> Operator:
    """60 parallel-beam views over 120 degrees; a wedge of 60 degrees is missing."""
    c, h, w = shape
    return Radon((c, h, w), even_angles(60, 30, 150), dtype=torch.float64)


def _rng(generator: np.random.Generator) -> Rng:
    return Rng([int(generator.integers(2**31))])


TASKS: tuple[Task, ...] = (
    *(Task(f.__name__, f, Gaussian(0.05)) for f in (mri4, mri_equi, radialmask, poisson8)),
    *(Task(f.__name__, f, Gaussian(0.01)) for f in (sparseview, limitedangle)),
)
