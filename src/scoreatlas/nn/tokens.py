"""Between images and sequences: patches, places and times, as DiT makes them.

Peebles & Xie (2023), *Scalable Diffusion Models with Transformers*, arXiv:2212.09748; official code
``facebookresearch/DiT``, ``models.py``.
"""

import torch
from torch import Tensor, nn

from scoreatlas.nn.layers import FourierFeatures


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer with Xavier-uniform weight and zero bias, the Transformer's (and DiT's) initialisation."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def patchify(x: Tensor, patch: int) -> Tensor:
    """Images (b, c, h, w) to tokens (b, h w / patch^2, patch^2 c), row by row.

    Inside a token the order is (row, column, channel), that of the official ``unpatchify``.
    """
    x = x.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # (b, c, rows, patch, columns, patch)
    return x.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(tokens: Tensor, patch: int, height: int) -> Tensor:
    """The inverse of :func:`patchify`, for images of ``height`` pixels.

    Args:
        tokens: (b, h w / patch^2, patch^2 c).
        patch: side of a patch.
        height: h of the images.
    """
    c = tokens.shape[2] // patch**2
    x = tokens.unflatten(2, (patch, patch, c)).unflatten(1, (height // patch, -1))
    return x.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def sincos_2d(dim: int, rows: int, columns: int) -> Tensor:
    r"""Fixed positions on a grid, (rows * columns, dim): a row of the table for each token, not one row for all.

    The first half of the channels encodes the *column*, the second the row; each half holds sines, then cosines, at
    :math:`\omega_k = 10000^{-k / (\mathrm{dim} / 4)}`. (In the official code the first half is called ``emb_h``, but
    its grid has "w first".)

    Raises:
        ValueError: ``dim`` is not a multiple of 4.
    """
    if dim % 4:
        raise ValueError(f"two axes of sines and cosines need a multiple of 4 channels, got {dim}")
    omega = 10_000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [axis.reshape(-1, 1) * omega for axis in (column, row)]
    return torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], 1).float()


class TimeEmbedding(nn.Module):
    """Time (b,) to a vector (b, dim): sines and cosines, then linear, SiLU, linear.

    Args:
        dim: of the result.
        frequencies: channels of the sines and cosines, 256 in the official code; not ``dim``.
    """

    def __init__(self, dim: int, frequencies: int = 256) -> None:
        super().__init__()
        self.body = nn.Sequential(FourierFeatures(frequencies), linear(frequencies, dim), nn.SiLU(), linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        return self.body(t)
