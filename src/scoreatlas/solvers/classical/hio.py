r"""The hybrid input-output algorithm: J. R. Fienup, *Phase retrieval algorithms: a comparison*, Appl. Opt. 21, 1982,
doi:10.1364/AO.21.002758.

Deviations:
    - It ends with iterations of error reduction, as Fienup alternates the two; without them
      the answer is wherever the walk happens to be.
    - A negative datum, which noise can produce, counts as 0. u <= 1 is not used.
    - The support is the whole image. The official demo of prDeep (Metzler et al., 2018) gives it the support of the
      true image instead, pixel by pixel, which is not known in practice.
    - Several starts, and the one whose data fit best.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.fft import fft2, ifft2

from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.phase import FourierMagnitude
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State
from scoreatlas.solvers.classical.error_reduction import reduce
from scoreatlas.solvers.restarts import closest


@final
@dataclass(frozen=True)
class HIO(Solver[Measurement[FourierMagnitude, Gaussian], None]):
    r"""Where the object cannot be, what should vanish is fed back instead of cut off, with a minus sign.

    With g' the frame g after its Fourier magnitudes have been replaced by the measured ones,

    .. math:: g \gets \begin{cases} g' & \text{inside the image, where } g' \ge 0 \\ g - \beta g' & \text{elsewhere.}
       \end{cases}

    The estimate is g' cut to the image and to g' >= 0. It can leave local minima, so its misfit goes up and down; it
    rests only where g' satisfies everything. No network call, three Fourier transforms an iteration; sigma_y is not
    used.

    Args:
        iterations: of the hybrid step, for each start.
        polish: of error reduction after them.
        beta: feedback; 0.5 to 1 in the paper.
        restarts: random starts, u uniform in [0, 1).
    """

    iterations: int = 500
    polish: int = 50
    beta: float = 0.9
    restarts: int = 1

    def iterate(self, m: Measurement[FourierMagnitude, Gaussian], prior: None, rng: Rng) -> Iterator[State]:
        y, u = m.y.clamp_min(0), rng.uniform(self.restarts, *m.A.shape)
        g, inside = m.A.embed(u), m.A.embed(torch.ones_like(u)) > 0
        x = 2 * u - 1
        for _ in range(self.iterations):
            wanted = impose(y[:, None], g)
            g = torch.where(inside & (wanted >= 0), wanted, g - self.beta * wanted)
            x = 2 * m.A.crop(wanted).clamp_min(0) - 1
            best = closest(m.A, y, x)
            yield State(best, best)
        for _ in range(self.polish):
            x = reduce(m.A, y, x)
            best = closest(m.A, y, x)
            yield State(best, best)


def impose(y: Tensor, g: Tensor) -> Tensor:
    """g' : the real frame g (..., H, W) with its Fourier magnitudes replaced by y; its phases stay."""
    return ifft2(y * fft2(g, norm="ortho").sgn(), norm="ortho").real
