r"""Tweedie moment projected diffusions, TMPD (Boys et al., TMLR 2024, arXiv:2310.06721), equations for linear data.

Deviations:
    - ``"rows"`` is what the official code runs on images (``tmpd/solvers.py``, the classes ending in ``plus``): the
      covariance of the data given x_t is replaced by the diagonal of its row sums, one product with the Jacobian. A
      covariance may have negative entries, and some of its row sums may be negative, though not their mean. The
      official code divides by them all the same and can run away; in ours a row sum counts as their mean at least.
    - ``"full"`` is the method of the theory, as in the official code for small problems: the m x m covariance from m
      products with the Jacobian, and a dense solve. Complex data count as real and imaginary parts.
    - The guidance enters as the guided posterior mean, E[x_0 | x_t, y] = E[x_0 | x_t] + (sigma_t^2 / alpha_t) grad
      log p(y | x_t), in any schedule; the clean estimate is not clipped (the official code clips it for VE).
    - Noise-free data: sigma_y counts as 1e-4 at least, since the covariance may be 0.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Linear, real_rows
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State

QUIETEST = 1e-4  # sigma_y in image units


@final
@dataclass(frozen=True)
class TMPD(Solver[Measurement[Linear, Gaussian], DiffusionPrior]):
    r"""Takes p(x_0 | x_t) for the Gaussian with its own mean and covariance, which is Tweedie's second formula.

    .. math:: \nabla \log p(y \mid x_t) \approx
       \frac{\partial \hat x_0}{\partial x_t}^T A^T (A C_t A^T + \sigma_y^2 I)^{-1} (y - A \hat x_0),
       \qquad C_t = \frac{\sigma_t^2}{\alpha_t} \frac{\partial \hat x_0}{\partial x_t}

    C_t counts as constant under the gradient. With ``"full"`` exact for Gaussian priors as steps grow; with ``"rows"``,
    which replaces :math:`A C_t A^T` by the diagonal of its row sums, only where it is a multiple of the identity.

    Exactness card: ``book/cards/tmpd``.

    Args:
        steps: network calls; the paper uses 1000.
        covariance: ``"rows"``: one network call and 2 vector-Jacobian products a step. ``"full"``: one call and m + 1
            products for m real data, and m^2 numbers of memory for each row.
        eta: 1 is the ancestral step, 0 deterministic.

    Raises:
        ValueError: another covariance.
    """

    steps: int = 1000
    covariance: Literal["rows", "full"] = "rows"
    eta: float = 1.0

    def __post_init__(self) -> None:
        if self.covariance not in ("rows", "full"):
            raise ValueError(f"covariance must be 'rows' or 'full', got {self.covariance!r}")

    def iterate(self, m: Measurement[Linear, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        solve = by_row_sums if self.covariance == "rows" else by_matrix
        variance = max(m.noise.std, QUIETEST) ** 2
        x = prior.initial(rng)
        for t, s in prior.schedule.pairs(self.steps):
            x0, pull = prior.denoise_vjp(x, t)
            gain = t.sigma**2 / t.alpha

            def covariance(v: Tensor, pull: Callable[[Tensor], Tensor] = pull, gain: float = gain) -> Tensor:
                return m.A(gain * pull(m.A.adjoint(v)))

            w = solve(covariance, m.y - m.A(x0), variance)
            x0 = x0 + gain * pull(m.A.adjoint(w))
            mean, std = prior.schedule.bridge(x, x0, t, s, self.eta)
            x = mean + std * rng.normal_like(x)
            yield State(x, x0)


def by_row_sums(covariance: Callable[[Tensor], Tensor], r: Tensor, variance: float) -> Tensor:
    """(diag(covariance 1) + variance)^-1 r for data (b, *m): as if data were uncorrelated given x_t."""
    flat = real_rows(r)
    sums = real_rows(covariance(data_like(torch.ones_like(flat), r)))
    mean = sums.mean(1, keepdim=True).clamp_min(0)  # 1^T C 1 / m >= 0, but for rounding and networks
    return data_like(flat / (torch.maximum(sums, mean) + variance), r)


def by_matrix(covariance: Callable[[Tensor], Tensor], r: Tensor, variance: float) -> Tensor:
    """(covariance + variance I)^-1 r for data (b, *m), from the matrix (b, m, m) of each row."""
    flat = real_rows(r)
    one = torch.eye(flat.shape[1], dtype=flat.dtype, device=flat.device)
    columns = [real_rows(covariance(data_like(e.expand_as(flat), r))) for e in one]
    return data_like(torch.linalg.solve_ex(torch.stack(columns, 2) + variance * one, flat)[0], r)


def data_like(flat: Tensor, y: Tensor) -> Tensor:
    """Real rows (b, m) in the shape of data y (b, *m), real or complex: undoes ``real_rows``."""
    return torch.view_as_complex(flat.reshape(*y.shape, 2).contiguous()) if y.is_complex() else flat.reshape(y.shape)
