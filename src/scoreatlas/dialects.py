r"""The notations of the field, translated into ours: :math:`x_t = \alpha_t x_0 + \sigma_t \epsilon`, image at t = 0.

Ho et al. (2020), arXiv:2006.11239, equation 4 (beta and alpha-bar); Song et al. (2021), arXiv:2011.13456, equations
29 to 33 (drift and diffusion of VP and VE); Karras et al. (2022), arXiv:2206.00364, section 2 (sigma and scale);
Lipman et al. (2023), arXiv:2210.02747 (time runs from noise to image); Kingma et al. (2021), arXiv:2107.00630
(signal-to-noise ratio).

All schedules are one family: x_t / alpha_t = x_0 + (sigma_t / alpha_t) eps, so two moments with the same *noise level*
sigma / alpha are the same moment, up to the factor alpha.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from scoreatlas.schedules import Schedule, Time


class Rates(NamedTuple):
    """The SDE dx = f x dt + g dw of a schedule at a moment.

    Attributes:
        f: drift per unit of x; -beta / 2 in the VP case, 0 in the VE case.
        g2: g squared, the rate of fresh variance; beta in the VP case.
    """

    f: float
    g2: float


def rates(schedule: Schedule, t: float) -> Rates:
    r"""Drift and diffusion of the SDE whose marginals are those of a schedule, by automatic differentiation.

    .. math:: f = \frac{d \log \alpha}{dt}, \qquad g^2 = \frac{d \sigma^2}{dt} - 2 f \sigma^2
       = \alpha^2 \frac{d}{dt} \frac{\sigma^2}{\alpha^2}

    Raises:
        ValueError: t outside (0, 1]; at 0 some schedules have a root.
    """
    if not 0 < t <= 1:
        raise ValueError(f"rates need a time in (0, 1], got {t}")
    leaf = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        alpha, sigma = schedule(leaf)
        log_alpha, variance = alpha.log(), sigma.square()
        zero = leaf * 0
        (f,) = torch.autograd.grad(log_alpha + zero, leaf, retain_graph=True)
        (slope,) = torch.autograd.grad(variance + zero, leaf)
    return Rates(float(f), float(slope - 2 * f * variance.detach()))


def same_noise(schedule: Schedule, noise: float) -> Time:
    """The moment of a schedule at which sigma / alpha has a given value, by bisection to the last bit.

    Raises:
        ValueError: the schedule never gets there.
    """
    top = schedule.at(1.0).noise
    if not 0 <= noise <= top:
        raise ValueError(f"{schedule} has noise levels 0 ... {top:.4g}, got {noise:.4g}")
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if schedule.at(middle).noise < noise else (low, middle)
    return min((schedule.at(low), schedule.at(high)), key=lambda t: abs(t.noise - noise))


def translate(x: Tensor, t: Time, s: Time) -> Tensor:
    """x_t of one schedule as x_s of another, at moments of equal noise level: a factor, nothing else.

    Raises:
        ValueError: the noise levels differ by more than rounding.
    """
    if not math.isclose(t.noise, s.noise, rel_tol=1e-9):
        raise ValueError(f"these moments have different noise levels, {t.noise:.6g} and {s.noise:.6g}")
    return (s.alpha / t.alpha) * x


def from_betas(beta: Tensor) -> list[Time]:
    """DDPM's chain (T,) as T + 1 moments, the image first: alpha^2 = alpha-bar, sigma^2 = 1 - alpha-bar.

    Index i of the papers' code, which counts from 0, is moment i + 1 here, at t = (i + 1) / T.
    """
    log_bar = torch.cat([beta.new_zeros(1), torch.log1p(-beta).cumsum(0)]).double()
    alpha, sigma = (0.5 * log_bar).exp(), (-log_bar.expm1()).sqrt()
    t = torch.linspace(0, 1, len(log_bar), dtype=torch.float64)
    return [Time(*row) for row in torch.stack([t, alpha, sigma], 1).tolist()]


def to_betas(moments: list[Time]) -> Tensor:
    r"""DDPM's betas (T,) of moments, the image first: :math:`\beta_i = 1 - (\alpha_i / \alpha_{i-1})^2`."""
    log_alpha = torch.tensor([t.alpha for t in moments], dtype=torch.float64).log()
    return -(2 * log_alpha.diff()).expm1()


def edm(t: Time) -> tuple[float, float]:
    """(sigma, s) of EDM, x = s (x_0 + sigma n): its sigma is our noise level, its scale our alpha."""
    return t.noise, t.alpha


def log_snr(t: Time) -> float:
    r""":math:`\lambda = \log (\alpha^2 / \sigma^2)`, the clock of variational diffusion; DPM-Solver's is half of it."""
    return 2 * math.log(t.alpha / t.sigma)


def flow_time(t: Time) -> float:
    r""":math:`\tau = \sigma / (\alpha + \sigma)`, where the straight line from image to noise has this noise level.

    Rectified flow as Stable Diffusion 3 writes it has noise at tau = 1, like us. Flow matching and rectified flow as
    first published have the image at 1: their time is 1 - tau.
    """
    return t.sigma / (t.alpha + t.sigma)
