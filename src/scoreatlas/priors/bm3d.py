r"""BM3D: denoising by block matching and collaborative filtering (Dabov, Foi, Katkovnik and Egiazarian, IEEE Trans.
Image Process. 16, 2007), colour in opponent channels (the same authors, ICIP 2007). Parameters as in the first paper's
normal profile, in its notation in comments; M. Lebrun's analysis (Image Processing On Line 2, 2012) was of help.

Deviations:
    - The cosine transform in both steps; the paper has a biorthogonal wavelet in the first.
    - A Walsh-Hadamard transform along groups, whose sizes are powers of two; the paper has Haar's.
    - The search window is cut at the border of the picture; blocks start at the last rows and columns too.
    - The opponent transform is orthonormal, so that all channels keep the noise level. The first paper's rule for
      strong noise (blocks compared after thresholding, wider tolerances) goes by the luminance's noise, row by row.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import fold, unfold

SIDE, STEP, WINDOW = 8, 3, 19  # N_1, N_step, half of N_S - 1
STRONG = 40 / 127.5  # noise above which blocks are compared after thresholding


@final
@dataclass(frozen=True)
class BM3D:
    """The denoiser, for images (b, c, h, w) in [-1, 1] of one or three channels; rows may have their own sigma.

    Args:
        hard: threshold of the first step, in units of sigma (lambda_3D).
        groups: largest numbers of blocks in a group, powers of two, in the first and second step (N_2).
    """

    hard: float = 2.7
    groups: tuple[int, int] = (16, 32)

    @torch.no_grad()
    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The denoised images.

        Raises:
            ValueError: not one or three channels, or an image smaller than a block.
        """
        if x.ndim != 4 or x.shape[1] not in (1, 3) or min(x.shape[2:]) < SIDE:
            raise ValueError(f"BM3D takes (b, 1 or 3, h, w) with h, w >= {SIDE}, got {tuple(x.shape)}")
        sigma = sigma.to(x).expand(x.shape[0])
        mix = opponent(x.shape[1]).to(x)
        noisy = torch.einsum("ij,bjhw->bihw", mix, x)
        basic = self.step(noisy, noisy, sigma, final=False)
        return torch.einsum("ji,bjhw->bihw", mix, self.step(noisy, basic, sigma, final=True))

    def step(self, x: Tensor, guide: Tensor, sigma: Tensor, *, final: bool) -> Tensor:
        """One step: groups are found, and in the second filtered, by the look of ``guide``."""
        b, c, h, w = x.shape
        d, window = dct(SIDE).to(x), kaiser().to(x)
        values = blocks(x, d)  # (b, blocks, c, SIDE^2), cosine coefficients
        guides = values if guide is x else blocks(guide, d)
        strong = sigma / math.sqrt(c) > STRONG  # the noise of the luminance
        if final:
            tolerance = torch.where(strong, 3500.0, 400.0)  # tau_match, squared grey levels per pixel
            looks = guides[:, :, 0]
        else:
            tolerance = torch.where(strong, 5000.0, 2500.0)
            cut = torch.where(strong, 2.0 * sigma, 0.0)[:, None, None]  # lambda_2D
            looks = guides[:, :, 0].where(guides[:, :, 0].abs() > cut, 0)
        looks = looks / math.sqrt(c)  # luminance is the mean of the channels
        index, size = match(looks, (h, w), tolerance * SIDE**2 / 127.5**2, self.groups[final])
        numerator, denominator = torch.zeros_like(values), torch.zeros_like(values)
        flat_values, flat_guides = values.flatten(0, 1), guides.flatten(0, 1)
        offset = torch.arange(b, device=x.device)[:, None] * values.shape[1]
        for n in (2**i for i in range(self.groups[final].bit_length())):
            which = size == n
            picked = (index + offset[..., None])[which][:, :n]  # (groups, n), into the flat blocks
            if len(picked) == 0:
                continue
            s = sigma[which.nonzero()[:, 0]][:, None, None, None]
            group = along(flat_values[picked])  # (groups, n, c, SIDE^2)
            if final:
                energy = along(flat_guides[picked]).square()
                gain = energy / (energy + s**2).clamp_min(torch.finfo(x.dtype).tiny)
                weight = 1 / gain.square().sum((1, 3), keepdim=True).clamp_min(1e-6)
            else:
                gain = (group.abs() > self.hard * s).to(x)
                weight = 1 / gain.sum((1, 3), keepdim=True).clamp_min(1)
            pixels = spread(along(gain * group), d) * window
            numerator.flatten(0, 1).index_add_(0, picked.flatten(), (weight * pixels).flatten(0, 1))
            denominator.flatten(0, 1).index_add_(0, picked.flatten(), (weight * window).expand_as(pixels).flatten(0, 1))
        return paste(numerator, (h, w)) / paste(denominator, (h, w)).clamp_min(torch.finfo(x.dtype).tiny)


