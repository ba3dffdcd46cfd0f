r"""A bias-free convolutional denoiser that is told no noise level (Mohan, Kadkhodaie, Simoncelli and Fernandez-Granda,
ICLR 2020, arXiv:1906.05478).

Nothing is added anywhere in the network, so that :math:`D(a x) = a D(x)` for a > 0: what was learnt at one noise level
serves at others, and :math:`D(x) = J(x) \, x` with the Jacobian J.

Deviations:
    - The paper's network (DnCNN without constants: 20 layers of 64 channels) divides by running standard deviations,
      batch norm without means. Here there is no normalisation, and He's initial weights.
    - It works on blocks of ``patch`` x ``patch`` pixels as channels, as FFDNet does (Zhang, Zuo and Zhang, 2018,
      arXiv:1710.04026): a quarter of the cost per layer and twice the receptive field. It is equivariant to shifts by
      whole blocks.
"""

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, pixel_shuffle, pixel_unshuffle

from scoreatlas.linalg import rows
from scoreatlas.rng import Rng


@final
class BiasFreeCNN(nn.Module):
    """x - R(x) with R a chain of 3 x 3 convolutions and ReLUs: E[x_0 | x_0 + sigma eps = x] for any sigma.

    Args:
        channels: of the images.
        width: of the hidden layers.
        layers: convolutions. The receptive field is ``patch * (2 * layers + 1)`` pixels wide.
        patch: side of a block, in pixels.
        bias: adds constants to every layer: the control, which is not homogeneous.
    """

    def __init__(
        self, channels: int = 3, width: int = 64, layers: int = 12, patch: int = 2, bias: bool = False
    ) -> None:
        super().__init__()
        self.config = {"channels": channels, "width": width, "layers": layers, "patch": patch, "bias": bias}
        self.patch = patch
        sizes = [channels * patch**2] + [width] * (layers - 1) + [channels * patch**2]
        convs = [nn.Conv2d(a, b, 3, padding=1, bias=bias) for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
        for conv in convs:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
        nn.init.normal_(convs[-1].weight, std=1e-3)  # starts near the identity
        self.convs = nn.ModuleList(convs)

    def forward(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        """The denoised images (b, c, h, w). ``sigma`` is not looked at: the network is blind."""
        height, width = x.shape[-2:]
        z = pixel_unshuffle(pad(x, (0, -width % self.patch, 0, -height % self.patch)), self.patch)
        for conv in self.convs[:-1]:
            z = conv(z).relu()
        return x - pixel_shuffle(self.convs[-1](z), self.patch)[..., :height, :width]


@final
@dataclass(frozen=True)
class BlindLoss:
    r"""Squared error over sigma, on random windows and their mirror images, with sigma uniform.

    Dividing by sigma stands between the paper's plain squared error, which the largest noise rules, and noise
    prediction, whose weight is :math:`1 / \sigma^2`.

    Attributes:
        net: the denoiser.
        largest: sigma is uniform between 1 % of this and this.
        side: of the windows, pixels.
    """

    net: BiasFreeCNN
    largest: float
    side: int = 40

    def loss(self, batch: dict[str, Any], rng: Rng, /) -> Tensor:
        """Loss of each row, (b,), for ``batch["image"]`` (b, c, h, w)."""
        x = windows(batch["image"], self.side, rng.uniform(3))
        sigma = self.largest * (0.01 + 0.99 * rng.uniform(1)[:, 0])
        noisy = x + rows(sigma, x) * rng.normal_like(x)
        error = self.net(noisy.to(memory_format=torch.channels_last)).float() - x
        return error.square().mean((1, 2, 3)) / sigma


def windows(x: Tensor, side: int, u: Tensor) -> Tensor:
    """A window of each image, (b, c, side, side), placed and mirrored by three uniform numbers per row."""
    top = (u[:, 0] * (x.shape[2] - side + 1)).long().tolist()
    left = (u[:, 1] * (x.shape[3] - side + 1)).long().tolist()
    mirror = (u[:, 2] < 0.5).tolist()
    cut = [a[:, i : i + side, j : j + side] for a, i, j in zip(x, top, left, strict=True)]
    return torch.stack([a.flip(-1) if m else a for a, m in zip(cut, mirror, strict=True)])
