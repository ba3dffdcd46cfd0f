"""Row-wise linear algebra: every function treats axis 0 as independent problems."""

from collections.abc import Callable

import torch
from torch import Tensor

from scoreatlas.operators.base import Diagonalised, Linear, real_rows


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Real inner product of each row, Re(conj(a) . b), shape (b,)."""
    return (real_rows(a) * real_rows(b)).sum(1)


def norm(a: Tensor) -> Tensor:
    """Euclidean norm of each row, shape (b,)."""
    return torch.linalg.vector_norm(a, dim=tuple(range(1, a.ndim)))


def rows(c: Tensor, like: Tensor) -> Tensor:
    """One number per row, (b,), as (b, 1, ..., 1) to broadcast against ``like``."""
    return c.reshape(-1, *(1,) * (like.ndim - 1))


def cg(operator: Callable[[Tensor], Tensor], b: Tensor, iterations: int, x: Tensor | None = None) -> Tensor:
    """Conjugate gradients for a symmetric positive definite operator, rows independent.

    A fixed number of iterations (Hestenes & Stiefel, 1952): no convergence test, so no host
    synchronisation. A row that has converged stays where it is.

    Args:
        operator: row-wise linear map (b, *s) -> (b, *s).
        b: right-hand side (b, *s).
        iterations: number of operator calls (one more if ``x`` is given).
        x: first guess; zero by default.
    """
    r = b if x is None else b - operator(x)
    x = torch.zeros_like(b) if x is None else x
    p, rr = r, dot(r, r)
    floor = torch.finfo(rr.dtype).tiny
    for _ in range(iterations):
        q = operator(p)
        step = rows(rr / dot(p, q).clamp_min(floor), b)
        x = x + step * p
        r = r - step * q
        rr, previous = dot(r, r), rr
        p = r + rows(rr / previous.clamp_min(floor), b) * p
    return x


def ridge(A: Linear, b: Tensor, rho: float | Tensor, iterations: int = 30, x: Tensor | None = None) -> Tensor:
    """Solve (A^T A + rho I) x = b in image space; exact when A is diagonalised, else by CG.

    Args:
        A: linear operator.
        b: right-hand side (b, *s).
        rho: positive number.
        iterations: of CG, unused when A is diagonalised.
        x: first guess for CG.
    """
    if isinstance(A, Diagonalised):
        return A.v(A.vt(b) / (A.singular_values**2 + rho))
    return cg(lambda z: A.adjoint(A(z)) + rho * z, b, iterations, x)


def ridge_dual(A: Linear, r: Tensor, rho: float | Tensor, iterations: int = 30) -> Tensor:
    """Solve (A A^T + rho I) w = r in data space; exact when A is diagonalised, else by CG.

    ``r`` is assumed to lie where the data live: for a diagonalised operator, components outside
    the range of U do not exist.
    """
    if isinstance(A, Diagonalised):
        return A.u(A.ut(r) / (A.singular_values**2 + rho))
    return cg(lambda w: A(A.adjoint(w)) + rho * w, r, iterations)
