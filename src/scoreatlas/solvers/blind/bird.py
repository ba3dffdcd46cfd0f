r"""BIRD, blind restoration by fast diffusion inversion (Chihaoui et al., NeurIPS 2024, arXiv:2405.19572), Algorithm 1.

Deviations:
    - The gradient. The paper optimises through the chain; the official code evaluates the network under
      ``torch.no_grad`` (``ddim_inversion_utils.py``), so that the predicted noise is a constant. ``through=False`` is
      the official code.
    - Parameters phi of a family start at their prior mean and have no prior afterwards. The official kernel is the
      softmax of a small network with a constant input, whose weights are optimised.
    - Estimates are clipped with ``clip=True`` (official code), and not by default.
    - The official chain runs at t = 0.9, 0.8, ..., 0.1, 0 of 1: its tenth call, at noise level 0.01, is left out.
    - The loss is a sum of squares for each row, which to Adam is the same as their mean. Steps of the noise are in
      units of sigma at the start, which under VP is 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from scoreatlas.blind import BlindMeasurement, JointPrior
from scoreatlas.linalg import dot, norm, rows
from scoreatlas.measurement import Gaussian
from scoreatlas.operators.family import Family
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import State
from scoreatlas.solvers.blind.base import BlindSolver


@final
@dataclass(frozen=True)
class BIRD(BlindSolver[BlindMeasurement[Family, Gaussian], JointPrior]):
    r"""Searches for the noise from which a short deterministic chain makes an image that fits.

    .. math:: \min_{x_T, \varphi} \; \| y - A_\varphi(\mathrm{DDIM}(x_T)) \|^2
       \quad\text{subject to}\quad \| x_T \| = \sigma_T \sqrt n

    by Adam, with a projection onto the sphere after each step. Sigma_y is not used: what keeps the noise out is that
    the search stops after ``iterations``.

    Args:
        iterations: of Adam; official code 100 (deblurring, super-resolution), 200 (inpainting, denoising).
        steps: of the chain. A run makes ``iterations`` * ``steps`` network calls, each with a product with its
            transposed Jacobian if ``through``.
        start: moment of the diffusion at which the chain starts, in (0, 1].
        rate: of the noise; official code 3e-3 (deblurring), 1e-2 (inpainting, denoising), 1e-3 (super-resolution).
        rate_phi: of the parameters; official code 2e-4, for the weights of the kernel's network. 0 keeps them.
        through: back-propagate through the network; False takes it for a constant.
        clip: hold the estimates of the clean image in [-1, 1].
    """

    iterations: int = 100
    steps: int = 9
    start: float = 0.9
    rate: float = 3e-3
    rate_phi: float = 1e-2
    through: bool = True
    clip: bool = False

    def iterate(self, m: BlindMeasurement[Family, Gaussian], prior: JointPrior, rng: Rng) -> Iterator[State]:
        top = prior.image.schedule.at(self.start).sigma
        x, phi = on_sphere(rng.normal(*prior.image.shape), top), prior.guess(rng)
        adam, adam_phi = Adam(self.rate * top), Adam(self.rate_phi)
        for _ in range(self.iterations):
            with torch.enable_grad():
                x, phi = x.detach().requires_grad_(), phi.detach().requires_grad_()
                x0 = self.chain(prior.image, x)
                r = m.y - m.family.at(phi)(x0)
                g, g_phi = torch.autograd.grad(dot(r, r).sum(), (x, phi))
            yield State(x0.detach(), x0.detach(), phi.detach())
            x, phi = on_sphere(adam.step(x.detach(), g), top), adam_phi.step(phi.detach(), g_phi)

    def chain(self, prior: DiffusionPrior, x: Tensor) -> Tensor:
        """The image (b, *s) that DDIM makes of noise x (b, *s), differentiable in it one way or the other."""
        for t, s in prior.schedule.pairs(self.steps, self.start):
            if self.through:
                x0 = prior.denoise(x, t)
            else:
                with torch.no_grad():
                    noise = prior.noise(x, prior.denoise(x, t), t)
                x0 = (x - t.sigma * noise) / t.alpha
            x, _ = prior.schedule.bridge(x, x0.clamp(-1, 1) if self.clip else x0, t, s, 0.0)
        return x


class Adam:
    """Kingma & Ba (2015), arXiv:1412.6980, algorithm 1, entry by entry."""

    def __init__(self, rate: float) -> None:
        self.rate, self.count = rate, 0
        self.first: Tensor | float = 0.0
        self.second: Tensor | float = 0.0

    def step(self, x: Tensor, g: Tensor) -> Tensor:
        """x after a step against the gradient g."""
        self.count += 1
        self.first = first = 0.9 * self.first + 0.1 * g
        self.second = second = 0.999 * self.second + 0.001 * g**2
        size = (second / (1 - 0.999**self.count)).sqrt() + 1e-8
        return x - self.rate * first / (1 - 0.9**self.count) / size


def on_sphere(x: Tensor, sigma: float) -> Tensor:
    """x (b, *s) scaled, row by row, to the length that white noise of standard deviation sigma has: sigma sqrt n."""
    return x * rows(sigma * x[0].numel() ** 0.5 / norm(x).clamp_min(torch.finfo(x.dtype).tiny), x)
