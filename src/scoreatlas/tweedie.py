r"""Tweedie's formula: score, noise, clean image and velocity are one quantity in five costumes.

Everything a diffusion model predicts is an affine function of x_t and of the posterior mean
:math:`\hat x_0 = E[x_0 \mid x_t]`, with :math:`x_t = \alpha_t x_0 + \sigma_t \epsilon`. The first half of
this file is the dictionary, with the clean image as hub; it holds for any schedule, at any moment
with sigma > 0. The second half is second order: the Jacobian of a denoiser is the posterior
covariance, divided by sigma squared.

Sources: Robbins (1956) and Efron (2011) for the first order; Raphan & Simoncelli (2011) for other
noise; Salimans & Ho (2022, arXiv:2202.00512) for v; Lipman et al. (2023, arXiv:2210.02747) for the flow.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from scoreatlas.linalg import norm, rows
from scoreatlas.priors.diffusion import Denoiser
from scoreatlas.priors.mixture import GaussianMixture
from scoreatlas.rng import Rng
from scoreatlas.schedules import Time

# ---------------------------------------------------------------- first order: the dictionary


def score_from_x0(x: Tensor, x0: Tensor, t: Time) -> Tensor:
    r""":math:`s = (\alpha_t \hat x_0 - x_t) / \sigma_t^2`, the score of the noisy density (Tweedie)."""
    return (t.alpha * x0 - x) / t.sigma**2


def x0_from_score(x: Tensor, score: Tensor, t: Time) -> Tensor:
    r""":math:`\hat x_0 = (x_t + \sigma_t^2 s) / \alpha_t`, the posterior mean (Tweedie)."""
    return (x + t.sigma**2 * score) / t.alpha


def noise_from_x0(x: Tensor, x0: Tensor, t: Time) -> Tensor:
    r""":math:`\hat\epsilon = (x_t - \alpha_t \hat x_0) / \sigma_t`, what DDPM's network predicts."""
    return (x - t.alpha * x0) / t.sigma


def x0_from_noise(x: Tensor, noise: Tensor, t: Time) -> Tensor:
    r""":math:`\hat x_0 = (x_t - \sigma_t \hat\epsilon) / \alpha_t`."""
    return (x - t.sigma * noise) / t.alpha


def v_from_x0(x: Tensor, x0: Tensor, t: Time) -> Tensor:
    r""":math:`v = \alpha_t \hat\epsilon - \sigma_t \hat x_0`, v-prediction (Salimans & Ho, appendix D)."""
    return t.alpha * noise_from_x0(x, x0, t) - t.sigma * x0


def x0_from_v(x: Tensor, v: Tensor, t: Time) -> Tensor:
    r""":math:`\hat x_0 = (\alpha_t x_t - \sigma_t v) / (\alpha_t^2 + \sigma_t^2)`; the divisor is 1 in the VP case."""
    return (t.alpha * x - t.sigma * v) / (t.alpha**2 + t.sigma**2)


def flow_from_x0(x: Tensor, x0: Tensor, t: Time) -> Tensor:
    r""":math:`u = \hat\epsilon - \hat x_0`, the flow-matching velocity: the straight line from image to noise."""
    return noise_from_x0(x, x0, t) - x0


def x0_from_flow(x: Tensor, flow: Tensor, t: Time) -> Tensor:
    r""":math:`\hat x_0 = (x_t - \sigma_t u) / (\alpha_t + \sigma_t)`; the divisor is 1 on straight lines."""
    return (x - t.sigma * flow) / (t.alpha + t.sigma)


def score_from_noise(noise: Tensor, t: Time) -> Tensor:
    r""":math:`s = -\hat\epsilon / \sigma_t`; the one entry that does not need x_t."""
    return -noise / t.sigma


def noise_from_score(score: Tensor, t: Time) -> Tensor:
    r""":math:`\hat\epsilon = -\sigma_t s`."""
    return -t.sigma * score


