"""The diffusion transformer, DiT (Peebles & Xie, 2023, arXiv:2212.09748).

Official code: ``facebookresearch/DiT``, ``models.py``.

Deviations:
    - As many channels come out as go in. The official network has twice as many: noise, and what interpolates its
      diagonal variance. Here :class:`~scoreatlas.nn.precondition.Preconditioned` makes a denoiser of the output.
    - Pixels, not the latent of an autoencoder. Nothing in the network knows the difference.
    - The label table starts at N(0, 1), torch's default, and the layers of the time embedding like all others. The
      official code draws both with standard deviation 0.02; a short training should not begin by growing them.
    - The null class is a row of the table here too, but dropping labels is left to the loss.
"""

import torch
from torch import Tensor, nn

from scoreatlas.nn.conditioning import BLOCKS, head
from scoreatlas.nn.tokens import TimeEmbedding, linear, patchify, sincos_2d, unpatchify


class DiT(nn.Module):
    """Patches, places, transformer blocks told about time and class, patches.

    Args:
        channels: image channels.
        side: of the images; a multiple of ``patch``.
        patch: side of a patch; (side / patch)^2 tokens.
        dim: width of a token, a multiple of 4 and of ``heads``.
        depth: number of blocks.
        heads: of each attention.
        classes: number of classes; label ``classes`` is the null class. The table has classes + 1 rows.
        conditioning: a key of :data:`~scoreatlas.nn.conditioning.BLOCKS`.
    """

    place: Tensor

    def __init__(
        self,
        channels: int = 1,
        side: int = 32,
        patch: int = 4,
        dim: int = 64,
        depth: int = 4,
        heads: int = 4,
        classes: int = 10,
        conditioning: str = "adaLN-Zero",
    ) -> None:
        super().__init__()
        self.config = {
            "channels": channels, "side": side, "patch": patch, "dim": dim, "depth": depth, "heads": heads,
            "classes": classes, "conditioning": conditioning,
        }  # fmt: skip
        self.patch, self.classes = patch, classes
        self.embed = linear(channels * patch**2, dim)
        self.register_buffer("place", sincos_2d(dim, side // patch, side // patch), persistent=False)
        self.time, self.label = TimeEmbedding(dim), nn.Embedding(classes + 1, dim)
        self.blocks = nn.ModuleList([BLOCKS[conditioning](dim, heads) for _ in range(depth)])
        self.head = head(conditioning, dim, channels * patch**2)

    def forward(self, x: Tensor, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """Images (b, channels, side, side), time input (b,), labels (b,) or None -> images of the same shape."""
        if label is None:
            label = torch.full((x.shape[0],), self.classes, device=x.device)
        c = torch.stack([self.time(noise), self.label(label)], 1)  # (b, 2, dim)
        h = self.embed(patchify(x, self.patch)) + self.place.to(x.dtype)
        for block in self.blocks:
            h, c = block(h, c)
        return unpatchify(self.head(h, c), self.patch, x.shape[2])
