r"""What a blind denoiser knows: the noise level, in its residual; and whether it scales with its input.

A blind denoiser is a :class:`~scoreatlas.priors.diffusion.Denoiser` that does not look at sigma. Two ways to read
sigma off its residual :math:`f = x - D(x)`: as it is (Kadkhodaie and Simoncelli, 2021, arXiv:2007.13640), and divided
by the degrees of freedom that the denoiser did not use. For an exact denoiser :math:`f = \sigma \, E[z | x]` and
:math:`\sigma^2 J = \mathrm{Cov}[x_0 | x]`, whence :math:`E |f|^2 = \sigma^2 (N - E \, \mathrm{tr} J)`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from scoreatlas.linalg import dot, norm

Blind = Callable[[Tensor], Tensor]


def noise_level(residual: Tensor) -> Tensor:
    """The root mean square of each row, (b,): the noise level, if the residual (b, *s) is the noise and all of it."""
    return norm(residual) / residual[0].numel() ** 0.5


def corrected_level(denoise: Blind, x: Tensor, probe: Tensor) -> Tensor:
    r"""The noise level :math:`|f| / \sqrt{N - \mathrm{tr} J}` of each row, (b,).

    Args:
        denoise: D.
        x: noisy images (b, *s).
        probe: independent numbers of mean 0 and variance 1, (b, *s): the trace is Hutchinson's estimate.
    """
    x0, pull = jacobian(denoise, x)
    unused = (x[0].numel() - dot(probe, pull(probe))).clamp_min(1.0)
    return norm(x - x0) / unused.sqrt()


def jacobian(denoise: Blind, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """D(x), (b, *s), and the map v -> J(x)^T v, usable many times."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        x0 = denoise(x)

    def pull(v: Tensor) -> Tensor:
        return torch.autograd.grad(x0, x, v, retain_graph=True)[0]

    return x0.detach(), pull


@torch.no_grad()
def homogeneity_error(denoise: Blind, x: Tensor, factor: float) -> Tensor:
    r""":math:`| D(a x) / a - D(x) | / | D(x) |` of each row, (b,), for a factor a > 0."""
    x0 = denoise(x)
    return norm(denoise(factor * x) / factor - x0) / norm(x0)
