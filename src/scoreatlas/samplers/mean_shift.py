r"""Classifier guidance as a shift of the reverse mean.

Dhariwal & Nichol (2021), *Diffusion Models Beat GANs on Image Synthesis*, arXiv:2105.05233, Algorithm 1.
(Algorithm 2, the form for DDIM, is :class:`~scoreatlas.samplers.ancestral.DDIM` on a guided denoiser.)

Deviations:
    - Section 4.1 expands log p(y | x_s) around the mean of x_s. Algorithm 1 and the official code
      (``condition_mean``) take the gradient at x_t, with the classifier told t. ``expand`` offers both.
    - The official variance is learned, between the two offered here, and pixels of the estimate of x_0 are clipped.
    - The scale sits in the denoiser, as it sits in the gradient function of the official code.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, final

from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.guided import guidance
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class MeanShift(Solver[None, DiffusionPrior]):
    r"""DDPM with :math:`x_s \sim N(\mu + s \, \varsigma^2 \nabla \log p(c \mid x), \varsigma^2 I)`.

    In the limit of many steps it is DDPM on the guided denoiser. With few it guides less: the shift has the factor
    :math:`\varsigma^2`, which under ``"fixedsmall"`` is smaller than what the guided denoiser implies by the factor
    sigma_s^2 / sigma_t^2 and vanishes in the last step.

    Args:
        steps: calls of the network, and of the classifier.
        variance: of :class:`~scoreatlas.samplers.ancestral.DDPM`.
        expand: where the gradient is taken: ``"state"``, x_t (algorithm and code), or ``"mean"`` (derivation).

    Raises:
        ValueError: another variance or expansion; on use, a prior whose denoiser is not guided.
    """

    steps: int = 250
    variance: Literal["fixedsmall", "fixedlarge"] = "fixedsmall"
    expand: Literal["state", "mean"] = "state"

    def __post_init__(self) -> None:
        if self.variance not in ("fixedsmall", "fixedlarge") or self.expand not in ("state", "mean"):
            raise ValueError(
                f"variance must be 'fixedsmall' or 'fixedlarge' and expand 'state' or 'mean', got {self!r}"
            )

    def iterate(self, m: None, prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        guided = guidance(prior)
        x = prior.initial(rng)
        for t, s in prior.schedule.pairs(self.steps):
            x0, pull = guided.parts(x / t.alpha, x.new_full((), t.noise))
            mean, std = prior.schedule.bridge(x, x0, t, s)
            if self.variance == "fixedlarge" and s.sigma > 0:
                std *= t.sigma / s.sigma
            at, point = t, x
            if self.expand == "mean" and s.sigma > 0:
                at, point = s, mean
                _, pull = guided.parts(mean / s.alpha, x.new_full((), s.noise))
            # pull is in image units: sigma^2 grad_z with z = x / alpha, so grad_x = pull alpha / sigma_t^2
            strength = guided.strength(point, x.new_full((), at.noise))
            mean = mean + std**2 * at.alpha / at.sigma**2 * strength * pull
            x = mean + std * rng.normal_like(x)
            yield State(x, x0)
