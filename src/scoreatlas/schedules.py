r"""Noise schedules: :math:`x_t = \alpha_t x_0 + \sigma_t \epsilon`, with t in [0, 1].

A schedule is two functions of time. At t = 0 nothing has happened (alpha 1, sigma 0); at t = 1
almost nothing is left of the image. Variance-preserving (VP), variance-exploding (VE) and flow
schedules are the same family in other coordinates: only the ratio sigma / alpha matters to a
denoiser.

A solver meets time as a :class:`Time`, three Python floats. They need no device, promote no dtype
and cost no tensor operation.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor


class Time(NamedTuple):
    """A moment of the diffusion: time, signal scale and noise scale at that time.

    Attributes:
        t: time in [0, 1].
        alpha: signal scale.
        sigma: noise standard deviation.
    """

    t: float
    alpha: float
    sigma: float

    @property
    def noise(self) -> float:
        """Noise level in image units, sigma / alpha: what a denoiser of x / alpha is told."""
        return self.sigma / self.alpha


class Schedule(ABC):
    """Signal and noise scales as functions of time."""

    @abstractmethod
    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha_t, sigma_t) for times ``t`` of any shape; computed in the dtype of ``t``."""

    def at(self, t: float) -> Time:
        """The moment ``t``, in double precision.

        Raises:
            ValueError: ``t`` is outside [0, 1].
        """
        if not 0 <= t <= 1:
            raise ValueError(f"time must lie in [0, 1], got {t}")
        alpha, sigma = self(torch.tensor(t, dtype=torch.float64))
        return Time(t, float(alpha), float(sigma))

    def grid(self, n: int, start: float = 1.0) -> list[Time]:
        """``n + 1`` moments from ``start`` down to 0, equally spaced in t.

        Raises:
            ValueError: ``n < 1`` or ``start`` outside (0, 1].
        """
        if n < 1:
            raise ValueError(f"a grid needs at least one step, got {n}")
        if not 0 < start <= 1:
            raise ValueError(f"start must lie in (0, 1], got {start}")
        t = torch.linspace(start, 0, n + 1, dtype=torch.float64)
        alpha, sigma = self(t)
        return [Time(*row) for row in torch.stack([t, alpha, sigma], 1).tolist()]

    def pairs(self, n: int, start: float = 1.0) -> Iterator[tuple[Time, Time]]:
        """The ``n`` steps (t, s) of the grid, from noise to image."""
        grid = self.grid(n, start)
        return zip(grid[:-1], grid[1:], strict=True)

    def travel(self, n: int, length: int = 1, repeat: int = 1) -> Iterator[tuple[Time, Time]]:
        """Steps (t, s) that go back up: time travel, or RePaint's resampling (arXiv:2201.09865).

        On arriving 1, 1 + length, 1 + 2 length ... steps above the image, jump ``length`` steps
        back to more noise, ``repeat - 1`` times, each followed by the way down. Pairs with
        ``s.t > t.t`` are jumps; the others are reverse steps, one network call each.

        Raises:
            ValueError: ``length`` or ``repeat`` below 1.
        """
        if length < 1 or repeat < 1:
            raise ValueError(f"length and repeat must be >= 1, got {length} and {repeat}")
        level = self.grid(n)[::-1]  # level[0] is the image
        left = dict.fromkeys(range(1, n - length + 1, length), repeat - 1)
        i = n
        while i > 0:
            yield level[i], level[i - 1]
            i -= 1
            if left.get(i, 0) > 0:
                left[i] -= 1
                yield level[i], level[i + length]
                i += length

    @staticmethod
    def forward(x: Tensor, t: Time, s: Time) -> tuple[Tensor, float]:
        r"""Mean and standard deviation of :math:`q(x_s \mid x_t)` for s > t: more noise.

        .. math:: \mathrm{mean} = \frac{\alpha_s}{\alpha_t} x_t, \qquad
           \mathrm{std}^2 = \sigma_s^2 - (\alpha_s / \alpha_t)^2 \sigma_t^2
        """
        ratio = s.alpha / t.alpha
        return ratio * x, math.sqrt(s.sigma**2 - (ratio * t.sigma) ** 2)

    @staticmethod
    def bridge(x: Tensor, x0: Tensor, t: Time, s: Time, eta: float = 1.0) -> tuple[Tensor, float]:
        r"""Mean and standard deviation of :math:`q_\eta(x_s \mid x_t, x_0)` for s < t.

        DDIM's family (Song et al., 2021, arXiv:2010.02502, equation 7), written for any schedule:

        .. math::
           \epsilon = (x_t - \alpha_t x_0) / \sigma_t, \qquad
           \mathrm{std} = \eta \, \sigma_s \sqrt{1 - (\alpha_t \sigma_s / (\alpha_s \sigma_t))^2},
           \qquad \mathrm{mean} = \alpha_s x_0 + \sqrt{\sigma_s^2 - \mathrm{std}^2} \, \epsilon

        ``eta = 1`` is the posterior of the forward chain (DDPM's "fixedsmall" variance),
        ``eta = 0`` is deterministic.

        Args:
            x: x_t, shape (b, \*s).
            x0: the clean image or its estimate, same shape.
            t, s: the two moments, s before t.
            eta: in [0, 1].
        """
        ratio = t.alpha * s.sigma / (s.alpha * t.sigma)
        std = eta * s.sigma * math.sqrt(1 - ratio**2)
        c = math.sqrt(s.sigma**2 - std**2) / t.sigma  # weight of sigma_t eps
        return (s.alpha - c * t.alpha) * x0 + c * x, std


