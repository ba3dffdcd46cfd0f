"""Small layers shared by the networks of this package."""

import math

import torch
from torch import Tensor, nn


def zero(layer: nn.Module) -> nn.Module:
    """The same layer with every parameter set to 0."""
    for p in layer.parameters():
        nn.init.zeros_(p)
    return layer


class FourierFeatures(nn.Module):
    """Sine and cosine of a scalar at geometrically spaced frequencies, (b,) -> (b, dim).

    The embedding of DDPM (Ho et al., 2020), which takes it from the Transformer.
    """

    frequencies: Tensor

    def __init__(self, dim: int, max_period: float = 10_000.0) -> None:
        super().__init__()
        exponent = torch.arange(dim // 2, dtype=torch.float32) / (dim // 2)
        self.register_buffer("frequencies", max_period**-exponent, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        angles = t[:, None] * self.frequencies.to(t.dtype)  # (b, dim / 2)
        return torch.cat([angles.cos(), angles.sin()], dim=1)


class ResBlock(nn.Module):
    """Norm-SiLU-conv twice, with a scale and shift from the embedding (ADM's residual block)."""

    def __init__(self, in_channels: int, channels: int, embedding: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(min(8, in_channels // 4), in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.affine = nn.Linear(embedding, 2 * channels)
        self.norm2 = nn.GroupNorm(min(8, channels // 4), channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, channels, 1) if in_channels != channels else nn.Identity()
        zero(self.conv2)  # each block starts as the identity

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.conv1(nn.functional.silu(self.norm1(x)))
        scale, shift = self.affine(e)[:, :, None, None].chunk(2, dim=1)
        h = self.norm2(h) * (1 + scale) + shift
        h = self.conv2(self.dropout(nn.functional.silu(h)))
        return (self.skip(x) + h) / math.sqrt(2)


class SelfAttention(nn.Module):
    """Multi-head attention over the pixels of a feature map, residual."""

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(min(8, channels // 4), channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        zero(self.out)

    def forward(self, x: Tensor) -> Tensor:
        b, c, height, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, height * width)
        q, k, v = qkv.transpose(-1, -2).unbind(1)  # each (b, heads, pixels, c / heads)
        h = nn.functional.scaled_dot_product_attention(q, k, v)
        h = h.transpose(-1, -2).reshape(b, c, height, width)
        return (x + self.out(h)) / math.sqrt(2)
