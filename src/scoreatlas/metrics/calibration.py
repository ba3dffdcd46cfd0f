"""Simulation-based calibration: where the truth falls among the samples of a method, over many problems.

Draw x from the prior, measure it, sample the method's posterior L times, and count how many samples lie below x in
some number g(x). If the method samples the posterior, every rank 0 ... L is equally likely (Cook, Gelman & Rubin,
2006; Talts et al., 2018, arXiv:1804.06788), whatever g is; g may depend on the data too (Modrák et al., 2023, Bayesian
Analysis 20). Too many ranks at both ends mean samples that are too sure of themselves, too many in the middle the
opposite, a slope a bias.
"""

import math

import torch
from torch import Tensor


def ranks(samples: Tensor, truth: Tensor, u: Tensor) -> Tensor:
    """How many of L numbers lie below the truth, (p,), whole numbers 0 ... L; ties fall on either side at random.

    Args:
        samples: g of the samples (p, L).
        truth: g of the truth (p,).
        u: uniform numbers (p,) in [0, 1), which break ties.
    """
    below = (samples < truth[:, None]).sum(1)
    ties = (samples == truth[:, None]).sum(1)
    return below + (u * (ties + 1)).floor().long().minimum(ties)


def rank_gap(rank: Tensor, levels: int) -> Tensor:
    r"""Kolmogorov-Smirnov distance of ranks from the uniform law on 0 ... L, 0-d:
    :math:`\max_k | \#\{r \le k\} / p - (k + 1) / (L + 1) |`.

    For p ranks of exact samples it is below :func:`gap_bound` (p) in 95 % of cases, or a little more.

    Args:
        rank: (p,), whole numbers.
        levels: L.
    """
    counts = torch.bincount(rank, minlength=levels + 1).double()
    expected = torch.arange(1, levels + 2, dtype=torch.float64) / (levels + 1)
    return (counts.cumsum(0) / len(rank) - expected).abs().max()


def gap_bound(problems: int) -> float:
    """95 % quantile of the Kolmogorov-Smirnov distance of ``problems`` uniform numbers, by Stephens' (1970) formula."""
    root = math.sqrt(problems)
    return 1.358 / (root + 0.12 + 0.11 / root)


def rank_histogram(rank: Tensor, levels: int, bins: int = 8) -> list[int]:
    """Counts of ranks 0 ... L in ``bins`` bins of equal width.

    Raises:
        ValueError: L + 1 is not a multiple of ``bins``, so that bins would be unequal.
    """
    if (levels + 1) % bins:
        raise ValueError(f"{levels} samples give {levels + 1} ranks, which {bins} equal bins do not divide")
    return torch.bincount(rank // ((levels + 1) // bins), minlength=bins).tolist()
