r"""Filtered back-projection.

G. N. Ramachandran and A. V. Lakshminarayanan, *Three-dimensional reconstruction from radiographs and electron
micrographs*, Proc. Natl. Acad. Sci. 68, 1971 (the sampled ramp); A. C. Kak and M. Slaney, *Principles of computerized
tomographic imaging*, IEEE Press, 1988, chapter 3.

Deviations:
    - The filter is the transform of the ramp's samples in space, not the sampled ramp: the latter is 0 at the zero
      frequency, which darkens the image.
    - Back-projection reads the filtered views by linear interpolation at the place of each pixel. The transpose of the
      operator's matrix, which visits pixels along rays, would do it with a ripple of some per cent: it is the adjoint
      that iterations need and not the integral that this formula has.
    - Views are weighted by the angle they stand for, half of the gaps on either side, a gap larger than 1.5 times the
      median counting as the median: nothing is assumed about a missing wedge.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.radon import Radon
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class FilteredBackProjection(Solver[Measurement[Radon, Gaussian], None]):
    r"""The inversion formula of the Radon transform, on what views there are.

    .. math:: x(p) = \int_0^\pi (y_\theta * h)(p \cdot n_\theta) \, d\theta, \qquad \hat h(\nu) = |\nu| \, w(\nu)

    No prior, no regard for the noise but through the window, no network.

    Args:
        window: w. ``"ramp"`` is none; ``"hann"`` falls to 0 at the highest frequency and halves the noise and more.
        background: grey value of the air around the object, -1 here. It is taken off before and put back after, because
            the image ends at its frame, where a jump from -1 to 0 would streak.

    Raises:
        ValueError: another window.
    """

    window: Literal["ramp", "hann"] = "ramp"
    background: float = -1.0

    def __post_init__(self) -> None:
        if self.window not in ("ramp", "hann"):
            raise ValueError(f"window must be 'ramp' or 'hann', got {self.window!r}")

    def iterate(self, m: Measurement[Radon, Gaussian], prior: None, rng: Rng) -> Iterator[State]:
        A = m.A
        air = torch.full((1, *A.shape), self.background, dtype=m.y.dtype, device=m.y.device)
        q = filtered(m.y - A(air), A.pixel, self.window)
        weights = view_weights(A.angles).to(q)[:, None]
        x = air + back_projected(weights * q, A)
        yield State(x, x)


def filtered(y: Tensor, width: float, window: str = "ramp") -> Tensor:
    """Views (b, views, bins) convolved with the ramp filter, bins of ``width``; zero outside the detector."""
    bins = y.shape[-1]
    n = 2 ** math.ceil(math.log2(2 * bins))
    k = torch.arange(n, dtype=torch.float64)
    k = torch.minimum(k, n - k)  # distance in bins, periodic
    kernel = torch.where(k % 2 == 1, -1 / (math.pi * k.clamp_min(1)) ** 2, 0.0)
    kernel[0] = 0.25
    ramp = torch.fft.rfft(kernel).real / width  # of h(k) = kernel(k) / width^2, times the width of a sum
    if window == "hann":
        ramp = ramp * (0.5 + 0.5 * torch.cos(math.pi * torch.linspace(0, 1, n // 2 + 1, dtype=torch.float64)))
    return torch.fft.irfft(torch.fft.rfft(y, n) * ramp.to(y), n)[..., :bins]


def back_projected(q: Tensor, A: Radon) -> Tensor:
    """Sum over the views (b, views, bins) of their values at each pixel, linearly interpolated, (b, 1, h, w)."""
    _, h, w = A.shape
    right = torch.arange(w, dtype=torch.float64) - (w - 1) / 2
    up = (h - 1) / 2 - torch.arange(h, dtype=torch.float64)
    x = q.new_zeros(q.shape[0], h * w)
    edged = torch.nn.functional.pad(q, (1, 1))  # nothing is seen beyond the detector
    for k, angle in enumerate(A.angles):
        theta = math.radians(angle)
        place = (right * math.cos(theta) + up[:, None] * math.sin(theta)).flatten() + (A.bins - 1) / 2 + 1
        place = place.clamp(0, A.bins + 1)
        low = place.floor().clamp_max(A.bins)
        share, low = (place - low).to(q), low.long().to(q.device)
        x = x + edged[:, k, low] * (1 - share) + edged[:, k, low + 1] * share
    return x.reshape(-1, 1, h, w)


def view_weights(angles: tuple[float, ...]) -> Tensor:
    """The angle in radians that each view stands for (views,), views being the same modulo 180 degrees."""
    a = torch.tensor(angles, dtype=torch.float64) % 180
    if len(a) == 1:
        return torch.full((1,), math.pi, dtype=torch.float64)
    order = a.argsort()
    gaps = torch.diff(a[order], append=a[order][:1] + 180)
    gaps = torch.where(gaps > 1.5 * gaps.median(), gaps.median(), gaps)
    weights = torch.empty_like(a)
    weights[order] = (gaps + gaps.roll(1)) / 2
    return weights * math.pi / 180
