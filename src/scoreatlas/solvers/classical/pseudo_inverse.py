"""The least-squares image of smallest norm.

E. H. Moore, 1920; R. Penrose, *A generalized inverse for matrices*, Proc. Cambridge Phil. Soc. 51, 1955.

Deviations:
    - Singular values below 1e-6 of the largest count as 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Diagonalised
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class PseudoInverse(Solver[Measurement[Diagonalised, Gaussian], None]):
    """A^+ y: no prior, no regard for the noise. What every other method has to beat.

    Exactness card: ``book/cards/pseudoinverse``.
    """

    def iterate(self, m: Measurement[Diagonalised, Gaussian], prior: None, rng: Rng) -> Iterator[State]:
        x = m.A.pinv(m.y)
        yield State(x, x)
