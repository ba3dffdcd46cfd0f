"""An MLP-Mixer that estimates scores (Tolstikhin et al., 2021, arXiv:2105.01601): the network of ``galaxygrad``.

Patches become tokens; blocks mix tokens, then features, each by a perceptron of one hidden layer behind a layer norm
over both axes, whose weights stand in the order of the axes at that place. Time enters as one more constant channel.
"""

from typing import final

import torch
from torch import Tensor, nn


class Perceptron(nn.Module):
    """n numbers to n numbers over one hidden layer, along the last axis."""

    def __init__(self, n: int, hidden: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(n, hidden), nn.Linear(hidden, n)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


class MixerBlock(nn.Module):
    """Features (b, features, tokens) to the same."""

    def __init__(self, features: int, tokens: int, hidden: int) -> None:
        super().__init__()
        self.mix_tokens, self.mix_features = Perceptron(tokens, hidden), Perceptron(features, hidden)
        self.norm_tokens, self.norm_features = nn.LayerNorm((features, tokens)), nn.LayerNorm((tokens, features))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix_tokens(self.norm_tokens(x))
        x = x.mT
        return (x + self.mix_features(self.norm_features(x))).mT


@final
class ScoreMixer(nn.Module):
    """A score (b, c, h, w) of images (b, c, h, w) at times (b,).

    Args:
        shape: (c, h, w) of one image; ``patch`` divides h and w.
        patch: side of a patch.
        features: numbers for each patch.
        hidden: width of the perceptrons.
        blocks: how many.
        last: the largest time, which the network is told as 1.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        patch: int = 4,
        features: int = 64,
        hidden: int = 512,
        blocks: int = 4,
        last: float = 10.0,
    ) -> None:
        super().__init__()
        c, h, w = shape
        self.grid, self.last = (h // patch, w // patch), last
        tokens = self.grid[0] * self.grid[1]
        self.into = nn.Conv2d(c + 1, features, patch, patch)
        self.out = nn.ConvTranspose2d(features, c, patch, patch)
        self.blocks = nn.ModuleList(MixerBlock(features, tokens, hidden) for _ in range(blocks))
        self.norm = nn.LayerNorm((features, tokens))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = (t / self.last).expand(x.shape[0])[:, None, None, None].expand(-1, 1, *x.shape[2:])
        z = self.into(torch.cat([x, time], 1)).flatten(2)
        for block in self.blocks:
            z = block(z)
        return self.out(self.norm(z).unflatten(2, self.grid))
