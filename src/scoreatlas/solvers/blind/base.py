"""What blind solvers share: their answer is a pair, an image and the parameters of its operator."""

from collections import deque
from typing import final

from scoreatlas.rng import Rng
from scoreatlas.solvers.base import M_contra, P_contra, Solver, State


class BlindSolver(Solver[M_contra, P_contra]):
    """A method that finds the parameters of the operator along with the image.

    Called like any solver it returns the image; :meth:`joint` returns both. The ``phi`` of a state belongs to its
    ``x``, and the last state is the answer.
    """

    @final
    def joint(self, m: M_contra, prior: P_contra, rng: Rng) -> State:
        """The answer: image ``x`` (b, *s) and parameters ``phi`` (b, *p)."""
        return deque(self.run(m, prior, rng), maxlen=1)[0]
