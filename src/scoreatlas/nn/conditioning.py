r"""Four ways to tell the blocks of a transformer about time and class.

Peebles & Xie (2023), *Scalable Diffusion Models with Transformers*, arXiv:2212.09748, section 3.2 and figure 3.

A :class:`Block` maps (image tokens x, condition tokens c) to the same pair, where c = [emb(t); emb(y)]:

======================  ==============================================  ====================================
block                   what it does with c                             what becomes of c
======================  ==============================================  ====================================
:class:`InContext`      two more tokens of the sequence                 it is a pair of tokens like the others
:class:`CrossAttended`  keys and values of an attention of its own      unchanged
:class:`AdaLN`          c[0] + c[1] gives each norm a scale and shift   unchanged
:class:`AdaLNZero`      and each branch a gate, which starts at 0       unchanged
======================  ==============================================  ====================================

Deviations:
    - The official code (``facebookresearch/DiT``, ``models.py``) holds adaLN-Zero alone; the other three follow the
      paper's figure and text, which do not give their initialisation: ours is that of the other layers.
    - The last linear layer starts at zero in all four, so that all four networks start as the same function.
"""

from typing import Protocol, final

import torch
from torch import Tensor, nn

from scoreatlas.nn.layers import zero
from scoreatlas.nn.tokens import linear


class Block(Protocol):
    """A transformer block that is told something."""

    def __call__(self, x: Tensor, c: Tensor, /) -> tuple[Tensor, Tensor]:
        """Tokens x (b, n, dim) and c (b, m, dim), both of the same shapes afterwards."""
        ...


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (1 + scale) + shift for tokens (b, n, dim) and vectors (b, dim): 0 is the neutral value of both."""
    return x * (1 + scale[:, None]) + shift[:, None]


def plain_norm(dim: int) -> nn.LayerNorm:
    """Layer norm without scale and shift of its own."""
    return nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(dim / heads)) v per head, (b, heads, n, dim / heads) -> (b, n, dim)."""
    return nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Multi-head attention among tokens; streams can be joined between :meth:`project` and ``out``."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = linear(dim, 3 * dim), linear(dim, dim)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (b, heads, n, dim / heads)."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        return self.out(attend(*self.project(x)))


class CrossAttention(nn.Module):
    """Multi-head attention from tokens x to tokens c."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.kv, self.out = linear(dim, dim), linear(dim, 2 * dim), linear(dim, dim)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        q = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(c).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(attend(q, k, v))


class MLP(nn.Sequential):
    """Linear to four times the width, GELU (its tanh form, as in the official code), linear back."""

    def __init__(self, dim: int) -> None:
        super().__init__(linear(dim, 4 * dim), nn.GELU(approximate="tanh"), linear(4 * dim, dim))


@final
class InContext(nn.Module):
    """A plain pre-norm block over the sequence [x; c]."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim, eps=1e-6), SelfAttention(dim, heads)
        self.norm2, self.mlp = nn.LayerNorm(dim, eps=1e-6), MLP(dim)

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.cat([x, c], 1)
        h = h + self.attention(self.norm1(h))
        h = h + self.mlp(self.norm2(h))
        return h[:, : x.shape[1]], h[:, x.shape[1] :]


@final
class CrossAttended(nn.Module):
    """A plain block with an attention from x to c between self-attention and MLP."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim, eps=1e-6), SelfAttention(dim, heads)
        self.norm2, self.cross = nn.LayerNorm(dim, eps=1e-6), CrossAttention(dim, heads)
        self.norm3, self.mlp = nn.LayerNorm(dim, eps=1e-6), MLP(dim)

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        x = x + self.attention(self.norm1(x))
        x = x + self.cross(self.norm2(x), c)
        return x + self.mlp(self.norm3(x)), c


@final
class AdaLN(nn.Module):
    """Scale and shift of both norms are linear in SiLU of the *sum* of the condition tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.modulation = nn.Sequential(nn.SiLU(), linear(dim, 4 * dim))
        self.norm1, self.attention = plain_norm(dim), SelfAttention(dim, heads)
        self.norm2, self.mlp = plain_norm(dim), MLP(dim)

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        shift1, scale1, shift2, scale2 = self.modulation(c.sum(1)).chunk(4, 1)
        x = x + self.attention(modulate(self.norm1(x), shift1, scale1))
        return x + self.mlp(modulate(self.norm2(x), shift2, scale2)), c


@final
class AdaLNZero(nn.Module):
    """:class:`AdaLN` with a gate per channel on each branch, all zero at first: the block starts as the identity."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.modulation = nn.Sequential(nn.SiLU(), zero(linear(dim, 6 * dim)))
        self.norm1, self.attention = plain_norm(dim), SelfAttention(dim, heads)
        self.norm2, self.mlp = plain_norm(dim), MLP(dim)

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c.sum(1)).chunk(6, 1)
        x = x + gate1[:, None] * self.attention(modulate(self.norm1(x), shift1, scale1))
        return x + gate2[:, None] * self.mlp(modulate(self.norm2(x), shift2, scale2)), c


class PlainHead(nn.Module):
    """Norm and a linear layer that starts at zero, from tokens (b, n, dim) to (b, n, outputs)."""

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(dim, eps=1e-6), zero(linear(dim, outputs))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.linear(self.norm(x))


class ModulatedHead(nn.Module):
    """The same with a modulated norm; there is no gate, for there is no branch."""

    def __init__(self, dim: int, outputs: int, zeroed: bool = True) -> None:
        super().__init__()
        last = linear(dim, 2 * dim)
        self.modulation = nn.Sequential(nn.SiLU(), zero(last) if zeroed else last)
        self.norm, self.linear = plain_norm(dim), zero(linear(dim, outputs))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.modulation(c.sum(1)).chunk(2, 1)
        return self.linear(modulate(self.norm(x), shift, scale))


BLOCKS: dict[str, type[nn.Module]] = {
    "in-context": InContext, "cross-attention": CrossAttended, "adaLN": AdaLN, "adaLN-Zero": AdaLNZero,
}  # fmt: skip


def head(conditioning: str, dim: int, outputs: int) -> nn.Module:
    """The last layer that goes with a conditioning."""
    if conditioning in ("in-context", "cross-attention"):
        return PlainHead(dim, outputs)
    return ModulatedHead(dim, outputs, zeroed=conditioning == "adaLN-Zero")
