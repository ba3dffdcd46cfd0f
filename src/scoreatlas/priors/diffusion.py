"""A denoiser and a schedule make a diffusion prior."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from torch import Tensor

from scoreatlas.rng import Rng
from scoreatlas.schedules import Schedule, Time


@runtime_checkable
class Denoiser(Protocol):
    """Anything that returns E[x_0 | x_0 + sigma eps = x]: a network, a mixture, BM3D."""

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        """Posterior mean (b, *s) for noisy images (b, *s) and sigma of shape () or (b,), in image units."""
        ...


@final
@dataclass(frozen=True, eq=False)
class DiffusionPrior:
    """The prior p(x_0), known through the posterior means of its noisy versions.

    The denoiser lives in sigma space and knows no schedule; solvers see x_t and t. The two are
    joined by E[x_0 | x_t] = D(x_t / alpha_t; sigma_t / alpha_t).

    Attributes:
        denoiser: the posterior mean.
        schedule: signal and noise scales.
        shape: shape of one image.
    """

    denoiser: Denoiser
    schedule: Schedule
    shape: tuple[int, ...]

    def initial(self, rng: Rng) -> Tensor:
        """x at t = 1, (b, *s): noise alone. What is left of the image there, alpha_1 x_0, is dropped."""
        return self.schedule.at(1.0).sigma * rng.normal(*self.shape)

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        """E[x_0 | x_t = x], (b, *s)."""
        return self.denoiser(x / t.alpha, x.new_full((), t.noise))

    def denoise_vjp(self, x: Tensor, t: Time) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """E[x_0 | x_t = x] and the map v -> (d E[x_0 | x_t] / d x_t)^T v, usable many times."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            x0 = self.denoise(x, t)

        def pull(v: Tensor) -> Tensor:
            return torch.autograd.grad(x0, x, v, retain_graph=True)[0]

        return x0.detach(), pull

    def noise(self, x: Tensor, x0: Tensor, t: Time) -> Tensor:
        """The noise that x_0 implies: eps = (x_t - alpha_t x_0) / sigma_t."""
        return (x - t.alpha * x0) / t.sigma
