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
            diagonals; or (k,) multiples of the identity.

    Raises:
        ValueError: shapes disagree, a weight is not positive, or a covariance has a negative eigenvalue.
    """

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        k, n = means.shape[0], math.prod(means.shape[1:])
        if weights.shape != (k,) or not bool((weights > 0).all()):
            raise ValueError(f"weights must be {k} positive numbers, got {weights.tolist()}")
        self.shape = tuple(means.shape[1:])
        self.weights = weights / weights.sum()
        self.means = means.reshape(k, n)
        if covariances.shape == (k, n, n):
            self.variances, self.basis = torch.linalg.eigh(covariances)
            smallest = float((self.variances.amin(1) / self.variances.amax(1).clamp_min(1e-300)).min())
            if smallest < -1e-9:
                raise ValueError(f"covariances must be positive semi-definite, relative eigenvalue {smallest:.1e}")
            self.variances = self.variances.clamp_min(0)
        elif covariances.shape in ((k, n), (k,)):
            self.variances = covariances.reshape(k, -1).expand(k, n)
            self.basis = torch.eye(n, dtype=means.dtype, device=means.device).expand(k, n, n)
        else:
            raise ValueError(f"covariances must be ({k}, {n}, {n}), ({k}, {n}) or ({k},), got {tuple(covariances.shape)}")

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Self:
        """A copy on another device or in another real dtype."""
        return moved(self, device, dtype)

    @property
    def covariances(self) -> Tensor:
        """C_k as dense matrices, (k, n, n)."""
        return self.basis * self.variances[:, None, :] @ self.basis.mT

    def mean(self) -> Tensor:
        """Overall mean, shape (*s)."""
        return (self.weights @ self.means).reshape(self.shape)

    def covariance(self) -> Tensor:
        """Overall covariance, (n, n)."""
        d = self.means - self.weights @ self.means
        return torch.einsum("k,kij->ij", self.weights, self.covariances) + d.T @ (self.weights[:, None] * d)

    def sample(self, rng: Rng) -> Tensor:
        """Draws (b, *s), one per row of ``rng``."""
        k = rng.choice(self.weights)
        z = self.variances[k].sqrt() * rng.normal(self.means.shape[1])
        return (self.means[k] + torch.einsum("bij,bj->bi", self.basis[k], z)).reshape(-1, *self.shape)

    def log_prob(self, x: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        """log density (b,) of x (b, *s) under p convolved with N(0, sigma^2 I); natural logarithm."""
        return self._log_joint(x, sigma).logsumexp(1)

    def responsibilities(self, x: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        """Posterior component probabilities (b, k) of x (b, *s) at noise level sigma."""
        return self._log_joint(x, sigma).softmax(1)

    def score(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Gradient of :meth:`log_prob`, (b, *s)."""
        z, total = self._whiten(x, sigma)
        s = -torch.einsum("kij,bkj->bki", self.basis, z / total)
        return torch.einsum("bk,bki->bi", self.responsibilities(x, sigma), s).reshape(x.shape)

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        """E[x_0 | x_0 + sigma eps = x], (b, *s): the exact denoiser."""
        z, total = self._whiten(x, sigma)
        shrunk = self.means + torch.einsum("kij,bkj->bki", self.basis, self.variances / total * z)
        return torch.einsum("bk,bki->bi", self.responsibilities(x, sigma), shrunk).reshape(x.shape)

    def denoising_covariance(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Cov[x_0 | x_0 + sigma eps = x], (b, n, n), from the mixture itself, not from Tweedie's formula."""
        z, total = self._whiten(x, sigma)
        r = self.responsibilities(x, sigma)
        shrunk = self.means + torch.einsum("kij,bkj->bki", self.basis, self.variances / total * z)
        d = shrunk - torch.einsum("bk,bki->bi", r, shrunk)[:, None]
        s2 = _rows(sigma, x).square()[..., None]
        within = torch.einsum("kij,bkj,klj->bkil", self.basis, self.variances * s2 / total, self.basis)
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
        c = self.covariances
        gram = a @ c @ a.T + m.noise.std**2 * torch.eye(len(a), dtype=a.dtype, device=a.device)
        r = y - self.means @ a.T
        chol = torch.linalg.cholesky(gram)
        gain = torch.cholesky_solve(a @ c, chol).mT  # (k, n, m)
        means = self.means + torch.einsum("kij,kj->ki", gain, r)
        ia = torch.eye(c.shape[-1], dtype=a.dtype, device=a.device) - gain @ a
        covariances = ia @ c @ ia.mT + m.noise.std**2 * gain @ gain.mT  # Joseph's form stays symmetric
        white = torch.linalg.solve_triangular(chol, r[..., None], upper=False)[..., 0]
        logits = self.weights.log() - 0.5 * white.square().sum(1) - chol.diagonal(dim1=1, dim2=2).log().sum(1)
        weights = (logits - logits.max()).exp().clamp_min(1e-300)
        return GaussianMixture(weights, means.reshape(-1, *self.shape), covariances)

    def log_evidence(self, m: Measurement[Linear, Gaussian]) -> Tensor:
        """log p(y) of each row, (b,)."""
        a = m.A.matrix().to(self.means)
        y = real_rows(m.y).to(self.means)
        gram = a @ self.covariances @ a.T + m.noise.std**2 * torch.eye(len(a), dtype=a.dtype, device=a.device)
        chol = torch.linalg.cholesky(gram)
        r = y[:, None] - self.means @ a.T
        white = torch.linalg.solve_triangular(chol, r[..., None], upper=False)[..., 0]
        norm = chol.diagonal(dim1=1, dim2=2).log().sum(1) + 0.5 * len(a) * math.log(2 * math.pi)
        return (self.weights.log() - 0.5 * white.square().sum(-1) - norm).logsumexp(1)

    def _whiten(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates of x - m_k in each eigenbasis (b, k, n) and total variances (b or 1, k, n)."""
        z = torch.einsum("kji,bkj->bki", self.basis, x.flatten(1)[:, None] - self.means)
        return z, self.variances + _rows(sigma, x).square()[..., None]

    def _log_joint(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        z, total = self._whiten(x, sigma)
        quadratic = -0.5 * (z.square() / total).sum(-1)
        return self.weights.log() + quadratic - 0.5 * (2 * math.pi * total).log().sum(-1)


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
