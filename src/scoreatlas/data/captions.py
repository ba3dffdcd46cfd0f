"""Small digits, and captions for them: three words each, measured on the image itself.

``seven thin slanted`` is the class, whether the stroke is thinner than that of most training digits, and whether the
digit leans to the right more than most. The last two words are read off the pixels, so the same ruler judges the
captions of training images and the obedience of generated ones.
"""

import torch
from torch import Tensor, nn

WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "thin", "bold", "upright", "slanted",
)  # fmt: skip
MEDIAN_THICKNESS = 1.43  # pixels, of the small training digits
MEDIAN_SLANT = 0.10  # of the small training digits


def small(images: Tensor) -> Tensor:
    """Digits at half the resolution, (b, 1, 16, 16), by averaging."""
    return nn.functional.avg_pool2d(images, 2)


def enlarge(images: Tensor) -> Tensor:
    """Small digits at the size that the judge knows, (b, 1, 32, 32), by bilinear interpolation."""
    return nn.functional.interpolate(images, scale_factor=2, mode="bilinear")


def thickness(images: Tensor) -> Tensor:
    """Width of the stroke in pixels, (b,): twice the ink over its outline, the total variation.

    Right for a long straight bar along an axis. Images (b, 1, h, w) in [-1, 1]; ink is what is above black.
    """
    u = (images[:, 0].clamp(-1, 1) + 1) / 2
    dy, dx = u.diff(dim=1)[:, :, :-1], u.diff(dim=2)[:, :-1]
    outline = (dx.square() + dy.square()).sqrt().sum((1, 2))
    return 2 * u.sum((1, 2)) / outline.clamp_min(1e-6)


def slant(images: Tensor) -> Tensor:
    """Horizontal shear of the ink, (b,): cov(column, row) / var(row), positive if the top leans to the right.

    Images (b, 1, h, w) in [-1, 1].
    """
    u = (images[:, 0].clamp(-1, 1) + 1) / 2
    u = u / u.sum((1, 2), keepdim=True).clamp_min(1e-6)
    row, column = (torch.arange(n, dtype=u.dtype, device=u.device) for n in u.shape[1:])
    p, q = u.sum(2), u.sum(1)  # ink per row, per column
    r, c = (p * row).sum(1), (q * column).sum(1)
    variance = (p * row.square()).sum(1) - r.square()
    covariance = torch.einsum("bij,i,j->b", u, row, column) - r * c
    return -covariance / variance.clamp_min(1e-6)


def caption(images: Tensor, labels: Tensor) -> Tensor:
    """Words (b, 3) as indices into ``WORDS`` for small images (b, 1, 16, 16) in [-1, 1] and classes (b,)."""
    bold = (thickness(images) > MEDIAN_THICKNESS).long()
    leaning = (slant(images) > MEDIAN_SLANT).long()
    return torch.stack([labels, 10 + bold, 12 + leaning], 1)


def text(words: Tensor) -> str:
    """A caption (n,) in words."""
    return " ".join(WORDS[i] for i in words.tolist())