Quantity = Literal["x0", "noise", "score", "v", "flow"]
_Map = Callable[[Tensor, Tensor, Time], Tensor]
FROM_X0: dict[Quantity, _Map] = {
    "x0": lambda x, x0, t: x0, "noise": noise_from_x0, "score": score_from_x0, "v": v_from_x0, "flow": flow_from_x0,
}  # fmt: skip
TO_X0: dict[Quantity, _Map] = {
    "x0": lambda x, x0, t: x0, "noise": x0_from_noise, "score": x0_from_score, "v": x0_from_v, "flow": x0_from_flow,
}  # fmt: skip


def convert(value: Tensor, x: Tensor, t: Time, source: Quantity, target: Quantity) -> Tensor:
    """``value``, a ``source`` at x_t = ``x`` (b, *s), expressed as a ``target``; by way of x0.

    Raises:
        KeyError: an unknown quantity; the known ones are the keys of ``TO_X0``.
    """
    return FROM_X0[target](x, TO_X0[source](x, value, t), t)


# ---------------------------------------------------------------- second order: the covariance


def jacobian(denoiser: Denoiser, x: Tensor, sigma: float | Tensor) -> Tensor:
    """dD/dx as dense matrices (b, n, n) at x (b, *s), by n vector-Jacobian products: small images only."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        d = denoiser(x, _level(sigma, x)).flatten(1)
        lines = [torch.autograd.grad(d[:, i].sum(), x, retain_graph=True)[0].flatten(1) for i in range(d.shape[1])]
    return torch.stack(lines, 1)


def jvp(denoiser: Denoiser, x: Tensor, sigma: float | Tensor, v: Tensor) -> Tensor:
    """J v (b, *s): the derivative of the denoiser at x along v.

    J^T u is linear in u, and its own transposed derivative is J. Forward mode would be cheaper, but
    torch has none for group normalisation of channels-last images; nor can it differentiate fused
    attention twice.
    """
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        x = x.detach().requires_grad_()
        d = denoiser(x, _level(sigma, x))
        u = torch.zeros_like(d, requires_grad=True)
        transposed = torch.autograd.grad(d, x, u, create_graph=True)[0]
        return torch.autograd.grad(transposed, u, v)[0]


def vjp(denoiser: Denoiser, x: Tensor, sigma: float | Tensor, v: Tensor) -> Tensor:
    """J^T v (b, *s), by reverse-mode differentiation."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(denoiser(x, _level(sigma, x)), x, v)[0]


def covariance_action(denoiser: Denoiser, x: Tensor, sigma: float | Tensor, v: Tensor) -> Tensor:
    r""":math:`\mathrm{Cov}[x_0 \mid x] \, v = \sigma^2 J v`, (b, *s), without forming a matrix.

    The true covariance is symmetric; a learned denoiser's sigma^2 J only nearly so (see
    :func:`asymmetry`), and its symmetric part is returned: one jvp and one vjp.

    Args:
        denoiser: E[x_0 | x_0 + sigma eps = x].
        x: noisy images (b, *s).
        sigma: noise level, () or (b,), image units.
        v: directions (b, *s).
    """
    level = rows(_level(sigma, x), x)
    return level**2 * (jvp(denoiser, x, sigma, v) + vjp(denoiser, x, sigma, v)) / 2


def asymmetry(denoiser: Denoiser, x: Tensor, sigma: float | Tensor, probes: Tensor) -> Tensor:
    r"""How far a denoiser is from being a posterior mean: :math:`\|J - J^T\|_F / \|J\|_F` of each row, (b,).

    Estimated as a root of ratio of sums over random probes v, since E|Mv|^2 is the squared Frobenius norm
    of M for white v. 0 for a gradient field, sqrt(2) on average for a matrix of independent numbers.

    Args:
        probes: white noise (m, b, *s); relative error about 1 / sqrt(m n).
    """
    forward = torch.stack([jvp(denoiser, x, sigma, v) for v in probes])
    backward = torch.stack([vjp(denoiser, x, sigma, v) for v in probes])
    return norm((forward - backward).transpose(0, 1)) / norm(forward.transpose(0, 1))


class SecondOrder(NamedTuple):
    r"""Three estimates of the mean squared error of a denoiser, per pixel and row, (b,).

    Attributes:
        error: :math:`\|D - x_0\|^2 / n`, the truth, which needs the clean image.
        predicted: :math:`\sigma^2 \, \mathrm{tr} J / n`, Tweedie's second order: equal to ``error`` on average
            for the exact posterior mean, and for nothing else in general.
        sure: :math:`\|D - x\|^2 / n - \sigma^2 + 2 \sigma^2 \, \mathrm{tr} J / n`, Stein's unbiased estimate (1981):
            equal to ``error`` on average for any denoiser.
    """

    error: Tensor
    predicted: Tensor
    sure: Tensor


