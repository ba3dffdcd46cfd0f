r"""Fréchet distance between two sets of images in the features of our own judge. Axis 0 is samples.

Heusel et al. (2017), *GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium*,
arXiv:1706.08500, with another network: FID's features know photographs, and its 2048 dimensions need tens of thousands
of images. The judge has 64 features of digits, so a thousand images give a covariance.
"""

import torch
from torch import Tensor

from scoreatlas.metrics.posterior import gaussian_wasserstein, moments
from scoreatlas.nn.classifier import Classifier


@torch.no_grad()
def features(judge: Classifier, images: Tensor, chunk: int = 200) -> Tensor:
    """Features (n, 64) of images (n, 1, h, w), in double precision."""
    return torch.cat([judge.features(part) for part in images.split(chunk)]).double()


def frechet(a: Tensor, b: Tensor) -> float:
    r"""Squared 2-Wasserstein distance of the Gaussians with the moments of two feature sets (n, d) and (k, d).

    .. math:: \|m_a - m_b\|^2 + \mathrm{tr}\big(C_a + C_b - 2 (C_a^{1/2} C_b C_a^{1/2})^{1/2}\big)

    Positive between two finite sets from one law, and the more so the fewer they are: compare only distances with
    equal numbers, and print the floor.

    Raises:
        ValueError: fewer than two rows.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a covariance needs at least 2 rows, got {len(a)} and {len(b)}")
    return float(gaussian_wasserstein(*moments(a), *moments(b)).total.square())
