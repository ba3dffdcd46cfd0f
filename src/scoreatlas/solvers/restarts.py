"""Several runs on one problem, and the one whose data fit best: what non-convex problems force on every method."""

from torch import Tensor

from scoreatlas.linalg import norm
from scoreatlas.operators.base import Operator


def misfit(A: Operator, y: Tensor, x: Tensor) -> Tensor:
    """|y - A(x)| of each candidate, (b, r), for data (b, *m) and candidates (b, r, *s)."""
    r = y[:, None] - A(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    return norm(r.flatten(0, 1)).unflatten(0, x.shape[:2])


def closest(A: Operator, y: Tensor, x: Tensor) -> Tensor:
    """The candidate of least misfit of each row, (b, *s), for data (b, *m) and candidates (b, r, *s).

    Which is best is decided by the data alone. A method that is given k runs should be compared with others given k.
    """
    best = misfit(A, y, x).argmin(1)
    return x.take_along_dim(best.reshape(-1, *(1,) * (x.ndim - 1)), 1).squeeze(1)