def match(looks: Tensor, size: tuple[int, int], tolerance: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Blocks like each reference block: indices (b, references, most), nearest first, and how many count.

    Args:
        looks: what blocks are compared by, (b, blocks, SIDE^2).
        size: of the image.
        tolerance: largest squared distance, (b,).
        most: a power of two.
    """
    high, wide = size[0] - SIDE + 1, size[1] - SIDE + 1
    looks = looks.unflatten(1, (high, wide))
    squares = looks.square().sum(-1)
    columns = torch.tensor(starts(wide), device=looks.device)
    found, counts = [], []
    for i in starts(high):
        top, bottom = max(i - WINDOW, 0), min(i + WINDOW + 1, high)
        near = looks[:, top:bottom].flatten(1, 2)
        here = looks[:, i, columns]
        distance = squares[:, i, columns, None] + squares[:, None, top:bottom].flatten(2) - 2 * here @ near.mT
        at = torch.arange(wide, device=looks.device).repeat(bottom - top)
        distance = distance.where((at - columns[:, None]).abs() <= WINDOW, torch.inf)
        itself = (i - top) * wide + columns
        distance[:, torch.arange(len(columns), device=looks.device), itself] = -1.0  # always the first of its group
        if distance.shape[2] < most:
            distance = torch.nn.functional.pad(distance, (0, most - distance.shape[2]), value=torch.inf)
        nearest = distance.topk(most, largest=False)
        found.append(nearest.indices.clamp_max(near.shape[1] - 1) + top * wide)
        counts.append((nearest.values <= tolerance[:, None, None]).sum(-1))
    count = torch.cat(counts, 1)
    return torch.cat(found, 1), 2 ** (count.to(looks.dtype) + 0.5).log2().floor().long()


def starts(n: int) -> list[int]:
    """Where reference blocks start along an axis with n places: every STEP, and the last place."""
    return sorted({*range(0, n, STEP), n - 1})


def blocks(x: Tensor, d: Tensor) -> Tensor:
    """Cosine coefficients of all blocks of images (b, c, h, w): (b, blocks, c, SIDE^2)."""
    b, c = x.shape[:2]
    pixels = unfold(x, SIDE).reshape(b, c, SIDE, SIDE, -1)
    return torch.einsum("ik,jl,bcklp->bpcij", d, d, pixels).flatten(3)


def spread(coefficients: Tensor, d: Tensor) -> Tensor:
    """Pixels (..., SIDE^2) of cosine coefficients."""
    z = coefficients.unflatten(-1, (SIDE, SIDE))
    return torch.einsum("ik,jl,...ij->...kl", d, d, z).flatten(-2)


def paste(z: Tensor, size: tuple[int, int]) -> Tensor:
    """Sum of blocks (b, blocks, c, SIDE^2) in their places: (b, c, h, w)."""
    return fold(z.permute(0, 2, 3, 1).flatten(1, 2), size, SIDE)


def along(z: Tensor) -> Tensor:
    """Orthonormal Walsh-Hadamard transform along axis 1, its own inverse; the length is a power of two."""
    n, h = z.shape[1], z.new_ones(1, 1)
    while len(h) < n:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    return torch.einsum("ij,gj...->gi...", h / math.sqrt(n), z)


def dct(n: int) -> Tensor:
    """The orthonormal cosine transform of length n, a row per frequency."""
    k, i = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)
    d = (math.pi / n * (i + 0.5) * k).cos() * math.sqrt(2 / n)
    d[0] /= math.sqrt(2)
    return d


def kaiser() -> Tensor:
    """Weights of the pixels of a block, (SIDE^2,): a Kaiser window with beta = 2."""
    k = torch.kaiser_window(SIDE, periodic=False, beta=2.0, dtype=torch.float64)
    return (k[:, None] * k).flatten()


def opponent(channels: int) -> Tensor:
    """Luminance and two differences of colours, orthonormal; nothing to do for one channel."""
    if channels == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    m = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]], dtype=torch.float64)
    return m / m.norm(dim=1, keepdim=True)
