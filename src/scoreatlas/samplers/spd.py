r"""Shortest-path diffusion, SPD: the corruption that is a geodesic between the spectrum of the data and white noise.

Das et al. (2023), *Image generation with shortest path diffusion*, arXiv:2306.00501, equations for the Fisher path and
for the schedule it implies.

For a zero-mean Gaussian with power spectrum S_0(f), the shortest path in Fisher length to N(0, I) moves log S along
a straight line, S_tau = S_0^tau with tau from 1 (data) to 0 (noise). Written as x_t = a x_0 + sqrt(1 - a^2) eps in
each frequency, that is

.. math:: a_\tau(f)^2 = \frac{1 - S_0(f)^\tau}{1 - S_0(f)} .

Deviations:
    - The paper trains a network for this corruption, whose noise differs from frequency to frequency, so that no
      denoiser of white noise serves. Here the prior is a Gaussian field and its denoiser exact in every frequency:
      SPD is measured as a path, without a network.
    - The official spectrum is a fitted power law, 1.59 / |0.0086 + |f||^2; ours is that of the field.
    - The corruption acts on the image minus the mean of the field (the paper takes its data as centred). Reverse steps
      have the posterior variance; the official code's default is the larger one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor
from torch.fft import fft2, ifft2

from scoreatlas.priors.gaussian_field import GaussianField
from scoreatlas.rng import Rng
from scoreatlas.schedules import VP, Cosine
from scoreatlas.solvers.base import Solver, State

Path = Literal["shortest", "linear", "cosine"]


def signal(path: Path, spectrum: Tensor, tau: float) -> Tensor:
    """a^2 of each frequency at tau in [0, 1], 1 being the data: shape of ``spectrum``, positive.

    Args:
        path: ``"shortest"``, or the variance-preserving ``"linear"`` or ``"cosine"``, equal in all frequencies.
        spectrum: S_0.
        tau: position.
    """
    if path != "shortest":
        schedule = VP() if path == "linear" else Cosine()
        return torch.full_like(spectrum, schedule.at(1 - tau).alpha ** 2)
    log = spectrum.log()
    near = log.abs() < 1e-9  # the limit at S_0 = 1 is tau
    safe = torch.where(near, torch.ones_like(log), log)
    return torch.where(near, torch.full_like(log, tau), torch.expm1(tau * safe) / torch.expm1(safe))


def fisher_length(path: Path, spectrum: Tensor, points: int = 2001) -> float:
    r"""Length :math:`\int \sqrt{\tfrac12 \sum_f (d \log S_t(f) / dt)^2} \, dt` of the path of S_t = a^2 S_0 + 1 - a^2.

    Args:
        path: which.
        spectrum: S_0, float64, not 0.
        points: of the polygon that stands for the curve.
    """
    a2 = torch.stack([signal(path, spectrum, 1 - i / (points - 1)) for i in range(points)])
    steps = (a2 * spectrum + 1 - a2).log().diff(dim=0)
    return float((steps.square().flatten(1).sum(1) / 2).sqrt().sum())


@final
@dataclass(frozen=True)
class SPD(Solver[None, GaussianField]):
    """Ancestral sampling of a Gaussian field along a path of spectra.

    Args:
        steps: number of steps, each a call of the denoiser.
        path: ``"shortest"``, or ``"linear"`` or ``"cosine"`` to compare with.
        warp: steps are equal in tau^(1 / warp); 1 is the paper's constant speed.

    Raises:
        ValueError: another path, or ``steps`` below 1.
    """

    steps: int = 100
    path: Path = "shortest"
    warp: float = 1.0

    def __post_init__(self) -> None:
        if self.path not in ("shortest", "linear", "cosine"):
            raise ValueError(f"path must be 'shortest', 'linear' or 'cosine', got {self.path!r}")
        if self.steps < 1:
            raise ValueError(f"a grid needs at least one step, got {self.steps}")

    def iterate(self, m: None, prior: GaussianField, rng: Rng) -> Iterator[State]:
        u = fft2(rng.normal(*prior.shape), norm="ortho")  # x_t in frequencies
        for gain, to_x0, to_x, std in self.coefficients(prior.spectrum):
            x0 = gain * u
            u = to_x0 * x0 + to_x * u + std * fft2(rng.normal(*prior.shape), norm="ortho")
            yield State(_image(u, prior), _image(x0, prior))

    def coefficients(self, spectrum: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """For each step and frequency: E[x_0 | x_t] / x_t, the weights of x_0 and x_t in the mean of the step, its std.

        As in the official code, the shortest path is entered one step after its end, where a is 0.
        """
        late = 1 if self.path == "shortest" else 0
        taus = [((i + late) / (self.steps + late)) ** self.warp for i in range(self.steps + 1)]
        for tau, after in zip(taus[:-1], taus[1:], strict=True):
            a2, b2 = (signal(self.path, spectrum, v) for v in (tau, after))
            gain = a2.sqrt() * spectrum / (a2 * spectrum + 1 - a2)
            ratio = a2 / b2
            to_x0 = b2.sqrt() * (1 - ratio) / (1 - a2)
            to_x = ratio.sqrt() * (1 - b2) / (1 - a2)
            yield gain, to_x0, to_x, ((1 - b2) * (1 - ratio) / (1 - a2)).clamp_min(0).sqrt()

    def spectrum(self, spectrum: Tensor) -> Tensor:
        """Power spectrum of what the sampler returns, by its recursion: no samples needed."""
        v = torch.ones_like(spectrum)
        for gain, to_x0, to_x, std in self.coefficients(spectrum):
            v = (to_x0 * gain + to_x) ** 2 * v + std**2
        return v


def kl(spectrum: Tensor, sampled: Tensor) -> float:
    """KL divergence, in nats, of a centred Gaussian field of one spectrum from that of another."""
    ratio = spectrum / sampled
    return float((ratio - 1 - ratio.log()).sum() / 2)


def _image(u: Tensor, prior: GaussianField) -> Tensor:
    return prior.mean + ifft2(u, norm="ortho").real
