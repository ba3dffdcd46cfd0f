"""How far samples are from the exact posterior. Axis 0 is samples, all of one problem."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from scoreatlas.operators.base import Linear
from scoreatlas.priors.mixture import GaussianMixture
from scoreatlas.rng import Rng


def unit_directions(n: int, dimension: int, rng: Rng) -> Tensor:
    """``n`` directions (n, dimension), uniform on the sphere, from the first problem of ``rng``."""
    d = rng.normal(n, dimension)[0]
    return d / d.norm(dim=1, keepdim=True)


def sliced_wasserstein(x: Tensor, y: Tensor, directions: Tensor) -> Tensor:
    r"""Sliced 2-Wasserstein distance of two sample sets (Rabin et al., 2011), 0-d.

    .. math:: \left( \frac{1}{L} \sum_l W_2^2(\theta_l^T x, \theta_l^T y) \right)^{1/2}

    In one dimension optimal transport is sorting, so each term is exact. Two independent sets
    from the same law do not give 0: print that floor beside it.

    Args:
        x, y: samples (n, *s), equally many.
        directions: theta, unit vectors (L, prod(s)).

    Raises:
        ValueError: the sets differ in size.
    """
    if len(x) != len(y):
        raise ValueError(f"sliced Wasserstein by sorting needs equally many samples, got {len(x)} and {len(y)}")
    a, b = (torch.sort(directions @ s.flatten(1).T, dim=1).values for s in (x, y))
    return (a - b).square().mean().sqrt()


class GaussianDistance(NamedTuple):
    """W2 between Gaussians and its two parts: total^2 = mean^2 + covariance^2."""

    total: Tensor
    mean: Tensor
    covariance: Tensor


def gaussian_wasserstein(mean: Tensor, cov: Tensor, other_mean: Tensor, other_cov: Tensor) -> GaussianDistance:
    r"""2-Wasserstein distance between two Gaussians, split into mean error and Bures distance.

    .. math:: W_2^2 = \|m_1 - m_2\|^2
       + \mathrm{tr}\left(C_1 + C_2 - 2 (C_1^{1/2} C_2 C_1^{1/2})^{1/2}\right)

    Args:
        mean, other_mean: (n,).
        cov, other_cov: (n, n), symmetric positive semi-definite.
    """
    variances, basis = torch.linalg.eigh(cov)
    root = basis * variances.clamp_min(0).sqrt() @ basis.T
    cross = torch.linalg.eigvalsh(root @ other_cov @ root).clamp_min(0).sqrt().sum()
    bures2 = (cov.trace() + other_cov.trace() - 2 * cross).clamp_min(0)
    shift2 = (mean - other_mean).square().sum()
    return GaussianDistance((shift2 + bures2).sqrt(), shift2.sqrt(), bures2.sqrt())


class Directions(NamedTuple):
    """Orthonormal bases (n, k) of what A sees and of its null space; k may be 0."""

    observed: Tensor
    unobserved: Tensor


def split_directions(A: Linear, tolerance: float = 1e-6) -> Directions:
    """Directions of image space that A sees and does not see, by the SVD of its matrix; float64.

    Args:
        A: linear operator, small enough for its matrix.
        tolerance: singular values below this share of the largest count as 0.
    """
    _, s, vt = torch.linalg.svd(A.matrix(), full_matrices=True)
    rank = int((s > tolerance * s.max()).sum())
    return Directions(vt[:rank].T, vt[rank:].T)


def spread_ratio(x: Tensor, covariance: Tensor, basis: Tensor) -> Tensor:
    r"""Spread of samples over the exact spread within a group of directions, 0-d: 1 is right, 0 is a point.

    .. math:: \left( \tfrac1k \mathrm{tr}\left((V^T C V)^{-1} V^T S V\right) \right)^{1/2}

    With S the sample covariance: the root of the mean variance ratio over independent posterior
    directions of the group, whatever basis V of the group is chosen.

    Args:
        x: samples (n, *s), n >= 2.
        covariance: exact C, (d, d).
        basis: orthonormal V, (d, k), k >= 1.
    """
    z = (x.flatten(1) - x.flatten(1).mean(0)) @ basis
    white = torch.linalg.solve_triangular(_cholesky(covariance, basis), z.T, upper=False)
    return (white.square().sum() / (len(x) - 1) / basis.shape[1]).sqrt()


def bias(x: Tensor, mean: Tensor, covariance: Tensor, basis: Tensor) -> Tensor:
    r"""Error of the sample mean in units of the exact posterior standard deviation, 0-d, rms over a group.

    .. math:: \left( \tfrac1k \, \delta^T V (V^T C V)^{-1} V^T \delta \right)^{1/2}, \quad \delta = \bar x - m

    Its floor with n exact samples is about :math:`1 / \sqrt n`.

    Args:
        x: samples (n, *s).
        mean: exact m, (d,).
        covariance: exact C, (d, d).
        basis: orthonormal V, (d, k), k >= 1.
    """
    z = (x.flatten(1).mean(0) - mean.flatten()) @ basis
    white = torch.linalg.solve_triangular(_cholesky(covariance, basis), z[:, None], upper=False)
    return (white.square().sum() / basis.shape[1]).sqrt()


def mode_weights_error(x: Tensor, exact: GaussianMixture) -> Tensor:
    r"""Total variation distance, 0 ... 1, between the exact weights and those of the samples, 0-d.

    A sample counts for component k with its posterior probability of belonging to k, whose mean
    over exact samples is exactly w_k: :math:`\tfrac12 \sum_k |\frac1n \sum_i r_k(x_i) - w_k|`.
    """
    share = exact.responsibilities(x).mean(0)
    return 0.5 * (share - exact.weights).abs().sum()


def coverage(x: Tensor, reference: Tensor, level: float) -> Tensor:
    """Share of reference draws inside the central ``level`` interval of the samples, mean over coordinates, 0-d.

    Right when it equals ``level``; smaller when the samples are too sure of themselves.

    Args:
        x: samples (n, *s); their quantiles make the interval of each coordinate.
        reference: exact draws, or truths, (m, *s).
        level: in (0, 1).
    """
    tails = torch.tensor([0.5 - level / 2, 0.5 + level / 2], dtype=x.dtype, device=x.device)
    low, high = torch.quantile(x.flatten(1), tails, dim=0)
    inside = (reference.flatten(1) >= low) & (reference.flatten(1) <= high)
    return inside.to(x.dtype).mean()


def diversity(x: Tensor) -> Tensor:
    """Spread over samples of the same y: mean over pixels of the standard deviation, (p,) for (p, r, *s), r >= 2."""
    if x.shape[1] < 2:
        raise ValueError("diversity needs at least two samples of each problem")
    return x.std(1).flatten(1).mean(1)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Sample mean (d,) and unbiased sample covariance (d, d) of samples (n, *s)."""
    z = x.flatten(1)
    centred = z - z.mean(0)
    return z.mean(0), centred.T @ centred / (len(z) - 1)


def _cholesky(covariance: Tensor, basis: Tensor) -> Tensor:
    restricted = basis.T @ covariance @ basis
    factor, failed = torch.linalg.cholesky_ex(restricted)
    if int(failed) or not math.isfinite(float(factor.sum())):
        raise ValueError("the exact covariance is singular in this group of directions: no spread to compare with")
    return factor
