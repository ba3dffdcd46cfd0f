r"""Gauge freedom: which part of a vector field moves probability, and which part only stirs it.

Horvat & Pfister (ICLR 2024), *On gauge freedom, conservativity and intrinsic dimensionality estimation in diffusion
models*, arXiv:2402.03845. Two fields f and f + r carry a density p in the same way if and only if

.. math:: \nabla \cdot (p \, r) = 0.

Such an r is called gauge. In L2(p) gauge fields are the orthogonal complement of gradients, so every field splits
uniquely into :math:`f = \nabla \phi + r`.

Deviations:
    - The authors' code is not public. The splits below are our own: by a sparse linear system on a grid in the plane,
      and in closed form for linear fields under a Gaussian.
"""

from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
import torch
from scipy.sparse import csr_matrix, diags, eye, kron, vstack
from scipy.sparse.linalg import splu
from torch import Tensor

from scoreatlas.priors.diffusion import Denoiser


@final
@dataclass(frozen=True, eq=False)
class Stirred:
    r"""A denoiser whose score s has become :math:`s + A s` with antisymmetric A: :math:`D + A (D - x)`.

    The addition is a gauge field for every density, since :math:`\nabla \cdot (p A \nabla \log p) = \mathrm{tr}(A
    \nabla \nabla^T p) = 0`. Its size is that of A: for a rotation by 90 degrees times c, c times the score.

    Args:
        denoiser: to be stirred.
        stir: A, (n, n), antisymmetric.

    Raises:
        ValueError: A is not antisymmetric.
    """

    denoiser: Denoiser
    stir: Tensor

    def __post_init__(self) -> None:
        if not torch.equal(self.stir, -self.stir.T):
            raise ValueError("stir must be antisymmetric")

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        d = self.denoiser(x, sigma)
        return d + ((d - x).flatten(1) @ self.stir.T).reshape(x.shape)


@final
@dataclass(frozen=True, eq=False)
class Scaled:
    """A denoiser whose score has become (1 + c) times what it was: an error that is a gradient."""

    denoiser: Denoiser
    c: float

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        d = self.denoiser(x, sigma)
        return d + self.c * (d - x)


class Linear(NamedTuple):
    """A linear field M x under N(0, C), split: ``gradient`` symmetric, ``gauge`` the rest; both (n, n)."""

    gradient: Tensor
    gauge: Tensor


def split_linear(m: Tensor, c: Tensor) -> Linear:
    r"""The split of x -> M x in L2(N(0, C)).

    R x is gauge if and only if R C is antisymmetric, so the symmetric S = M - R solves Lyapunov's equation
    :math:`S C + C S = M C + C M^T`. Unless C is a multiple of the identity, S is *not* the symmetric part of M.

    Args:
        m: (n, n).
        c: (n, n), symmetric positive definite.
    """
    values, q = torch.linalg.eigh(c)
    right = q.T @ (m @ c + c @ m.T) @ q
    s = q @ (right / (values[:, None] + values)) @ q.T
    return Linear(s, m - s)


class Split(NamedTuple):
    r"""A field on a grid, split; arrays hold its components at the midpoints of the grid's edges.

    Attributes:
        potential: phi at the nodes, (h, w).
        gradient: share of :math:`\mathbb E_p \|f\|^2` that is in the gradient part.
        gauge: share that is in the gauge part; the two add up to 1.
        x, y: the gauge part itself, (h, w - 1) and (h - 1, w).
    """

    potential: np.ndarray
    gradient: float
    gauge: float
    x: np.ndarray
    y: np.ndarray


def edges(xs: np.ndarray, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Midpoints of the horizontal edges (h, w - 1, 2) and of the vertical ones (h - 1, w, 2) of a grid."""
    mx, my = (xs[1:] + xs[:-1]) / 2, (ys[1:] + ys[:-1]) / 2
    return np.stack(np.meshgrid(mx, ys), -1), np.stack(np.meshgrid(xs, my), -1)


def split_grid(fx: np.ndarray, fy: np.ndarray, px: np.ndarray, py: np.ndarray, h: float) -> Split:
    r"""The split in L2(p) on a square grid: least squares :math:`\sum_e p_e (\partial_e \phi - f_e)^2` over the edges.

    No flux leaves the grid, so it should reach to where p vanishes. The two parts are orthogonal to rounding; the error
    against the continuum is of order h^2.

    Args:
        fx: first component on the horizontal edges, (height, width - 1).
        fy: second component on the vertical edges, (height - 1, width).
        px, py: density there.
        h: spacing.
    """
    height, width = fx.shape[0], fy.shape[1]
    along_x, along_y = _difference(width, h), _difference(height, h)
    g = csr_matrix(vstack([kron(eye(height), along_x), kron(along_y, eye(width))]))
    f = np.concatenate([fx.ravel(), fy.ravel()])
    p = np.concatenate([px.ravel(), py.ravel()])
    weighted = g.T @ diags(p)
    normal = (weighted @ g).tolil()
    normal[0, 0] += normal.diagonal().max()  # the constant of phi is free: pin it
    phi = splu(normal.tocsc()).solve(weighted @ f)
    rest = f - g @ phi
    total = float((p * f * f).sum())
    gauge = float((p * rest * rest).sum()) / total
    nx = fx.size
    return Split(
        phi.reshape(height, width), float((p * (g @ phi) ** 2).sum()) / total, gauge,
        rest[:nx].reshape(fx.shape), rest[nx:].reshape(fy.shape),
    )  # fmt: skip


def _difference(n: int, h: float) -> csr_matrix:
    """Forward differences, (n - 1, n)."""
    return csr_matrix(diags([-np.ones(n - 1), np.ones(n - 1)], [0, 1], shape=(n - 1, n)) / h)
