r"""The multimodal diffusion transformer of Stable Diffusion 3, MMDiT (Esser et al., 2024, arXiv:2403.03206, section 4).

Official code for inference: ``Stability-AI/sd3-ref``, ``mmdit.py``.

Two streams, caption and image, each with weights of its own for *everything*: modulation, queries, keys and values,
output projection, MLP. They meet in one place, the softmax attention over the concatenated sequence. With one set of
weights for both it is DiT over the concatenation, which is the paper's ablation and ours (``separate=False``).

Deviations:
    - Words have an embedding table, where SD3 has three frozen text encoders and a linear layer.
    - ``pooled`` adds the mean word to the modulation; SD3 adds an MLP of CLIP's pooled vectors. Without it the caption
      can only enter through the attention.
    - No query-key normalisation; positions are those of one image size.
    - The reference code shows no initialisation; ours is adaLN-Zero's.
"""

import torch
from torch import Tensor, nn

from scoreatlas.nn.conditioning import MLP, AdaLNZero, ModulatedHead, SelfAttention, attend, modulate, plain_norm
from scoreatlas.nn.layers import zero
from scoreatlas.nn.tokens import TimeEmbedding, linear, patchify, sincos_2d, unpatchify


class Stream(nn.Module):
    """The weights of one modality in one block.

    Args:
        dim: width of a token.
        heads: of the attention.
        last: nothing reads the stream afterwards: no gates, no output projection, no MLP ("pre_only").
    """

    def __init__(self, dim: int, heads: int, last: bool = False) -> None:
        super().__init__()
        self.last = last
        self.modulation = nn.Sequential(nn.SiLU(), zero(linear(dim, (2 if last else 6) * dim)))
        self.norm1, self.attention = plain_norm(dim), SelfAttention(dim, heads)
        if last:
            self.attention.out = nn.Identity()  # type: ignore[assignment]
        else:
            self.norm2, self.mlp = plain_norm(dim), MLP(dim)

    def before(self, x: Tensor, c: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, ...]]:
        """Queries, keys and values of the stream, and what :meth:`after` needs of the modulation."""
        shift, scale, *rest = self.modulation(c).chunk(2 if self.last else 6, 1)
        return self.attention.project(modulate(self.norm1(x), shift, scale)), tuple(rest)

    def after(self, x: Tensor, h: Tensor, rest: tuple[Tensor, ...]) -> Tensor:
        """The stream (b, n, dim) after its share h of the joint attention and its own MLP."""
        if self.last:
            return x
        gate1, shift2, scale2, gate2 = rest
        x = x + gate1[:, None] * self.attention.out(h)
        return x + gate2[:, None] * self.mlp(modulate(self.norm2(x), shift2, scale2))


class JointBlock(nn.Module):
    """Two streams that meet in one attention."""

    def __init__(self, dim: int, heads: int, last: bool) -> None:
        super().__init__()
        self.context, self.image = Stream(dim, heads, last), Stream(dim, heads)

    def forward(self, context: Tensor, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Caption (b, n, dim), image (b, t, dim) and modulation (b, dim) -> caption, image."""
        words, keep = self.context.before(context, c)
        pixels, own = self.image.before(x, c)
        h = attend(*(torch.cat(pair, 2) for pair in zip(words, pixels, strict=True)))
        n = context.shape[1]
        return self.context.after(context, h[:, :n], keep), self.image.after(x, h[:, n:], own)


class SharedBlock(nn.Module):
    """DiT's block over the concatenation: one set of weights for both modalities."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.block = AdaLNZero(dim, heads)

    def forward(self, context: Tensor, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        n = context.shape[1]
        h, _ = self.block(torch.cat([context, x], 1), c[:, None])
        return h[:, :n], h[:, n:]


class MMDiT(nn.Module):
    """Captioned images: a velocity from a noisy image, a time and a few words.

    Args:
        channels: image channels.
        side: of the images; a multiple of ``patch``.
        patch: side of a patch.
        dim: width of a token, a multiple of 4 and of ``heads``.
        depth: number of blocks.
        heads: of the attention.
        words: size of the vocabulary; index ``words`` is the null word.
        separate: weights of its own for each modality, or shared.
        pooled: the mean word is added to the time in the modulation.
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
        words: int = 14,
        separate: bool = True,
        pooled: bool = False,
    ) -> None:
        super().__init__()
        self.config = {
            "channels": channels, "side": side, "patch": patch, "dim": dim, "depth": depth, "heads": heads,
            "words": words, "separate": separate, "pooled": pooled,
        }  # fmt: skip
        self.patch, self.words = patch, words
        self.embed = linear(channels * patch**2, dim)
        self.register_buffer("place", sincos_2d(dim, side // patch, side // patch), persistent=False)
        self.time, self.word = TimeEmbedding(dim), nn.Embedding(words + 1, dim)
        self.pool = nn.Sequential(linear(dim, dim), nn.SiLU(), linear(dim, dim)) if pooled else None
        self.blocks = nn.ModuleList(
            JointBlock(dim, heads, last=i == depth - 1) if separate else SharedBlock(dim, heads) for i in range(depth)
        )
        self.head = ModulatedHead(dim, channels * patch**2)

    def forward(self, x: Tensor, t: Tensor, caption: Tensor) -> Tensor:
        """Images (b, channels, side, side), times (b,) in [0, 1], words (b, n) -> velocities of the images' shape."""
        c, context = self.time(1000 * t), self.word(caption)  # SD3 tells the network 1000 t too
        if self.pool is not None:
            c = c + self.pool(context.mean(1))
        h = self.embed(patchify(x, self.patch)) + self.place.to(x.dtype)  # words get no position
        for block in self.blocks:
            context, h = block(context, h, c)
        return unpatchify(self.head(h, c[:, None]), self.patch, x.shape[2])
