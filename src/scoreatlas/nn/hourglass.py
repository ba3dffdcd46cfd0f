"""A U-Net without its skip connections: everything has to pass the bottleneck.

The ablation to :class:`~scoreatlas.nn.unet.UNet` (Ronneberger et al., 2015, arXiv:1505.04597): the same encoder, the
same middle, and a decoder whose blocks see nothing but what comes from below.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scoreatlas.nn.layers import FourierFeatures, ResBlock, SelfAttention, zero


class Hourglass(nn.Module):
    """Encoder, bottleneck with attention, decoder.

    Args:
        channels: image channels.
        widths: feature channels per resolution level; the resolution halves between levels.
        decoder_widths: the same for the decoder, which may be wider to make up for the skips; ``widths`` if None.
        blocks: residual blocks per level, in the encoder and in the decoder.
        classes: number of classes; label ``classes`` is the null class. 0 makes an unconditional network.
        patch: pixels are folded into ``patch x patch`` channels before the first level.
    """

    def __init__(
        self,
        channels: int = 1,
        widths: Sequence[int] = (16, 32, 64),
        decoder_widths: Sequence[int] | None = None,
        blocks: int = 1,
        classes: int = 0,
        patch: int = 1,
    ) -> None:
        super().__init__()
        up = list(decoder_widths or widths)
        self.config = {
            "channels": channels, "widths": list(widths), "decoder_widths": up, "blocks": blocks, "classes": classes,
            "patch": patch,
        }  # fmt: skip
        self.classes = classes
        embedding = 4 * widths[0]
        self.noise = nn.Sequential(
            FourierFeatures(widths[0]), nn.Linear(widths[0], embedding), nn.SiLU(),
            nn.Linear(embedding, embedding), nn.SiLU(),
        )  # fmt: skip
        self.label = nn.Embedding(classes + 1, embedding) if classes else None
        self.fold, self.unfold = nn.PixelUnshuffle(patch), nn.PixelShuffle(patch)
        self.stem = nn.Conv2d(channels * patch**2, widths[0], 3, padding=1)
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        c = widths[0]
        for level, width in enumerate(widths):
            if level > 0:
                self.encoder.append(nn.Conv2d(c, c, 3, stride=2, padding=1))
            for _ in range(blocks):
                self.encoder.append(ResBlock(c, width, embedding))
                c = width
        self.middle = nn.ModuleList([ResBlock(c, c, embedding), SelfAttention(c), ResBlock(c, c, embedding)])
        for level, width in reversed(list(enumerate(up))):
            for _ in range(blocks):
                self.decoder.append(ResBlock(c, width, embedding))
                c = width
            if level > 0:
                self.decoder.append(nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(c, c, 3, padding=1)))
        self.head = nn.Sequential(
            nn.GroupNorm(min(8, c // 4), c), nn.SiLU(), zero(nn.Conv2d(c, channels * patch**2, 3, padding=1))
        )  # fmt: skip

    def forward(self, x: Tensor, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """Image (b, channels, h, w), noise embedding input (b,), labels (b,) or None -> (b, channels, h, w)."""
        e = self.noise(noise)
        if self.label is not None:
            if label is None:
                label = torch.full((x.shape[0],), self.classes, device=x.device)
            e = e + self.label(label)
        h = self.stem(self.fold(x))
        for layer in [*self.encoder, *self.middle, *self.decoder]:
            h = layer(h, e) if isinstance(layer, ResBlock) else layer(h)
        return self.unfold(self.head(h))
