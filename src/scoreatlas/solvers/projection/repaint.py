r"""RePaint (Lugmayr et al., CVPR 2022, arXiv:2201.09865), Algorithm 1.

Deviations:
    - The known pixels are replaced before the network call, at the level of x_t, as in the
      official code (``guided_diffusion/gaussian_diffusion.py``, ``p_sample``); the paper composes
      after the step, at the level of x_{t-1}.
    - The jump back is one forward step of ``jump`` levels, which has the law of ``jump`` single
      steps.
    - Nothing is clipped; the reverse variance is the posterior variance, not a learned one.
    - As in the code, and not in the paper, the last sample is returned as it is: the known pixels
      are not pasted back.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.inpainting import Inpainting
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class RePaint(Solver[Measurement[Inpainting, Gaussian], DiffusionPrior]):
    r"""Overwrites the known pixels by the data, diffused to the level of x_t, and resamples.

    .. math:: x_t \gets m \odot (\alpha_t y + \sigma_t z) + (1 - m) \odot x_t

    It takes the data as noise-free, whatever sigma_y says.

    Exactness card: ``book/cards/repaint``.

    Args:
        steps: levels; the paper uses 250.
        jump: levels of one jump back (the paper's j = 10).
        resample: visits of each stretch (the paper's r = 10); 1 means no jumps. Network calls:
            ``steps + jump * (resample - 1) * ceil((steps - jump) / jump)``, 2410 at the defaults.
    """

    steps: int = 250
    jump: int = 10
    resample: int = 10

    def iterate(self, m: Measurement[Inpainting, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        seen, y = m.A.singular_values, m.A.adjoint(m.y)
        x = prior.initial(rng)
        for t, s in prior.schedule.travel(self.steps, self.jump, self.resample):
            if s.t > t.t:
                mean, std = prior.schedule.forward(x, t, s)
                x = mean + std * rng.normal_like(x)
                continue
            x = seen * (t.alpha * y + t.sigma * rng.normal_like(x)) + (1 - seen) * x
            x0 = prior.denoise(x, t)
            mean, std = prior.schedule.bridge(x, x0, t, s)
            x = mean + std * rng.normal_like(x)
            yield State(x, x0)
