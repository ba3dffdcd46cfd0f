"""How much a denoiser stretches: spectral norms of its Jacobian, on which the convergence of plug-and-play rests."""

from collections.abc import Callable

from torch import Tensor

from scoreatlas.linalg import norm, rows
from scoreatlas.priors.diffusion import Denoiser
from scoreatlas.rng import Rng
from scoreatlas.tweedie import jvp, vjp


def jacobian_norm(
    denoiser: Denoiser, x: Tensor, sigma: float | Tensor, rng: Rng, iterations: int = 20, residual: bool = False
) -> Tensor:
    r"""Largest singular value of the Jacobian J of the denoiser at x (b, *s), (b,), by power iteration on J^T J.

    A lower bound, which rises with the iterations to the truth. Above 1 for a single x, the denoiser is not
    non-expansive; a bound below 1 at every x that was looked at proves nothing for the others.

    Args:
        denoiser: any differentiable denoiser.
        x: noisy images.
        sigma: noise level, () or (b,), image units.
        rng: the start, one row per row of x.
        iterations: products with J and with J^T, each.
        residual: of I - J instead, the condition of Ryu et al. (ICML 2019, arXiv:1905.05406).
    """

    def act(product: Callable[[Denoiser, Tensor, float | Tensor, Tensor], Tensor], v: Tensor) -> Tensor:
        w = product(denoiser, x, sigma, v)
        return v - w if residual else w

    v = rng.normal_like(x)
    size = norm(v)
    for _ in range(iterations):
        v = v / rows(norm(v), v)
        w = act(jvp, v)
        size = norm(w)
        v = act(vjp, w)
    return size