@final
@dataclass(frozen=True)
class VP(Schedule):
    r"""Variance preserving, linear beta (Ho et al., 2020; Song et al., 2021, arXiv:2011.13456, equation 33).

    .. math:: \log \alpha_t = -\tfrac14 t^2 (\beta_1 - \beta_0) - \tfrac12 t \beta_0,
       \qquad \sigma_t^2 = 1 - \alpha_t^2

    The continuous limit of DDPM's chain; ``beta`` 0.1 ... 20 corresponds to 1e-4 ... 0.02 over
    1000 steps.
    """

    beta0: float = 0.1
    beta1: float = 20.0

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_alpha = -0.25 * t**2 * (self.beta1 - self.beta0) - 0.5 * t * self.beta0
        return log_alpha.exp(), (-(2 * log_alpha).expm1()).sqrt()  # expm1 keeps small sigma exact


@final
@dataclass(frozen=True)
class Cosine(Schedule):
    r"""Variance preserving with a cosine (Nichol & Dhariwal, 2021, arXiv:2102.09672, equation 17).

    .. math:: \alpha_t = \cos\left(\tfrac{\pi}{2} \tfrac{T t + s}{1 + s}\right)
       / \cos\left(\tfrac{\pi}{2} \tfrac{s}{1 + s}\right)

    Args:
        offset: s of the paper, 0.008.
        end: T, just before alpha reaches 0, where the clean image could not be asked for; 0.9946
            is the value of DPM-Solver (Lu et al., 2022). The paper clips beta instead.
    """

    offset: float = 0.008
    end: float = 0.9946

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        first = 0.5 * math.pi * self.offset / (1 + self.offset)
        angle = 0.5 * math.pi * (self.end * t + self.offset) / (1 + self.offset)
        alpha = angle.cos() / math.cos(first)
        # 1 - alpha^2 = sin(angle + first) sin(angle - first) / cos(first)^2, without cancellation
        sigma = ((angle + first).sin() * (angle - first).sin()).clamp_min(0).sqrt() / math.cos(first)
        return alpha, sigma


@final
@dataclass(frozen=True)
class LinearSignal(Schedule):
    r"""Variance preserving with the signal falling in a straight line, :math:`\alpha_t = 1 - (1 - \alpha_1) t`.

    Equal steps of the signal are equal steps of the means of a mixture. It is what MCGDiff's benchmark
    (Cardoso et al., 2024, arXiv:2308.07983) sets out to do; what it does is
    :class:`~scoreatlas.chain.FallingBetas`.

    Args:
        end: alpha at t = 1; that of betas falling from 0.02 to 1e-4 over 999 steps.
    """

    end: float = 0.0064

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        lost = (1 - self.end) * t
        return 1 - lost, (lost * (2 - lost)).sqrt()


@final
@dataclass(frozen=True)
class VE(Schedule):
    r"""Variance exploding (Song et al., 2021, arXiv:2011.13456, appendix C).

    .. math:: \alpha_t = 1, \qquad \sigma_t^2 = \sigma_{\min}^2 \left((\sigma_{\max} / \sigma_{\min})^{2t} - 1\right)

    The exact transition kernel of the VE SDE, which vanishes at t = 0. The official code drops
    the -1.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        growth = 2 * math.log(self.sigma_max / self.sigma_min)
        return torch.ones_like(t), self.sigma_min * (growth * t).expm1().sqrt()


@final
@dataclass(frozen=True)
class Flow(Schedule):
    r"""Straight lines from image to noise, :math:`x_t = (1 - \tau) x_0 + \tau \epsilon` with :math:`\tau = T t`.

    Rectified flow and flow matching with the independent coupling (Liu et al., 2022; Lipman et
    al., 2023, arXiv:2210.02747). ``end`` stops just before alpha reaches 0.
    """

    end: float = 0.999

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - self.end * t, self.end * t


SCHEDULES: tuple[Schedule, ...] = (VP(), Cosine(), LinearSignal(), VE(), Flow())
