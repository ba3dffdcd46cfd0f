"""A discrete chain of betas as a schedule, with a grid of its own."""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from scoreatlas.schedules import Schedule, Time


@final
@dataclass(frozen=True)
class FallingBetas(Schedule):
    r"""The chain and the grid of MCGDiff's mixture benchmark (Cardoso et al., 2024, arXiv:2308.07983).

    Betas *fall* from 0.02 to 1e-4, :math:`\alpha_i^2 = \prod_{j \le i} (1 - \beta_j)`, i = 999 t, and log alpha
    is linear in between. The n + 1 moments of a grid are those of the authors' code: going up from the image, an
    index is taken whenever alpha has fallen by (1 - 0.01) / (n - 1), until alpha is 0.01. Indices are whole
    numbers, so steps overshoot and moments are left over, 2 of 20 and 19 of 100. They are spread over the last
    indices, where next to nothing but noise is left.
    """

    first: float = 0.02
    last: float = 1e-4
    length: int = 999

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_alpha = self._log_alpha().to(t)
        i = t * self.length
        low = i.floor().long().clamp_max(self.length - 1)
        between = log_alpha[low] + (i - low) * (log_alpha[low + 1] - log_alpha[low])
        return between.exp(), (-(2 * between).expm1()).sqrt()

    def grid(self, n: int, start: float = 1.0) -> list[Time]:
        """The authors' n + 1 moments, from index ``start`` * 999 down to 0.

        Raises:
            ValueError: as any schedule's, or the chain has too few indices for n steps.
        """
        super().grid(n, start)  # refuses what every schedule refuses
        alpha, top = self._log_alpha().exp().tolist(), round(start * self.length)
        end = next((i for i, a in enumerate(alpha[:top]) if a < 0.01), top)
        taken = [0]
        for i in range(1, end):
            if alpha[taken[-1]] - alpha[i] >= (1 - alpha[end]) / max(n - 1, 1):
                taken.append(i)
        rest = n + 1 - len(taken)
        if rest > top - taken[-1]:
            raise ValueError(f"a chain of {self.length} betas has no grid of {n} steps; take fewer")
        taken += [math.ceil(taken[-1] + (k + 1) / rest * (top - taken[-1]) - 1e-9) for k in range(rest)]
        return [self.at(i / self.length) for i in reversed(taken)]

    def _log_alpha(self) -> Tensor:
        beta = torch.linspace(self.first, self.last, self.length, dtype=torch.float64)
        return torch.cat([beta.new_zeros(1), torch.log1p(-beta).cumsum(0) / 2])
