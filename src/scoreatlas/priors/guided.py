r"""Guided denoisers: a class or a caption strengthened beyond Bayes' rule.

Dhariwal & Nichol (2021), *Diffusion Models Beat GANs on Image Synthesis*, arXiv:2105.05233, Algorithm 2.
Ho & Salimans (2022), *Classifier-Free Diffusion Guidance*, arXiv:2207.12598, equation 6.
Kynkaanniemi et al. (2024), *Applying Guidance in a Limited Interval [...]*, arXiv:2404.07724.

A guided denoiser is a :class:`~scoreatlas.priors.diffusion.Denoiser`, so every sampler and solver runs guided
without change. Clean images, noise and score are affine in each other, so guiding one is guiding all (see
:mod:`scoreatlas.tweedie`).

Deviations:
    - Two scales circulate. Ours is s, of Imagen (arXiv:2205.11487) and of most code: 0 is unconditional, 1 is Bayes'
      rule. Ho & Salimans write w = s - 1, see :meth:`ClassifierFree.extra`. Dhariwal & Nichol's s is ours if their
      diffusion model knows no class; if it does, as in most of their runs, it is ours less 1.
    - The official ADM code hands the scale to the gradient function, and under DDIM clips the estimate of the clean
      image to [-1, 1] before it is guided, not after. Nothing is clipped here.
    - Outside the interval both networks are still called; Kynkaanniemi et al. save one of the calls.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor

from scoreatlas.priors.diffusion import Denoiser, DiffusionPrior

EVERYWHERE = (0.0, math.inf)


class Guided(ABC):
    r"""A denoiser with the pull towards a condition multiplied.

    .. math:: D_s(x; \sigma) = D(x; \sigma) + s \, \sigma^2 \nabla_x \log p(c \mid x; \sigma)

    Attributes:
        scale: s; 0 is the unconditional denoiser, 1 the conditional one.
        interval: noise levels (low, high] where the scale holds; elsewhere it is 1.
    """

    scale: float
    interval: tuple[float, float]

    @abstractmethod
    def parts(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        r"""D and the pull :math:`\sigma^2 \nabla_x \log p(c \mid x; \sigma)`, each (b, \*s)."""

    @final
    def strength(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The scale at these noise levels, shaped to multiply x (b, *s)."""
        low, high = self.interval
        sigma = sigma.to(x)
        inside = ((sigma > low) & (sigma <= high)).to(x)
        return _rows(1 + (self.scale - 1) * inside, x)

    @final
    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        """Guided estimate of the clean image (b, *s). Unless s is 0 or 1 it is no posterior mean."""
        base, pull = self.parts(x, sigma)
        return base + self.strength(x, sigma) * pull


@final
@dataclass(frozen=True, eq=False)
class ClassifierFree(Guided):
    """The pull is the difference of two denoisers, by Bayes' rule and Tweedie's formula.

    Args:
        conditional, unconditional: denoisers of p(x | c) and of p(x), usually one network with and without label.
        scale: s of Imagen and diffusers: D + s (D_c - D).
        interval: noise levels (low, high] of guidance.
    """

    conditional: Denoiser
    unconditional: Denoiser
    scale: float
    interval: tuple[float, float] = EVERYWHERE

    @classmethod
    def extra(
        cls, conditional: Denoiser, unconditional: Denoiser, w: float, interval: tuple[float, float] = EVERYWHERE
    ) -> "ClassifierFree":
        """With the weight of Ho & Salimans, (1 + w) D_c - w D: 0 is the conditional denoiser."""
        return cls(conditional, unconditional, 1 + w, interval)

    def parts(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        base = self.unconditional(x, sigma)
        return base, self.conditional(x, sigma) - base


class LogLikelihood(Protocol):
    """log p(c | x_0 + sigma eps = x) of a condition c, differentiable in x."""

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        """(b,), up to a constant, for noisy images (b, *s) and sigma of shape () or (b,)."""
        ...


@final
@dataclass(frozen=True, eq=False)
class ClassifierGuided(Guided):
    """The pull is the gradient of a classifier of noisy images.

    Differentiable in x as often as the classifier is, so that solvers which need the Jacobian of a denoiser run too.

    Args:
        denoiser: of p(x).
        log_likelihood: log p(c | x, sigma).
        scale: s.
        interval: noise levels (low, high] of guidance.
    """

    denoiser: Denoiser
    log_likelihood: LogLikelihood
    scale: float
    interval: tuple[float, float] = EVERYWHERE

    def parts(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        outer = torch.is_grad_enabled() and x.requires_grad
        with torch.enable_grad():
            leaf = x if outer else x.detach().requires_grad_()
            value = self.log_likelihood(leaf, sigma).sum()  # rows are independent
            gradient = torch.autograd.grad(value, leaf, create_graph=outer)[0]
        return self.denoiser(x, sigma), _rows(sigma.to(x).square(), x) * gradient


@final
@dataclass(frozen=True, eq=False)
class Chosen:
    """log p(c | x, sigma) from the logits of a classifier.

    Args:
        logits: (b, classes) of noisy images (b, *s) and sigma.
        label: the class, of shape () for all rows or (b,).
    """

    logits: Callable[[Tensor, Tensor], Tensor]
    label: Tensor

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        """(b,), natural logarithm."""
        return self.logits(x, sigma).log_softmax(1).gather(1, self.label.expand(x.shape[0])[:, None])[:, 0]


@final
@dataclass(frozen=True, eq=False)
class Labelled:
    """A network that takes labels, with the labels given.

    Args:
        net: called as ``net(x, sigma, label)``.
        label: of shape () for all rows or (b,).
    """

    net: Callable[[Tensor, Tensor, Tensor], Tensor]
    label: Tensor

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        """Posterior mean (b, *s) given the labels."""
        return self.net(x, sigma, self.label.expand(x.shape[0]))


def guidance(prior: DiffusionPrior) -> Guided:
    """The guided denoiser of a prior.

    Raises:
        ValueError: it is of another kind.
    """
    if not isinstance(prior.denoiser, Guided):
        raise ValueError(f"needs a prior with a guided denoiser, got {type(prior.denoiser).__name__}")
    return prior.denoiser


def _rows(value: Tensor, x: Tensor) -> Tensor:
    """A number, or one a row, shaped to multiply x (b, *s)."""
    return value.reshape(-1, *(1 for _ in x.shape[1:]))
