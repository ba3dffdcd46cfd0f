"""Randomness as an argument: one stream per problem."""

from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor


@final
class Rng:
    """One random stream per problem, so that a row never depends on its neighbours.

    A batch has ``len(seeds) * rows`` rows along axis 0: problem ``i`` owns rows
    ``i * rows ... (i + 1) * rows - 1`` and draws them from its own generator. Solving problem
    ``i`` alone with ``Rng([seeds[i]], rows)`` therefore gives the same numbers as solving it in
    a batch. Device and dtype live here, and nowhere in a solver.

    The idea of stacked per-sample generators is EDM's (Karras et al., 2022, ``generate.py``).

    Args:
        seeds: one seed per problem (0 is a seed like any other).
        rows: number of rows (samples) drawn for each problem.
        device: where tensors are made; the generators live there too.
        dtype: real floating dtype of what is drawn.

    Raises:
        ValueError: no seed, a negative seed, or ``rows < 1``.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        rows: int = 1,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if len(seeds) == 0:
            raise ValueError("Rng needs at least one seed, got none")
        if any(s < 0 for s in seeds):
            raise ValueError(f"seeds must be >= 0, got {list(seeds)}")
        if rows < 1:
            raise ValueError(f"rows must be >= 1, got {rows}")
        self.seeds = tuple(seeds)
        self.rows = rows
        self.device = torch.device(device)
        self.dtype = dtype
        self._generators = [torch.Generator(self.device).manual_seed(s) for s in seeds]

    @property
    def batch(self) -> int:
        """Number of rows along axis 0."""
        return len(self.seeds) * self.rows

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers of shape ``(batch, *shape)``."""
        return self._each(torch.randn, (self.rows, *shape))

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1) of shape ``(batch, *shape)``."""
        return self._each(torch.rand, (self.rows, *shape))

    def normal_like(self, x: Tensor) -> Tensor:
        """Standard normal numbers of the shape of ``x``; complex ``x``: unit variance per real part.

        Raises:
            ValueError: ``x`` has not ``batch`` rows.
        """
        if x.shape[0] != self.batch:
            raise ValueError(
                f"x has {x.shape[0]} rows but this Rng draws {len(self.seeds)} problems"
                f" x {self.rows} rows = {self.batch}"
            )
        if x.is_complex():
            return torch.view_as_complex(self.normal(*x.shape[1:], 2))
        return self.normal(*x.shape[1:])

    def choice(self, weights: Tensor) -> Tensor:
        """Component indices (batch,) drawn with probabilities ``weights``, (k,) or (batch, k)."""
        cdf = weights.to(self.device, self.dtype).cumsum(-1)
        u = self.uniform(1) * cdf[..., -1:]
        k = torch.searchsorted(cdf.expand(self.batch, -1).contiguous(), u).squeeze(-1)
        return k.clamp_max(weights.shape[-1] - 1)

    def _each(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        parts = [draw(shape, generator=g, device=self.device, dtype=self.dtype) for g in self._generators]
        return parts[0] if len(parts) == 1 else torch.cat(parts)
