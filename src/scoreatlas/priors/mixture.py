"""Gaussian mixtures: a prior whose denoiser and posterior are exact."""

import math
from collections.abc import Sequence
from typing import Self, final

import torch
from torch import Tensor

from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Linear, real_rows
from scoreatlas.rng import Rng
from scoreatlas.tensors import moved


@final
class GaussianMixture:
    r"""p(x) = sum_k w_k N(x; m_k, C_k), with every quantity of diffusion in closed form.

    It is a :class:`~scoreatlas.priors.diffusion.Denoiser`: with :math:`C_k = Q_k \Lambda_k Q_k^T`,

    .. math:: E[x_0 \mid x] = \sum_k r_k(x)
       \left( m_k + Q_k \frac{\Lambda_k}{\Lambda_k + \sigma^2} Q_k^T (x - m_k) \right),
       \qquad r_k \propto w_k N(x; m_k, C_k + \sigma^2 I)

    and :meth:`posterior` under a linear Gaussian measurement is again a mixture.

    Args:
        weights: (k,), positive; normalised here.
        means: (k, *s).
        covariances: (k, n, n) with n = prod(s), symmetric positive semi-definite; or (k, n)
            diagonals; or (k,) multiples of the identity. A leading 1 instead of k, or k equal
            ones, is one covariance for all: it is decomposed once, and the denoiser costs
            (b, n) (n, k) products instead of arrays (b, k, n).

    Raises:
        ValueError: shapes disagree, a weight is not positive, or a covariance has a negative eigenvalue.
    """

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        k, n = means.shape[0], math.prod(means.shape[1:])
        if weights.shape != (k,) or not bool((weights > 0).all()):
            raise ValueError(f"weights must be {k} positive numbers, got {weights.tolist()}")
        self.shape = tuple(means.shape[1:])
        self.weights = weights / weights.sum()
        self._log_weights = self.weights.log()
        self.means = means.reshape(k, n)
        if covariances.shape[0] not in (1, k) or covariances.shape[1:] not in ((n, n), (n,), ()):
            raise ValueError(
                f"covariances must be ({k}, {n}, {n}), ({k}, {n}) or ({k},), got {tuple(covariances.shape)}"
            )
        if bool((covariances == covariances[:1]).all()):
            covariances = covariances[:1]
        self.basis: Tensor | None = None  # (k or 1, n, n), columns are eigenvectors; None: the coordinate axes
        if covariances.ndim == 3:
            self.variances, self.basis = torch.linalg.eigh(covariances)
            smallest = float((self.variances.amin(1) / self.variances.amax(1).clamp_min(1e-300)).min())
            if smallest < -1e-9:
                raise ValueError(f"covariances must be positive semi-definite, relative eigenvalue {smallest:.1e}")
            self.variances = self.variances.clamp_min(0)
        else:
            self.variances = covariances.reshape(len(covariances), -1).expand(-1, n)

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Self:
        """A copy on another device or in another real dtype."""
        return moved(self, device, dtype)

    @property
    def covariances(self) -> Tensor:
        """C_k as dense matrices, (k, n, n)."""
        return self._dense().expand(len(self.weights), -1, -1)

    def mean(self) -> Tensor:
        """Overall mean, shape (*s)."""
        return (self.weights @ self.means).reshape(self.shape)

    def covariance(self) -> Tensor:
        """Overall covariance, (n, n)."""
        d = self.means - self.weights @ self.means
        return torch.einsum("k,kij->ij", self.weights, self._dense()) + d.T @ (self.weights[:, None] * d)

    def sample(self, rng: Rng) -> Tensor:
        """Draws (b, *s), one per row of ``rng``."""
        k = rng.choice(self.weights)
        own = k if len(self.variances) > 1 else torch.zeros_like(k)
        z = self.variances[own].sqrt() * rng.normal(self.means.shape[1])
        if self.basis is not None:
            z = z @ self.basis[0].T if len(self.basis) == 1 else torch.einsum("bij,bj->bi", self.basis[own], z)
        return (self.means[k] + z).reshape(-1, *self.shape)

    def log_prob(self, x: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        """log density (b,) of x (b, *s) under p convolved with N(0, sigma^2 I); natural logarithm."""
        return self._log_joint(x, sigma).logsumexp(1)

    def responsibilities(self, x: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        """Posterior component probabilities (b, k) of x (b, *s) at noise level sigma."""
        return self._log_joint(x, sigma).softmax(1)

    def score(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Gradient of :meth:`log_prob`, (b, *s)."""
        return -self._mix(x, self.responsibilities(x, sigma), 1 / self._total(x, sigma)).reshape(x.shape)

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        """E[x_0 | x_0 + sigma eps = x], (b, *s): the exact denoiser."""
        r = self.responsibilities(x, sigma)
        shrunk = self._mix(x, r, self.variances / self._total(x, sigma))
        return (r @ self.means + shrunk).reshape(x.shape)

    def denoising_covariance(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Cov[x_0 | x_0 + sigma eps = x], (b, n, n), from the mixture itself, not from Tweedie's formula."""
        r, total = self.responsibilities(x, sigma), self._total(x, sigma)
        shrunk = self.means + self._turn(self.variances / total * self._turn(self._off(x), back=True))
        d = shrunk - torch.einsum("bk,bki->bi", r, shrunk)[:, None]
        s2 = _rows(sigma, x).square()[..., None]
        q = torch.eye(d.shape[-1], dtype=d.dtype, device=d.device)[None] if self.basis is None else self.basis
        within = torch.einsum("kij,bkj,klj->bkil", q, self.variances * s2 / total, q)
        return torch.einsum("bk,bkij->bij", r, within) + torch.einsum("bk,bki,bkj->bij", r, d, d)

    def posterior(self, m: Measurement[Linear, Gaussian], row: int = 0) -> "GaussianMixture":
        r"""The exact p(x | y) of one row of a linear Gaussian measurement, again a mixture.

        Per component :math:`G = C A^T (A C A^T + \sigma_y^2 I)^{-1}`, mean :math:`m + G (y - A m)`,
        covariance :math:`(I - G A) C`, weight :math:`w \, N(y; A m, A C A^T + \sigma_y^2 I)`.

        Raises:
            ValueError: noise-free data, for which A C A^T may be singular.
        """
        if m.noise.std == 0:
            raise ValueError("the exact posterior needs noise: sigma_y is 0")
        a = m.A.matrix().to(self.means)
        y = real_rows(m.y[row : row + 1]).to(self.means)[0]
        c = self._dense()
        gram = a @ c @ a.T + m.noise.std**2 * torch.eye(len(a), dtype=a.dtype, device=a.device)
        r = y - self.means @ a.T
        chol = torch.linalg.cholesky(gram)
        gain = torch.cholesky_solve(a @ c, chol).mT  # (k or 1, n, m)
        means = self.means + (gain @ r[..., None])[..., 0]
        ia = torch.eye(c.shape[-1], dtype=a.dtype, device=a.device) - gain @ a
        covariances = ia @ c @ ia.mT + m.noise.std**2 * gain @ gain.mT  # Joseph's form stays symmetric
        white = torch.linalg.solve_triangular(chol, r[..., None], upper=False)[..., 0]
        logits = self._log_weights - 0.5 * white.square().sum(1) - chol.diagonal(dim1=1, dim2=2).log().sum(1)
        tiny = torch.finfo(logits.dtype).tiny
        found = GaussianMixture(logits.softmax(0).clamp_min(tiny), means.reshape(-1, *self.shape), covariances)
        found._log_weights = logits.log_softmax(0)  # far components keep their place in log_prob
        return found

    def log_evidence(self, m: Measurement[Linear, Gaussian]) -> Tensor:
        """log p(y) of each row, (b,)."""
        a = m.A.matrix().to(self.means)
        y = real_rows(m.y).to(self.means)
        gram = a @ self._dense() @ a.T + m.noise.std**2 * torch.eye(len(a), dtype=a.dtype, device=a.device)
        chol = torch.linalg.cholesky(gram)
        r = y[:, None] - self.means @ a.T
        white = torch.linalg.solve_triangular(chol, r[..., None], upper=False)[..., 0]
        norm = chol.diagonal(dim1=1, dim2=2).log().sum(1) + 0.5 * len(a) * math.log(2 * math.pi)
        return (self._log_weights - 0.5 * white.square().sum(-1) - norm).logsumexp(1)

    def _dense(self) -> Tensor:
        """Covariances (k or 1, n, n)."""
        if self.basis is None:
            return torch.diag_embed(self.variances)
        return self.basis * self.variances[:, None, :] @ self.basis.mT

    def _total(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Variances of the noisy components along their axes, (b or 1, k or 1, n)."""
        return self.variances + _rows(sigma, x).square()[..., None]

    def _off(self, x: Tensor) -> Tensor:
        """x - m_k, (b, k, n)."""
        return x.flatten(1)[:, None] - self.means

    def _turn(self, z: Tensor, back: bool = False) -> Tensor:
        """From coordinates along the axes to space, (b, k, n), or back."""
        if self.basis is None:
            return z
        return torch.einsum("kji,bkj->bki" if back else "kij,bkj->bki", self.basis, z)

    def _mix(self, x: Tensor, r: Tensor, gain: Tensor) -> Tensor:
        """sum_k r_k Q_k gain_k Q_k^T (x - m_k), (b, n), for gains along the axes (b or 1, k or 1, n)."""
        if len(self.variances) == 1:  # linear in m_k: one rotation of the averaged offset
            return self._turn(gain * self._turn((x.flatten(1) - r @ self.means)[:, None], back=True))[:, 0]
        return torch.einsum("bk,bki->bi", r, self._turn(gain * self._turn(self._off(x), back=True)))

    def _log_joint(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        total = self._total(x, sigma)
        if len(self.variances) == 1:  # expand the square, measured from the first mean: no array (b, k, n)
            first, precision = self.means[0], 1 / total[:, 0]
            z, m = (self._turn((v - first)[:, None], back=True)[:, 0] for v in (x.flatten(1), self.means))
            weighted = precision * z
            square = (weighted * z).sum(1, keepdim=True) - 2 * weighted @ m.T + precision @ m.square().T
        else:
            square = (self._turn(self._off(x), back=True).square() / total).sum(-1)
        return self._log_weights - 0.5 * (square + (2 * math.pi * total).log().sum(-1))


def _rows(sigma: float | Tensor, x: Tensor) -> Tensor:
    """sigma as (b or 1, 1)."""
    return torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1, 1)


def gaussian(mean: Tensor, covariance: Tensor) -> GaussianMixture:
    """One Gaussian as a mixture of one: mean (*s), covariance (n, n), (n,) or a 0-d variance."""
    return GaussianMixture(mean.new_ones(1), mean[None], covariance[None])


def autoregressive(n: int, correlation: float, dtype: torch.dtype = torch.float64) -> GaussianMixture:
    """AR(1) Gaussian: zero mean, unit variance, covariance correlation^|i - j|."""
    i = torch.arange(n, dtype=dtype)
    return gaussian(torch.zeros(n, dtype=dtype), correlation ** (i[:, None] - i).abs())


def grid_mixture(positions: Sequence[float], n: int, variance: float, weights: Tensor) -> GaussianMixture:
    """Components on the square grid of ``positions``, the pair repeated n / 2 times (Cardoso et al., 2024).

    With positions -16, -8, 0, 8, 16 and unit variance this is the 25-component mixture of the
    MCGDiff paper (arXiv:2308.07983).
    """
    p = torch.tensor(positions, dtype=weights.dtype)
    pairs = torch.cartesian_prod(p, p)
    means = pairs.repeat(1, n // 2)
    return GaussianMixture(weights, means, torch.full((len(pairs),), variance, dtype=weights.dtype))
