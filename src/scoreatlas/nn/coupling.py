r"""A normalising flow of affine couplings: exact density, exact inverse, one pass each way.

Dinh, Sohl-Dickstein & Bengio (ICLR 2017), *Density Estimation using Real NVP*, arXiv:1605.08803, equations 4 to 9.

Deviations:
    - No batch normalisation (their section 3.7): it would make the density of a row depend on its batch.
    - The log-scale is bounded by a hyperbolic tangent times a constant instead of a learnt factor.
"""

import math
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from scoreatlas.nn.layers import zero
from scoreatlas.nn.plane import perceptron
from scoreatlas.rng import Rng


@final
class Coupling(nn.Module):
    r"""One affine coupling: :math:`x = m \odot z + (1 - m) \odot (z \odot e^{s(m \odot z)} + t(m \odot z))`.

    Args:
        mask: (n,) of 0 and 1; entries with 1 pass unchanged and steer the others.
        width, layers: of the perceptron that gives s and t.
        bound: largest log-scale.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, width: int, layers: int, bound: float) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        n = len(mask)
        self.net = perceptron(n, width, layers, 2 * n)
        zero(self.net[-1])  # starts as the identity
        self.bound = bound

    def steer(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Log-scale and shift (b, n), both zero where the mask is 1."""
        s, t = self.net(kept).chunk(2, 1)
        free = 1 - self.mask
        return self.bound * torch.tanh(s / self.bound) * free, t * free

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x (b, n) and log |det dx/dz| (b,)."""
        s, t = self.steer(z * self.mask)
        return z * s.exp() + t, s.sum(1)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z (b, n) and log |det dz/dx| (b,)."""
        s, t = self.steer(x * self.mask)
        return (x - t) * (-s).exp(), -s.sum(1)


@final
class CouplingFlow(nn.Module):
    """Couplings with alternating masks, from N(0, I) to data of dimension n.

    Args:
        n: dimension, at least 2.
        couplings: how many.
        width, layers: of each perceptron.
        bound: largest log-scale of one coupling.
    """

    def __init__(self, n: int = 2, couplings: int = 8, width: int = 64, layers: int = 2, bound: float = 2.0) -> None:
        super().__init__()
        self.config = {"n": n, "couplings": couplings, "width": width, "layers": layers, "bound": bound}
        masks = [((torch.arange(n) + i) % 2).float() for i in range(couplings)]
        self.steps = nn.ModuleList([Coupling(m, width, layers, bound) for m in masks])

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Data x (b, n) from noise z (b, n), and log |det dx/dz| (b,)."""
        total = z.new_zeros(z.shape[0])
        for step in self.steps:
            z, change = step(z)
            total = total + change
        return z, total

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Noise z (b, n) from data x (b, n), and log |det dz/dx| (b,)."""
        total = x.new_zeros(x.shape[0])
        for step in reversed(self.steps):
            assert isinstance(step, Coupling)
            x, change = step.inverse(x)
            total = total + change
        return x, total

    def log_prob(self, x: Tensor) -> Tensor:
        """log density (b,) of x (b, n), in nats."""
        z, change = self.inverse(x)
        return change - 0.5 * (z.square() + math.log(2 * math.pi)).sum(1)


@final
@dataclass(frozen=True, eq=False)
class MaximumLikelihood:
    """Minus the log density, a :class:`~scoreatlas.training.Trainable`; it needs no random numbers."""

    net: CouplingFlow

    def loss(self, batch: dict[str, Any], rng: Rng, /) -> Tensor:
        """Loss of each row (b,) for ``{"image": (b, n)}``, in nats."""
        return -self.net.log_prob(batch["image"])
