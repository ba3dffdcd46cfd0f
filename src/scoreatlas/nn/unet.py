"""A small class-conditional U-Net (Ronneberger et al., 2015; Ho et al., 2020; Dhariwal & Nichol, 2021)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scoreatlas.nn.layers import FourierFeatures, ResBlock, SelfAttention, zero


class UNet(nn.Module):
    """Encoder, bottleneck with attention, decoder, and a skip connection per residual block.

    Args:
        channels: image channels.
        widths: feature channels per resolution level; the resolution halves between levels.
        blocks: residual blocks per level, in the encoder and in the decoder.
        classes: number of classes; label ``classes`` is the null class (unconditional).
            0 makes an unconditional network.
        patch: pixels are folded into ``patch x patch`` channels before the first level, which
            divides the cost of the top level by ``patch**2``.
        dropout: dropout probability in the residual blocks.
    """

    def __init__(
        self,
        channels: int = 1,
        widths: Sequence[int] = (32, 64, 128),
        blocks: int = 1,
        classes: int = 0,
        patch: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.config = {
            "channels": channels, "widths": list(widths), "blocks": blocks,
            "classes": classes, "patch": patch, "dropout": dropout,
        }  # fmt: skip
        self.classes: int = classes
        embedding = 4 * widths[0]
        self.noise = nn.Sequential(
            FourierFeatures(widths[0]), nn.Linear(widths[0], embedding), nn.SiLU(),
            nn.Linear(embedding, embedding), nn.SiLU(),
        )  # fmt: skip
        self.label = nn.Embedding(classes + 1, embedding) if classes else None
        self.fold, self.unfold = nn.PixelUnshuffle(patch), nn.PixelShuffle(patch)
        self.stem = nn.Conv2d(channels * patch**2, widths[0], 3, padding=1)

        self.encoder, skips = nn.ModuleList(), []
        c = widths[0]
        for level, width in enumerate(widths):
            if level > 0:
                self.encoder.append(nn.Conv2d(c, c, 3, stride=2, padding=1))
            for _ in range(blocks):
                self.encoder.append(ResBlock(c, width, embedding, dropout))
                c = width
                skips.append(c)
        self.middle = nn.ModuleList(
            [ResBlock(c, c, embedding, dropout), SelfAttention(c), ResBlock(c, c, embedding, dropout)]
        )
        self.decoder = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for _ in range(blocks):
                self.decoder.append(ResBlock(c + skips.pop(), width, embedding, dropout))
                c = width
            if level > 0:
                self.decoder.append(
                    nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(c, c, 3, padding=1))
                )
        self.head = nn.Sequential(
            nn.GroupNorm(min(8, c // 4), c), nn.SiLU(), zero(nn.Conv2d(c, channels * patch**2, 3, padding=1))
        )

    def forward(self, x: Tensor, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """Image (b, channels, h, w), noise embedding input (b,), labels (b,) or None -> (b, channels, h, w)."""
        e = self.noise(noise)
        if self.label is not None:
            if label is None:
                label = torch.full((x.shape[0],), self.classes, device=x.device)
            e = e + self.label(label)
        h = self.stem(self.fold(x))
        skips = []
        for layer in self.encoder:
            if isinstance(layer, ResBlock):
                h = layer(h, e)
                skips.append(h)
            else:
                h = layer(h)
        for layer in self.middle:
            h = layer(h, e) if isinstance(layer, ResBlock) else layer(h)
        for layer in self.decoder:
            h = layer(torch.cat([h, skips.pop()], dim=1), e) if isinstance(layer, ResBlock) else layer(h)
        return self.unfold(self.head(h))
