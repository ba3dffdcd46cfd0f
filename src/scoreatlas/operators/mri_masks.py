"""Where k-space is sampled: masks on the Cartesian grid, (h, w) boolean, zero frequency at [0, 0].

Random lines with a full centre are :func:`scoreatlas.operators.mri.cartesian_mask`. Here: equispaced lines, spokes
rounded to the grid, and Poisson discs (R. Bridson, SIGGRAPH sketches 2007; for k-space M. Lustig, D. Donoho and
J. M. Pauly, *Sparse MRI*, Magn. Reson. Med. 58, 2007).
"""

import math

import torch
from torch import Tensor

from scoreatlas.rng import Rng


def equispaced_mask(shape: tuple[int, int], acceleration: int, centre: float, offset: int = 0) -> Tensor:
    """Every ``acceleration``-th column and a full centre (autocalibration, ACS), as in parallel imaging.

    Args:
        shape: (h, w).
        acceleration: spacing of the columns; fewer are saved than it says, because the centre is extra.
        centre: share of columns around the zero frequency that are all sampled.
        offset: first of the equispaced columns, counted from the zero frequency.

    Raises:
        ValueError: ``acceleration`` below 1, or a centre outside [0, 1].
    """
    h, w = shape
    if acceleration < 1 or not 0 <= centre <= 1:
        raise ValueError(f"acceleration >= 1 and centre in [0, 1] are needed, got {acceleration} and {centre}")
    frequency = (torch.fft.fftfreq(w) * w).round().long()
    lines = (frequency - offset) % acceleration == 0
    lines[frequency.abs().argsort(stable=True)[: round(w * centre)]] = True
    return lines.expand(h, w).clone()


def spoke_mask(shape: tuple[int, int], spokes: int) -> Tensor:
    """Equally spaced diameters of k-space, each point moved to the nearest place of the grid.

    What papers call radial masks. Real radial sampling does not fall on the grid:
    :class:`scoreatlas.operators.radial.RadialMRI`.

    Raises:
        ValueError: ``spokes`` below 1.
    """
    if spokes < 1:
        raise ValueError(f"at least one spoke is needed, got {spokes}")
    h, w = shape
    mask = torch.zeros(h, w, dtype=torch.bool)
    r = torch.linspace(-0.5, 0.5, 2 * max(h, w) + 1, dtype=torch.float64)[:-1]
    for k in range(spokes):
        a = math.pi * k / spokes
        rows, columns = (r * h * math.sin(a)).round().long(), (r * w * math.cos(a)).round().long()
        inside = (rows.abs() <= (h - 1) // 2) & (columns.abs() <= (w - 1) // 2)
        mask[rows[inside] % h, columns[inside] % w] = True
    return mask


def poisson_mask(shape: tuple[int, int], acceleration: float, centre: float, rng: Rng, density: float = 1.0) -> Tensor:
    """Random points that keep a distance from each other, denser near the zero frequency, and a full central disc.

    Points are tried in random order and kept if no kept point is nearer than ``scale * (1 + density * |k|)``, |k| from
    0 to 1 at the edge; ``scale`` is found by bisection, and the last few points in excess are dropped, so that the
    budget is met exactly.

    Args:
        shape: (h, w).
        acceleration: all points over sampled points, >= 1.
        centre: share of the width that the full disc has as its diameter.
        rng: draws the order; only its first problem is used.
        density: 0 for points that are as dense everywhere.

    Raises:
        ValueError: the disc alone exceeds the budget.
    """
    h, w = shape
    rows, columns = torch.meshgrid(torch.fft.fftfreq(h), torch.fft.fftfreq(w), indexing="ij")
    radius = 2 * torch.hypot(rows, columns)
    disc, budget = radius <= centre, round(h * w / acceleration)
    if not 1 <= budget <= h * w or int(disc.sum()) > budget:
        raise ValueError(f"acceleration {acceleration} leaves {budget} points; the disc alone takes {int(disc.sum())}")
    order = [divmod(i, w) for i in rng.uniform(h * w)[0].cpu().argsort().tolist()]
    order.sort(key=lambda at: not bool(disc[at]))  # the disc comes first
    low, high = 0.0, math.sqrt(h * w)
    for _ in range(12):
        middle = (low + high) / 2
        kept = _apart(order, disc, radius, middle, density)
        low, high = (middle, high) if len(kept) >= budget else (low, middle)
    mask = torch.zeros(h, w, dtype=torch.bool)
    for at in _apart(order, disc, radius, low, density)[:budget]:
        mask[at] = True
    return mask


def _apart(
    order: list[tuple[int, int]], disc: Tensor, radius: Tensor, scale: float, density: float
) -> list[tuple[int, int]]:
    """Points kept in that order: all of the disc, and outside it those with no kept point within their distance."""
    (h, w), inside, reach = disc.shape, disc.tolist(), (scale * (1 + density * radius)).tolist()
    free = torch.ones(h, w, dtype=torch.bool)
    kept = []
    for i, j in order:
        if not inside[i][j] and not free[i, j]:
            continue
        kept.append((i, j))
        if scale > 0:
            n = int(reach[i][j])
            steps = torch.arange(-n, n + 1)
            near = torch.hypot(*(s.float() for s in torch.meshgrid(steps, steps, indexing="ij"))) < reach[i][j]
            at = near.nonzero() - n
            free[(i + at[:, 0]) % h, (j + at[:, 1]) % w] = False
    return kept
