"""Sequential Monte Carlo: weights and resampling of particle clouds, rows independent.

A cloud is (b, k, *s): row i holds k particles of problem i, with log weights (b, k) known up to a
constant of the row. Nothing here waits for the host.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Cloud(NamedTuple):
    """Weighted particles.

    Attributes:
        x: particles (b, k, *s).
        x0: their estimates of the clean image, same shape.
        log_w: log weights (b, k), up to a constant of each row.
    """

    x: Tensor
    x0: Tensor
    log_w: Tensor


def ess(log_w: Tensor) -> Tensor:
    r"""Effective sample size :math:`1 / \sum_i W_i^2`, 1 ... k, of each row (b,); W are the normalised weights."""
    return 1 / log_w.softmax(1).square().sum(1)


def choose(log_w: Tensor, u: Tensor) -> Tensor:
    """Indices (b, j) of particles: the weights' quantiles at levels u (b, j) in [0, 1)."""
    cdf = log_w.softmax(1).cumsum(1)
    return torch.searchsorted(cdf, u * cdf[:, -1:], right=True).clamp_max(log_w.shape[1] - 1)


def systematic(log_w: Tensor, u: Tensor) -> Tensor:
    """Ancestors (b, k) by systematic resampling (Carpenter, Clifford & Fearnhead, 1999): u (b, 1), uniform.

    Particle i gets floor(k W_i) or that plus one descendants, k W_i on average: less noise than k
    independent draws.
    """
    k = log_w.shape[1]
    return choose(log_w, (torch.arange(k, device=u.device, dtype=u.dtype) + u) / k)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Particles (b, j, *s) of a cloud x (b, k, *s) by index (b, j)."""
    return x[torch.arange(len(x), device=x.device)[:, None], index]


def resample(log_w: Tensor, u: Tensor, threshold: float = 1.0) -> tuple[Tensor, Tensor]:
    """Ancestors (b, k) and new log weights: systematic in rows whose ESS is below ``threshold`` k, none in others.

    Args:
        log_w: log weights (b, k).
        u: uniform numbers (b, 1).
        threshold: in [0, 1]; 1 resamples whenever weights differ, 0 never.
    """
    k = log_w.shape[1]
    poor = (ess(log_w) < threshold * k)[:, None]
    stay = torch.arange(k, device=log_w.device)
    return torch.where(poor, systematic(log_w, u), stay), torch.where(poor, 0, log_w)
