"""Tasks of phase retrieval: the detector sees amplitudes. Factories as in :mod:`scoreatlas.bench.tasks`."""

import numpy as np

from scoreatlas.bench.cell import Task
from scoreatlas.measurement import Gaussian
from scoreatlas.operators.base import Operator
from scoreatlas.operators.phase import CodedDiffraction, FourierMagnitude
from scoreatlas.rng import Rng

Shape = tuple[int, ...]


def phase(shape: Shape, generator: np.random.Generator) -> Operator:
    """Fourier amplitudes of the transmittance in an opaque frame of twice the side."""
    c, h, w = shape
    return FourierMagnitude((c, h, w), 2.0)


def cdp(shape: Shape, generator: np.random.Generator) -> Operator:
    """Fourier amplitudes behind two random phase plates."""
    c, h, w = shape
    return CodedDiffraction((c, h, w), 2, Rng([int(generator.integers(2**31))]))


TASKS = tuple(Task(f.__name__, f, Gaussian(0.05)) for f in (phase, cdp))
