r"""The evidence lower bound of a diffusion chain, term by term, for any denoiser.

Ho et al. (2020), arXiv:2006.11239, equation 5; Kingma et al. (2021), *Variational Diffusion Models*, arXiv:2107.00630,
sections 4 and 5.

The chain has moments 0 < t_1 < ... < t_T. With the clean image x and steps p(x_s | x_t) = N(mean(x_t, D), v_t I),

.. math:: -\log p(x) \le \underbrace{KL(q(x_T \mid x) \,\|\, p(x_T))}_{\text{prior}}
   + \sum_t \underbrace{E\, KL(q(x_s \mid x_t, x) \,\|\, p(x_s \mid x_t))}_{\text{steps}}
   + \underbrace{E[-\log p(x \mid x_1)]}_{\text{reconstruction}}

Every expectation is over x_t = alpha_t x + sigma_t eps. The functions below take eps and return one number a row, so
that the caller may average over draws, or integrate by quadrature. Natural logarithms.

Deviations:
    - Ho et al. reconstruct integers with a discretised Gaussian. Our data are continuous: p(x | x_1) is
      N(D(x_1), v I) with the noise level of t_1 for a standard deviation.
"""

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.schedules import Schedule, Time

Variance = Literal["fixedsmall", "fixedlarge"]


def step_variances(t: Time, s: Time) -> tuple[float, float]:
    """DDPM's two variances of the step from t to s: of q(x_s | x_t, x_0), and of the forward step."""
    fresh = t.sigma**2 - (t.alpha / s.alpha * s.sigma) ** 2
    return fresh * (s.sigma / t.sigma) ** 2, fresh


def weight(t: Time, s: Time, variance: float) -> float:
    r"""w in E KL = w E||x - D||^2 + ...: the square of what the estimate weighs in the mean, over 2 v.

    In units of the noise, E KL = w (sigma_t / alpha_t)^2 E||eps - eps_hat||^2 + ..., with
    :math:`\beta_t^2 / (2 v (1 - \beta_t)(1 - \bar\alpha_t))` in DDPM's letters (its equation 12). With the small
    variance :math:`w = \frac12 (\mathrm{SNR}_s - \mathrm{SNR}_t)`.
    """
    ratio = t.alpha * s.sigma / (s.alpha * t.sigma)
    return (s.alpha * (1 - ratio**2)) ** 2 / (2 * variance)


def step(
    prior: DiffusionPrior, x: Tensor, eps: Tensor, t: Time, s: Time, variance: Variance | float = "fixedsmall"
) -> Tensor:
    """KL(q(x_s | x_t, x) || p(x_s | x_t)) in nats, (b,), at x_t = alpha_t x + sigma_t eps.

    Args:
        prior: its denoiser makes the mean of p; its schedule is not used.
        x: clean images (b, *s).
        eps: noise, same shape.
        t, s: the moments of the step, both after the image.
        variance: of p, one of DDPM's two or a number.
    """
    small, large = step_variances(t, s)
    v = {"fixedsmall": small, "fixedlarge": large}[variance] if isinstance(variance, str) else variance
    off = (x - prior.denoise(t.alpha * x + t.sigma * eps, t)).square().flatten(1)
    return weight(t, s, v) * off.sum(1) + 0.5 * off.shape[1] * (small / v - 1 - math.log(small / v))


def reconstruction(prior: DiffusionPrior, x: Tensor, eps: Tensor, t: Time) -> Tensor:
    """-log N(x; D(x_1), noise^2 I) in nats, (b,), at the first moment t."""
    off = (x - prior.denoise(t.alpha * x + t.sigma * eps, t)).square().flatten(1)
    return 0.5 * (off / t.noise**2 + math.log(2 * math.pi * t.noise**2)).sum(1)


def prior_term(x: Tensor, top: Time) -> Tensor:
    """KL(q(x_T | x) || N(0, sigma_T^2 I)) in nats, (b,): what is left of the image at the top."""
    return 0.5 * (top.alpha / top.sigma) ** 2 * x.square().flatten(1).sum(1)


def terms(
    prior: DiffusionPrior, x: Tensor, eps: Sequence[Tensor], moments: Sequence[Time], variance: Variance = "fixedsmall"
) -> list[Tensor]:
    """All T + 1 terms, each (b,): reconstruction, steps from the image upwards, prior. Their sum bounds -log p(x).

    Args:
        prior: any denoiser.
        x: clean images (b, *s).
        eps: T draws of noise like x, one a moment.
        moments: t_1 < ... < t_T, without the image itself.
    """
    found = [reconstruction(prior, x, eps[0], moments[0])]
    for s, t, e in zip(moments[:-1], moments[1:], eps[1:], strict=True):
        found.append(step(prior, x, e, t, s, variance))
    return [*found, prior_term(x, moments[-1])]


def simplified_weights(schedule: Schedule, steps: int) -> list[tuple[Time, float]]:
    """What the bound weighs ||eps - eps_hat||^2 with at each moment but the first; the simplified loss says 1.

    For the chain that takes ``steps`` moments of a schedule, with the small variance.
    """
    moments = schedule.grid(steps)[::-1][1:]
    pairs = zip(moments[:-1], moments[1:], strict=True)
    return [(t, weight(t, s, step_variances(t, s)[0]) * t.noise**2) for s, t in pairs]
