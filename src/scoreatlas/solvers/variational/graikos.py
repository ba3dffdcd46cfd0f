r"""Diffusion models as plug-and-play priors (Graikos et al., NeurIPS 2022, arXiv:2206.09012), Algorithm 1.

The levels and the optimiser as in the official code (``mnist/inference.ipynb`` at 97554a9).

Deviations:
    - The condition is the likelihood of a linear measurement, with the noise level that it has. The official notebooks
      weigh hand-made conditions by 0.01, falling to 0 along the way, against mean squares; here ``weight`` multiplies
      the denoising loss, a sum of squares.
    - The step falls linearly to 0 (official code: constant on digits, to a tenth on tours, to 0 in segmentation),
      and is larger with fewer iterations: ``rate / steps``, 0.01 at the official 1000 iterations.
    - The network is evaluated in evaluation mode; the official notebooks leave it in training mode.
    - The last denoising steps with which the segmentation notebook polishes its result are not taken.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch

from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Linear
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.schedules import Time
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class Graikos(Solver[Measurement[Linear, Gaussian], DiffusionPrior]):
    r"""A point estimate :math:`\eta`: the likelihood against the loss with which the network was trained, by Adam.

    .. math::
       F(\eta) = \frac{\|y - A \eta\|^2}{2 \sigma_y^2}
         + w \, \mathbb E_{t, \epsilon} \| \epsilon - \hat\epsilon(\alpha_t \eta + \sigma_t \epsilon, t) \|^2,
       \qquad \epsilon - \hat\epsilon = \frac{\alpha_t}{\sigma_t} (\hat x_0 - \eta)

    The gradient goes through the network.

    Exactness card: ``book/cards/graikos``.

    Args:
        steps: network calls, each with a product with its transposed Jacobian.
        weight: w.
        rate: Adam's first step times ``steps``.
        annealed: the official levels, from noise to image with a swing on top. Otherwise levels spread evenly over t,
            for which F is the objective; under the annealed ones it changes on the way.
    """

    steps: int = 1000
    weight: float = 1.0
    rate: float = 10.0
    annealed: bool = True

    def iterate(self, m: Measurement[Linear, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        variance = max(m.noise.std, 1e-3) ** 2  # noise-free data: the floor of DiffPIR
        eta = rng.normal(*prior.shape)
        first, second = torch.zeros_like(eta), torch.zeros_like(eta)
        moments = torch.tensor([self.time(i) for i in range(self.steps)], dtype=torch.float64)
        levels = torch.stack([moments, *prior.schedule(moments)], 1).tolist()  # at once: no stall in the loop
        for i, t in enumerate(Time(*level) for level in levels):
            x0, pull = prior.denoise_vjp(t.alpha * eta + t.sigma * rng.normal_like(eta), t)
            off = (x0 - eta) / t.noise**2
            loss = 2 * (t.alpha * pull(off) - off)  # gradient of |eps - eps_hat|^2
            g = m.A.adjoint(m.A(eta) - m.y) / variance + self.weight * loss
            first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
            size = (second / (1 - 0.999 ** (i + 1))).sqrt() + 1e-8
            step = self.rate / self.steps * (1 - i / self.steps)
            eta = eta - step * first / (1 - 0.9 ** (i + 1)) / size
            yield State(eta, x0)

    def time(self, i: int) -> float:
        """The moment of iteration i, in [0.001, 1]."""
        if self.annealed:
            left = self.steps - i
            t = (left + left / 4 * math.cos(20 * i / self.steps)) / self.steps  # cos(i / 50) at 1000 iterations
        else:
            t = (i + 0.5) * (math.sqrt(5) - 1) / 2 % 1  # multiples of the golden ratio fill [0, 1] evenly
        return min(max(t, 1e-3), 1.0)
