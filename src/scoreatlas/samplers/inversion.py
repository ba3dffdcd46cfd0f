r"""DDIM inversion: from an image to the noise that the deterministic sampler would turn into it.

Song, Meng & Ermon (2021), *Denoising Diffusion Implicit Models*, arXiv:2010.02502, section 4.3.

The probability flow of :mod:`scoreatlas.samplers.ode` is followed upwards with Euler's steps,

.. math:: z_{i+1} = z_i + (n_{i+1} - n_i) \, \epsilon(z_i, n_i).

On the way down the step between the same two levels uses epsilon at the *upper* end, so that going up and down again
does not close: the error of a round trip is of order 1 / steps.

Deviations:
    - The noise estimate does not exist at the image itself (n = 0). The first step takes it at n_1, where the official
      code takes it at its index 0, which has been noised once.
"""

from itertools import pairwise

import torch
from torch import Tensor

from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.samplers.ode import Grid, Uniform
from scoreatlas.schedules import Time

UNIFORM: Grid = Uniform()


@torch.no_grad()
def invert(prior: DiffusionPrior, x0: Tensor, steps: int, grid: Grid = UNIFORM) -> Tensor:
    """Noise x at t = 1, (b, *s), in the scale of ``prior.initial``, for images x0 (b, *s): ``steps`` network calls.

    Raises:
        ValueError: ``steps`` below 1.
    """
    levels = grid(prior.schedule, steps)[::-1]
    z = x0
    for n, high in pairwise(levels):
        at = n if n > 0 else high
        noise = (z - prior.denoise(z, Time(at, 1.0, at))) / at
        z = z + (high - n) * noise
    return prior.schedule.at(1.0).alpha * z


@torch.no_grad()
def decode(prior: DiffusionPrior, x: Tensor, steps: int, grid: Grid = UNIFORM) -> Tensor:
    """The image of a given noise x (b, *s): DDIM with eta 0 (Euler) from t = 1, ``steps`` network calls.

    Raises:
        ValueError: ``steps`` below 1.
    """
    z = x / prior.schedule.at(1.0).alpha
    for n, low in pairwise(grid(prior.schedule, steps)):
        z = z + (low - n) * (z - prior.denoise(z, Time(n, 1.0, n))) / n
    return z
