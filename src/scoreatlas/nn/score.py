r"""Denoising score matching (Vincent, 2011, doi:10.1162/NECO_a_00142), with the weights of Song & Ermon (2019).

Deviations:
    - Song & Ermon (arXiv:1907.05600) draw sigma from a finite geometric sequence; here its logarithm is uniform.
    - The score is written with a denoiser, s = (D - x) / sigma^2, so that one network serves both languages.
"""

import math
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor, nn

from scoreatlas.linalg import rows
from scoreatlas.rng import Rng


@final
@dataclass(frozen=True, eq=False)
class ScoreMatching:
    r"""The weighted loss, a :class:`~scoreatlas.training.Trainable`.

    .. math:: \lambda(\sigma) \, \| s_\theta(x_0 + \sigma \epsilon; \sigma) + \epsilon / \sigma \|^2,
       \quad \lambda = \sigma^2, \quad \log \sigma \sim U(\log \text{low}, \log \text{high})

    With this weight it equals :math:`\|D - x_0\|^2 / \sigma^2`: the error of the predicted noise.

    Args:
        net: a denoiser.
        low, high: range of noise levels, in units of the data.
    """

    net: nn.Module
    low: float = 0.01
    high: float = 20.0

    def loss(self, batch: dict[str, Any], rng: Rng, /) -> Tensor:
        """Loss of each row (b,) for ``{"image": (b, *s)}``, per entry."""
        x0 = batch["image"]
        sigma = (math.log(self.low) + math.log(self.high / self.low) * rng.uniform()).exp()
        eps = rng.normal_like(x0)
        level = rows(sigma, x0)
        x = x0 + level * eps
        score = (self.net(x, sigma) - x) / level**2
        return sigma**2 * (score + eps / level).square().flatten(1).mean(1)
