r"""Flow matching and rectified flow: a network that predicts the velocity of straight lines.

Lipman et al. (ICLR 2023), *Flow Matching for Generative Modeling*, arXiv:2210.02747, equation 23 with sigma_min = 0.
Liu et al. (ICLR 2023), *Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow*,
arXiv:2209.03003, Algorithm 1; its reflow is the same loss on pairs that a flow has made.

Deviations:
    - Both papers run time from noise (0) to data (1). Here tau runs from image (0) to noise (1), as everywhere in
      this package; their velocity is minus ours.
    - Lipman et al. keep sigma_min > 0 on the data side; it is 0 here, as in their later library.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn

from scoreatlas.linalg import rows
from scoreatlas.nn.unet import UNet
from scoreatlas.rng import Rng


class HasVelocity(Protocol):
    """A network with a method ``velocity``: on images or on points."""

    def velocity(self, x: Tensor, tau: Tensor) -> Tensor:
        """u (b, *s) at x (b, *s) and tau (b,)."""
        ...


class Velocity(Protocol):
    """Anything that returns E[eps - x_0 | (1 - tau) x_0 + tau eps = x]: a network, or the dictionary on a denoiser."""

    def __call__(self, x: Tensor, tau: Tensor, /) -> Tensor:
        """Velocity (b, *s) at x (b, *s) and tau in (0, 1], () or (b,)."""
        ...


@final
class VelocityNet(nn.Module):
    r"""A U-Net that predicts :math:`u(x, \tau) = E[\epsilon - x_0 \mid x_\tau = x]`, and so is a denoiser as well.

    With :math:`\tau = \sigma / (1 + \sigma)` the point :math:`z = x_0 + \sigma \epsilon` lies on the line from image
    to noise once it is divided by :math:`1 + \sigma`, and the dictionary gives

    .. math:: E[x_0 \mid z] = x_\tau - \tau \, u(x_\tau, \tau), \qquad x_\tau = z / (1 + \sigma).

    Args:
        channels, widths, blocks, patch: of the U-Net.
    """

    def __init__(self, channels: int = 1, widths: Sequence[int] = (32, 64), blocks: int = 1, patch: int = 2) -> None:
        super().__init__()
        self.config = {"channels": channels, "widths": list(widths), "blocks": blocks, "patch": patch}
        self.net = UNet(channels, widths, blocks, patch=patch)

    def velocity(self, x: Tensor, tau: Tensor) -> Tensor:
        """u (b, c, h, w) at x (b, c, h, w) and tau in [0, 1], () or (b,); 0 is the image."""
        return self.net(x, 1000 * tau.to(x.device, x.dtype).expand(x.shape[0]))

    def forward(self, z: Tensor, sigma: Tensor) -> Tensor:
        """E[x_0 | x_0 + sigma eps = z], (b, c, h, w): a :class:`~scoreatlas.priors.diffusion.Denoiser`."""
        sigma = sigma.to(z.device, z.dtype).expand(z.shape[0])
        tau = sigma / (1 + sigma)
        x = z / (1 + sigma)[:, None, None, None]
        return x - tau[:, None, None, None] * self.velocity(x, tau)


@final
@dataclass(frozen=True, eq=False)
class FlowMatching:
    r"""The conditional flow-matching loss on straight lines, a :class:`~scoreatlas.training.Trainable`.

    .. math:: \| u_\theta((1 - \tau) x_0 + \tau \epsilon, \tau) - (\epsilon - x_0) \|^2, \quad \tau \sim U(0, 1)

    Without ``"noise"`` in the batch, noise is drawn independently of the image: 1-rectified flow. With it, the pairs
    are kept as they come: reflow.

    Args:
        net: the velocity to train; anything with a method ``velocity(x, tau)``.
    """

    net: Any  # an nn.Module that is HasVelocity; no type says both

    def loss(self, batch: dict[str, Any], rng: Rng, /) -> Tensor:
        """Loss of each row (b,) for ``{"image": (b, *s), "noise": the same, optional}``, per entry."""
        x0 = batch["image"]
        noise = batch["noise"] if "noise" in batch else rng.normal_like(x0)
        tau = rng.uniform()
        w = rows(tau, x0)
        u = self.net.velocity((1 - w) * x0 + w * noise, tau)
        return (u - (noise - x0)).square().flatten(1).mean(1)


def follow(velocity: Velocity, x: Tensor, steps: int, start: float = 1.0, end: float = 0.0) -> Tensor:
    """The path of dx / dtau = u by Euler's rule: (steps + 1, b, *s), from ``x`` at ``start`` to ``end``.

    On straight lines Euler's rule is DDIM, and its end is the image. One call of the velocity a step.
    """
    taus = torch.linspace(start, end, steps + 1, dtype=torch.float64).tolist()
    path = [x]
    for tau, low in zip(taus[:-1], taus[1:], strict=True):
        path.append(path[-1] + (low - tau) * velocity(path[-1], x.new_full((), tau)))
    return torch.stack(path)


def bend(path: Tensor) -> Tensor:
    r"""How far a path is from straight, (b,), per entry: the straightness S of Liu et al., on equal steps of tau.

    .. math:: S = \int_0^1 \frac1n \left\| (x_1 - x_0) - \dot x_\tau \right\|^2 d\tau

    Args:
        path: (steps + 1, b, *s), equally spaced in tau between 0 and 1 in either direction.
    """
    steps = len(path) - 1
    excess = (path[1:] - path[:-1]) * steps - (path[-1] - path[0])
    return excess.square().mean(0).flatten(1).mean(1)