def second_order_residual(
    denoiser: Denoiser, x0: Tensor, sigma: float | Tensor, rng: Rng, probes: int = 1
) -> SecondOrder:
    """Add noise to held-out clean images x0 (b, *s), denoise, and compare the error with its two predictions.

    The trace is Hutchinson's estimate (1990) with ``probes`` random signs. Average over many images
    before comparing: one image says little.
    """
    level = _level(sigma, x0)
    x = x0 + rows(level, x0) * rng.normal_like(x0)
    d = denoiser(x, level).detach()
    signs = [(rng.uniform(*x0.shape[1:]) < 0.5).to(x0) * 2 - 1 for _ in range(probes)]
    trace = sum((v * vjp(denoiser, x, level, v)).flatten(1).mean(1) for v in signs) / probes
    predicted = level**2 * trace
    sure = (d - x).square().flatten(1).mean(1) - level**2 + 2 * predicted
    return SecondOrder((d - x0).square().flatten(1).mean(1), predicted, sure)


class Principal(NamedTuple):
    """Posterior variances (b, k) along orthonormal directions (b, k, *s), largest first."""

    variances: Tensor
    directions: Tensor


def principal_directions(
    denoiser: Denoiser, x: Tensor, sigma: float | Tensor, k: int, rng: Rng, iterations: int = 20
) -> Principal:
    """The k largest eigenpairs of Cov[x_0 | x], by subspace iteration on :func:`covariance_action`.

    Needs ``iterations + 1`` batches of b k Jacobian products and never a matrix (Manor & Michaeli, 2024,
    arXiv:2309.13598, who use finite differences).
    """
    b = x.shape[0]
    many, level = x.repeat_interleave(k, 0), _level(sigma, x).expand(b).repeat_interleave(k)

    def act(q: Tensor) -> Tensor:
        return covariance_action(denoiser, many, level, q.mT.reshape(many.shape)).reshape(b, k, -1).mT

    q = torch.linalg.qr(rng.normal(x[0].numel(), k)).Q  # (b, n, k)
    for _ in range(iterations):
        q = torch.linalg.qr(act(q)).Q
    variances, turn = torch.linalg.eigh(q.mT @ act(q))
    return Principal(variances.flip(-1), (q @ turn.flip(-1)).mT.reshape(b, k, *x.shape[1:]))


# ---------------------------------------------------------------- noise that is a mixture of Gaussians


def mixture_noise_mean(prior: GaussianMixture, y: Tensor, weights: Sequence[float], stds: Sequence[float]) -> Tensor:
    r"""E[x | y], (b, *s), for y = x + n with n from :math:`\sum_k \pi_k N(0, s_k^2 I)`.

    .. math:: E[x \mid y] = y + \sum_k w_k(y) \, s_k^2 \, \nabla \log p_k(y),
       \qquad p_k = p * N(0, s_k^2 I), \quad w_k \propto \pi_k p_k(y)

    One level is drawn for the whole of y, not one per pixel. The score of y alone is not enough:
    the levels must be told apart.

    Raises:
        ValueError: as many weights as stds are needed, all positive.
    """
    if len(weights) != len(stds) or min(weights, default=0) <= 0 or min(stds, default=0) <= 0:
        raise ValueError(f"need as many positive weights as positive stds, got {list(weights)} and {list(stds)}")
    prior_weights = torch.as_tensor(weights, dtype=y.dtype, device=y.device).log()
    w = (prior_weights + torch.stack([prior.log_prob(y, s) for s in stds], 1)).softmax(1)
    steps = torch.stack([s**2 * prior.score(y, s) for s in stds], 1)  # (b, k, *s)
    return y + torch.einsum("bk,bk...->b...", w, steps)


def _level(sigma: float | Tensor, x: Tensor) -> Tensor:
    """A noise level as a tensor of the dtype and device of x, () or (b,)."""
    return torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
