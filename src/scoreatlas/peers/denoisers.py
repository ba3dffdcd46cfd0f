"""Denoisers of images in [0, 1] as ours: those of deepinv (DRUNet, SwinIR, GSDRUNet, ...) and their like.

:class:`~scoreatlas.peers.deepinv.UnitRange` is the other direction. Here nothing of deepinv is imported: whatever is
called as ``model(u, sigma)`` with images u in [0, 1] and sigma in the same units will do.

A denoiser for restoration has seen noise up to some level, DRUNet's up to 50 grey levels. Diffusion solvers start far
above that, and what a network answers there is nobody's posterior mean. Plug-and-play solvers stay inside: DPIR with
``first`` at most that level.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True, eq=False)
class FromUnitRange:
    """A denoiser of images in [-1, 1] from one of images in [0, 1]: x = 2 u - 1, and sigma is twice as large.

    Attributes:
        model: called as ``model(u, sigma)``, with sigma of shape (b,).
        dtype: what it computes in.
    """

    model: Callable[[Tensor, Tensor], Tensor]
    dtype: torch.dtype = torch.float32

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        """Posterior mean (b, *s) for noisy images (b, *s) and sigma of shape () or (b,), in [-1, 1] units."""
        u, level = (x + 1) / 2, sigma.to(x).expand(x.shape[0]) / 2
        return 2 * self.model(u.to(self.dtype), level.to(self.dtype)).to(x.dtype) - 1
