"""Free-form masks for inpainting: brush strokes.

J. Yu et al., *Free-form image inpainting with gated convolution*, ICCV 2019, arXiv:1806.03589.

Deviations:
    - Strokes are added, segment by segment, until a given share of the image is covered, where the paper draws a random
      number of strokes; so masks of different images miss the same share.
    - A brush is round: a pixel is missing if its centre lies within half a width of the line.
"""

import math

import torch
from torch import Tensor

from scoreatlas.rng import Rng

_SEGMENTS = 6  # of one stroke


def free_form_mask(shape: tuple[int, int, int], missing: float, rng: Rng, width: float = 0.1) -> Tensor:
    """Mask (c, h, w), True where the pixel is seen, with brush strokes painted out, all channels alike.

    A stroke starts anywhere and goes on for six segments, each a tenth to a third of the side long, turning by
    up to 70 degrees to either side. Painting stops after the segment that reaches ``missing``.

    Args:
        shape: (c, h, w).
        missing: share of pixels to paint out, in (0, 0.9]; what is painted exceeds it by less than one segment.
        rng: draws the strokes; only its first problem is used.
        width: of the brush, as a share of the shorter side.

    Raises:
        ValueError: ``missing`` or ``width`` out of range.
    """
    if not 0 < missing <= 0.9:
        raise ValueError(f"the share of missing pixels must lie in (0, 0.9], got {missing}")
    if not 0 < width <= 1:
        raise ValueError(f"the brush width must lie in (0, 1], got {width}")
    c, h, w = shape
    side = min(h, w)
    row, column = torch.arange(h)[:, None] + 0.5, torch.arange(w)[None] + 0.5
    painted = torch.zeros(h, w, dtype=torch.bool)
    while True:
        u = rng.uniform(3 + 2 * _SEGMENTS)[0].double().cpu().tolist()
        y, x, angle = u[0] * h, u[1] * w, 2 * math.pi * u[2]
        for length, turn in zip(u[3::2], u[4::2], strict=True):
            reach, angle = side * (0.1 + 0.23 * length), angle + math.radians(140) * (turn - 0.5)
            dy, dx = reach * math.sin(angle), reach * math.cos(angle)
            along = (((row - y) * dy + (column - x) * dx) / reach**2).clamp(0, 1)  # nearest point of the segment
            painted |= torch.hypot(row - y - along * dy, column - x - along * dx) <= width * side / 2
            y, x = min(max(y + dy, 0.0), h), min(max(x + dx, 0.0), w)
            if painted.double().mean() >= missing:
                return (~painted).expand(c, h, w).clone()
