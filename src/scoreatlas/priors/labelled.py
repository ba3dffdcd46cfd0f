"""A Gaussian mixture whose components carry class labels: a toy in which guidance has exact answers."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from scoreatlas.priors.mixture import GaussianMixture


@final
@dataclass(frozen=True, eq=False)
class LabelledMixture:
    """p(x, c): component k belongs to class ``labels[k]``.

    Args:
        mixture: p(x).
        labels: (k,) integers 0 ... C - 1, each of them taken.
    """

    mixture: GaussianMixture
    labels: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.mixture.weights) or set(self.labels) != set(range(max(self.labels) + 1)):
            raise ValueError(
                f"needs a label 0 ... C - 1 for each of {len(self.mixture.weights)} components, got {self.labels}"
            )

    @property
    def classes(self) -> int:
        """C."""
        return max(self.labels) + 1

    def share(self, c: int) -> Tensor:
        """p(c), 0-d."""
        return self.mixture.weights[self._of(c)].sum()

    def given(self, c: int) -> GaussianMixture:
        """p(x | c)."""
        k, mixture = self._of(c), self.mixture
        covariances = (
            mixture.covariances if mixture.basis is not None else mixture.variances.expand(len(self.labels), -1)
        )
        return GaussianMixture(mixture.weights[k], mixture.means[k].reshape(-1, *mixture.shape), covariances[k])

    def logits(self, x: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        """log p(c | x_0 + sigma eps = x), (b, C), natural logarithm: the exact classifier of noisy points."""
        joint = [self.share(c).log() + self.given(c).log_prob(x, sigma) for c in range(self.classes)]
        return torch.stack(joint, 1).log_softmax(1)

    def log_tilted(self, x: Tensor, c: int, scale: float, sigma: float | Tensor = 0.0) -> Tensor:
        r"""log of :math:`p_\sigma(x) \, p_\sigma(c \mid x)^s`, (b,), not normalised.

        At sigma = 0 it is the law that guidance is often said to sample; at other levels it is the law whose score
        guided samplers follow.
        """
        return self.mixture.log_prob(x, sigma) + scale * self.logits(x, sigma)[:, c]

    def _of(self, c: int) -> list[int]:
        if not 0 <= c < self.classes:
            raise ValueError(f"no class {c}: there are {self.classes}")
        return [k for k, label in enumerate(self.labels) if label == c]
