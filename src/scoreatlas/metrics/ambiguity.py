"""What phaseless data leave open, undone: the version of an estimate that lies nearest to the truth.

The Fourier magnitude of a frame does not change when the image is turned by 180 degrees, shifted around the frame, or
changed in sign. A method cannot know which version was photographed, and is not to be blamed for another one.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.fft import irfft2, rfft2
from torch.nn.functional import pad


class Aligned(NamedTuple):
    """An estimate after alignment, channel by channel.

    Attributes:
        x: the nearest version of each estimate (b, c, h, w).
        flipped: whether it was turned by 180 degrees, (b, c).
        shift: rows and columns it was moved by, down and to the right, (b, c, 2).
        sign: 1 or -1, (b, c).
    """

    x: Tensor
    flipped: Tensor
    shift: Tensor
    sign: Tensor


def align(x: Tensor, truth: Tensor, flip: bool = True, shift: bool = True, sign: bool = False) -> Aligned:
    """The nearest version of each estimate to the truth, in mean square over a frame twice as large.

    What an operator leaves open: Fourier magnitudes flip and shift, coded diffraction does neither; the sign of the
    transmittance, (x + 1) / 2, is known to be positive unless a method ignores that. Outside the image the
    transmittance is 0, and what a shift moves out of it counts as an error. Channels have been measured one by one,
    and may differ.

    Args:
        x: estimates (b, c, h, w), in [-1, 1] if they are good.
        truth: images of the same shape.
        flip, shift, sign: which ambiguities to undo.
    """
    h, w = x.shape[-2:]
    u, v = (pad((z + 1) / 2, (0, w, 0, h)) for z in (x, truth))
    turned = pad((x.flip(-2, -1) + 1) / 2, (0, w, 0, h))
    versions = torch.stack([u, turned] if flip else [u], 2)  # (b, c, 1 or 2, 2h, 2w)
    # the squared distance is constant minus twice the correlation: shifting and turning keep the norm
    correlation = irfft2(rfft2(v)[:, :, None] * rfft2(versions).conj(), s=(2 * h, 2 * w))
    if not shift:
        correlation = correlation[..., :1, :1]
    rows, columns = correlation.shape[-2:]
    flat = correlation.flatten(2)
    best = (flat.abs() if sign else flat).argmax(-1)
    which, dy, dx = best // (rows * columns), best // columns % rows, best % columns
    s = torch.where(flat.gather(-1, best[..., None]).squeeze(-1) < 0, -1, 1) if sign else torch.ones_like(best)
    chosen = versions.take_along_dim(which[..., None, None, None], 2).squeeze(2)
    i = (torch.arange(h, device=x.device) - dy[..., None]) % (2 * h)
    j = (torch.arange(w, device=x.device) - dx[..., None]) % (2 * w)
    moved = chosen.take_along_dim(i[..., None], -2).take_along_dim(j[..., None, :], -1)
    centred = torch.stack([(dy + h) % (2 * h) - h, (dx + w) % (2 * w) - w], -1)
    return Aligned(2 * s[..., None, None] * moved - 1, which == 1, centred, s)
