r"""The dictionary between noise, clean image, score, v and velocity, continued from :mod:`scoreatlas.tweedie`.

There, every quantity is written with the clean image as hub; here are the three things one needs to *compare* models:
the velocity of any schedule, the closed form of every conversion, read off the code itself, and what an error of one
quantity is worth in another.

Sources: Song et al. (2021, arXiv:2011.13456) for drift and diffusion; Lipman et al. (2023, arXiv:2210.02747, theorem 3)
for the velocity of a Gaussian path; Kingma & Gao (2023, arXiv:2303.00848) for losses as weighted losses.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from scoreatlas.schedules import Schedule, Time
from scoreatlas.tweedie import FROM_X0, Quantity, convert, noise_from_x0

QUANTITIES: tuple[Quantity, ...] = ("x0", "noise", "score", "v", "flow")


class Rate(NamedTuple):
    """d alpha / dt and d sigma / dt at a moment."""

    alpha: float
    sigma: float


def rate(schedule: Schedule, t: float) -> Rate:
    """Derivatives of a schedule at t in (0, 1], by automatic differentiation in double precision.

    Raises:
        ValueError: ``t`` is not in (0, 1]; sigma of a VP or VE schedule has no derivative at 0.
    """
    if not 0 < t <= 1:
        raise ValueError(f"rates exist for t in (0, 1], got {t}")
    with torch.enable_grad():
        leaf = torch.tensor(t, dtype=torch.float64, requires_grad=True)
        alpha, sigma = schedule(leaf)
        of_alpha = torch.autograd.grad(alpha, leaf, retain_graph=True)[0] if alpha.requires_grad else torch.zeros(())
        of_sigma = torch.autograd.grad(sigma, leaf)[0]
    return Rate(float(of_alpha), float(of_sigma))


# ---------------------------------------------------------------- the velocity of any schedule


def velocity_from_x0(x: Tensor, x0: Tensor, t: Time, r: Rate) -> Tensor:
    r""":math:`\dot x = \dot\alpha_t \hat x_0 + \dot\sigma_t \hat\epsilon`: the probability flow at x_t."""
    return r.alpha * x0 + r.sigma * noise_from_x0(x, x0, t)


def x0_from_velocity(x: Tensor, velocity: Tensor, t: Time, r: Rate) -> Tensor:
    r""":math:`\hat x_0 = (\sigma_t \dot x - \dot\sigma_t x_t) / (\dot\alpha_t \sigma_t - \dot\sigma_t \alpha_t)`."""
    return (t.sigma * velocity - r.sigma * x) / (r.alpha * t.sigma - r.sigma * t.alpha)


def velocity_from_score(x: Tensor, score: Tensor, t: Time, r: Rate) -> Tensor:
    r""":math:`\dot x = f_t x - \tfrac12 g_t^2 s`: drift minus half the squared diffusion times the score (Song et al.).

    .. math:: f_t = \dot\alpha_t / \alpha_t, \qquad g_t^2 = 2 \sigma_t \dot\sigma_t - 2 \sigma_t^2 f_t
    """
    f = r.alpha / t.alpha
    return f * x - (t.sigma * r.sigma - t.sigma**2 * f) * score


def carry(x: Tensor, t: Time, s: Time) -> Tensor:
    """x_t of one schedule as a point of another, at a moment ``s`` with the same noise level sigma / alpha.

    Raises:
        ValueError: the two moments have different noise levels.
    """
    if abs(t.noise - s.noise) > 1e-9 * max(t.noise, s.noise):
        raise ValueError(f"noise levels differ: {t.noise} and {s.noise}")
    return s.alpha / t.alpha * x


def moment(schedule: Schedule, noise: float) -> Time:
    """When sigma / alpha of a schedule equals ``noise``, by bisection to the last bit of t.

    Raises:
        ValueError: the schedule does not reach that level.
    """
    low, high = 0.0, 1.0
    if not 0 <= noise <= schedule.at(1.0).noise:
        raise ValueError(f"noise must lie in [0, {schedule.at(1.0).noise}], got {noise}")
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if schedule.at(middle).noise > noise else (middle, high)
    found = schedule.at(high)
    return Time(found.t, found.alpha, noise * found.alpha)


# ---------------------------------------------------------------- the table


class Conversion(NamedTuple):
    """target = x_part * x_t + source_part * source."""

    x_part: Tensor
    source_part: Tensor


def conversion(source: Quantity, target: Quantity, t: Time) -> Conversion:
    """The two coefficients of a conversion, read off :func:`scoreatlas.tweedie.convert`, which is affine.

    ``t`` may hold any numbers that support arithmetic, symbols included: the chapter prints its table that way.
    """
    zero: Any = t.alpha * 0  # a number or a symbol: the formulas only add and multiply
    one: Any = zero + 1
    return Conversion(convert(zero, one, t, source, target), convert(one, zero, t, source, target))


def worth(target: Quantity, t: Time) -> float:
    r"""|d target / d x0| at fixed x_t: the size of an error in ``target`` that is worth an error of 1 in x0.

    The loss :math:`\|\hat q - q\|^2` is therefore the denoising loss with weight worth squared.
    """
    return abs(float(FROM_X0[target](torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64), t)))


def identities(x: Tensor, x0: Tensor, t: Time) -> float:
    """Largest relative deviation over all round trips source -> target -> source at one moment.

    Args:
        x: x_t, (b, *s), in double precision for a meaningful answer.
        x0: clean images or estimates, (b, *s).
        t: any moment with sigma > 0.
    """
    worst = 0.0
    for source in QUANTITIES:
        value = FROM_X0[source](x, x0, t)
        for target in QUANTITIES:
            there = convert(value, x, t, source, target)
            back = convert(there, x, t, target, source)
            scale = float(value.abs().max())
            worst = max(worst, float((back - value).abs().max()) / scale)
    return worst
