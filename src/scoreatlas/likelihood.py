r"""log p(x) by the probability-flow ODE and the instantaneous change of variables.

Chen et al. (2018), *Neural Ordinary Differential Equations*, arXiv:1806.07366, theorem 1; Grathwohl et al. (2019),
*FFJORD*, arXiv:1810.01367, for Hutchinson's trace; Song et al. (2021), arXiv:2011.13456, section 4.3 and appendix D.2.

In the coordinates z = x_t / alpha_t, n = sigma_t / alpha_t, which all schedules share,

.. math:: \frac{dz}{dn} = \frac{z - D(z; n)}{n}, \qquad
   \frac{d}{dn} \log p_n(z(n)) = -\frac{d - \mathrm{tr}\, \partial D / \partial z}{n},

so :math:`\log p_{low}(x) = \log p_{high}(z(high)) + \int_{low}^{high} (d - \mathrm{tr}\, J) / n \; dn`.

Deviations:
    - The classical Runge-Kutta method of order 4 on a fixed grid replaces the adaptive RK45 of the official code: rows
      never decide each other's steps, and the answer is a smooth function of x.
    - The density at ``high`` is a Gaussian with the moments of the data added, where the papers take N(0, high^2 I).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, final

import torch
from torch import Tensor

from scoreatlas.priors.diffusion import Denoiser
from scoreatlas.rng import Rng

Terminal = Callable[[Tensor, Tensor], Tensor]  # (z (b, *s), n ()) -> log p_n(z), (b,)


class Trace(Protocol):
    """A denoised image together with the trace of the denoiser's Jacobian, exact or estimated."""

    def __call__(self, denoiser: Denoiser, z: Tensor, sigma: Tensor, /) -> tuple[Tensor, Tensor]:
        """D(z; sigma), (b, *s), and tr dD/dz, (b,)."""
        ...


@final
@dataclass(frozen=True)
class Exact:
    """The trace by one vector-Jacobian product for each of the d entries of an image."""

    def __call__(self, denoiser: Denoiser, z: Tensor, sigma: Tensor, /) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            d = denoiser(z, sigma)
            flat, total = d.flatten(1), z.new_zeros(z.shape[0])
            for i in range(flat.shape[1]):
                total = total + torch.autograd.grad(flat[:, i].sum(), z, retain_graph=True)[0].flatten(1)[:, i]
        return d.detach(), total


@final
@dataclass(frozen=True, eq=False)
class Hutchinson:
    r"""The unbiased estimate :math:`\frac1m \sum_i v_i^T J v_i`, with the same v all along the path.

    For random signs its variance is :math:`\frac{2}{m} \sum_{i \ne j} S_{ij}^2` with S the symmetric part of J: a
    diagonal Jacobian costs nothing, and the diagonal itself never counts.

    Args:
        probes: white vectors of unit variance (m, b, *s), drawn by :func:`signs`.
    """

    probes: Tensor

    def __call__(self, denoiser: Denoiser, z: Tensor, sigma: Tensor, /) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            d = denoiser(z, sigma)
            pulled = [(v * torch.autograd.grad(d, z, v, retain_graph=True)[0]).flatten(1).sum(1) for v in self.probes]
        return d.detach(), torch.stack(pulled).mean(0)


def signs(rng: Rng, shape: tuple[int, ...], probes: int = 1) -> Tensor:
    """Random signs (probes, b, *shape)."""
    return torch.stack([(rng.uniform(*shape) < 0.5).to(rng.dtype) * 2 - 1 for _ in range(probes)])


def gaussian_terminal(mean: float | Tensor = 0.0, variance: float = 0.0) -> Terminal:
    """N(mean, (n^2 + variance) I): what is left of data with these moments under much noise n."""

    def log_density(z: Tensor, n: Tensor) -> Tensor:
        v = n**2 + variance
        square = (z - mean).square().flatten(1).sum(1) / v
        return -0.5 * (square + z[0].numel() * (2 * math.pi * v).log())

    return log_density


class Likelihood(NamedTuple):
    """What the flow says of each row.

    Attributes:
        log_prob: log density of x at noise level ``low``, in nats, (b,).
        latent: the point that the flow reaches at ``high``, (b, *s).
        volume: the part of ``log_prob`` that is change of volume, (b,).
    """

    log_prob: Tensor
    latent: Tensor
    volume: Tensor


@torch.no_grad()
def log_likelihood(
    denoiser: Denoiser,
    x: Tensor,
    *,
    low: float = 0.0,
    high: float = 80.0,
    steps: int = 64,
    trace: Trace = Exact(),
    terminal: Terminal | None = None,
    knee: float = 0.1,
) -> Likelihood:
    r"""log p_low(x): the density of the data with noise of level ``low``, under the flow of ``denoiser``.

    The grid is uniform in u with n = knee sinh(u): geometric above ``knee``, linear below it, and smooth down to n = 0.
    The error falls with the fourth power of ``steps``. Each step calls the denoiser four times.

    Args:
        denoiser: E[x_0 | x_0 + sigma eps = x], or a learned stand-in; it need not be a gradient.
        x: points (b, *s); with noise of level ``low`` in them, if they are to be typical.
        low: noise level at which the density is asked for. 0 only if the data have a density there: images do not.
        high: noise level at which ``terminal`` holds.
        steps: of the Runge-Kutta method.
        trace: how the divergence is found.
        terminal: log density at ``high``; N(0, high^2 I) by default.
        knee: of the grid; about the finest structure of the density, in units of x.

    Raises:
        ValueError: not 0 <= low < high, or no step.
    """
    if not 0 <= low < high or steps < 1:
        raise ValueError(f"need 0 <= low < high and steps >= 1, got {low}, {high} and {steps}")
    first, last = math.asinh(low / knee), math.asinh(high / knee)
    h, size = (last - first) / steps, x[0].numel()

    def slope(z: Tensor, u: float) -> tuple[Tensor, Tensor]:
        if u == 0:
            return torch.zeros_like(z), z.new_zeros(z.shape[0])
        d, t = trace(denoiser, z, z.new_full((), knee * math.sinh(u)))
        speed = 1 / math.tanh(u)  # dn / du / n
        return speed * (z - d), speed * (size - t)

    z, volume = x, x.new_zeros(x.shape[0])
    for i in range(steps):
        u = first + i * h
        a, da = slope(z, u)
        b, db = slope(z + h / 2 * a, u + h / 2)
        c, dc = slope(z + h / 2 * b, u + h / 2)
        d, dd = slope(z + h * c, u + h)
        z = z + h / 6 * (a + 2 * b + 2 * c + d)
        volume = volume + h / 6 * (da + 2 * db + 2 * dc + dd)
    end = (terminal or gaussian_terminal())(z, z.new_full((), high))
    return Likelihood(end + volume, z, volume)


def bits_per_dimension(log_prob: Tensor, size: int, low: float) -> Tensor:
    r"""Nats to bits per entry, relative to white noise of level ``low``: 0 for data without any spread of their own.

    :math:`-\log_2 p / d - \log_2(\sigma \sqrt{2 \pi e})`; a density alone has no unit-free size.
    """
    return -log_prob / (size * math.log(2)) - 0.5 * math.log2(2 * math.pi * math.e * low**2)
