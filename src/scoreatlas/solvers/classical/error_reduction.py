r"""Error reduction: R. W. Gerchberg and W. O. Saxton, *A practical algorithm for the determination of phase from image
and diffraction plane pictures*, Optik 35, 1972, as generalised by J. R. Fienup, *Phase retrieval algorithms: a
comparison*, Appl. Opt. 21, 1982, doi:10.1364/AO.21.002758: one magnitude, and knowledge of the object for the other.

Deviations:
    - Written as the projected gradient step that it is, as the same paper shows, so that it serves every operator that
      measures amplitudes, coded diffraction too.
    - Support and u >= 0 are all that is known of the object; u <= 1 is not used.
    - A negative datum, which noise can produce, counts as 0.
    - Several starts, and the one whose data fit best.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from torch import Tensor

from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.phase import Amplitude
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State
from scoreatlas.solvers.restarts import closest


@final
@dataclass(frozen=True)
class ErrorReduction(Solver[Measurement[Amplitude, Gaussian], None]):
    r"""Gives the wave the measured amplitudes, goes back, and cuts off what the object cannot be, in turn.

    .. math:: u \gets \max\left(0, \tfrac1c \operatorname{Re} L^H (y \, e^{i \phi})\right), \qquad \phi = \arg L u

    The misfit never increases. No network call; an iteration is four Fourier transforms. sigma_y is not used.

    Args:
        iterations: for each start.
        restarts: random starts, u uniform in [0, 1).
    """

    iterations: int = 500
    restarts: int = 1

    def iterate(self, m: Measurement[Amplitude, Gaussian], prior: None, rng: Rng) -> Iterator[State]:
        y, x = m.y.clamp_min(0), 2 * rng.uniform(self.restarts, *m.A.shape) - 1
        for _ in range(self.iterations):
            x = reduce(m.A, y, x)
            best = closest(m.A, y, x)
            yield State(best, best)


def reduce(A: Amplitude, y: Tensor, x: Tensor) -> Tensor:
    """One iteration on candidates (b, r, *s) for amplitudes (b, *m) >= 0.

    In units of x the step is 4 / gain: J^T J is at most gain / 4.
    """
    flat = x.flatten(0, 1)
    r = y.repeat_interleave(x.shape[1], 0) - A(flat)
    return (flat + 4 / A.gain * A.vjp(flat, r)).clamp_min(-1).unflatten(0, x.shape[:2])
