r"""The probability flow of a Gaussian in closed form: outline first, details later.

Wang & Vastola (2023), *Diffusion Models Generate Images Like Painters*, arXiv:2303.02490;
*The Unreasonable Effectiveness of Gaussian Score Approximation* (2024), arXiv:2412.09726.

In image units z = x_t / alpha_t and against the noise level n = sigma_t / alpha_t the probability-flow ODE of
N(m, C) is linear, and with :math:`C = \sum_k \lambda_k u_k u_k^T` each coordinate is solved on its own:

.. math:: u_k^T (z(n') - m) = \sqrt{\frac{\lambda_k + n'^2}{\lambda_k + n^2}} \; u_k^T (z(n) - m)

Deviations:
    - The papers give the directions outside the span of the data variance 0. Ours may give them a variance of their
      own, the average of what the leading directions leave over (probabilistic principal components).
"""

from dataclasses import dataclass
from typing import Self, final

import torch
from torch import Tensor

from scoreatlas.schedules import Time
from scoreatlas.tensors import moved


@final
@dataclass(frozen=True, eq=False, repr=False)
class GaussianFlow:
    r"""N(m, U diag(lambda) U^T + rest (I - U U^T)), its denoiser and its probability flow.

    It is a :class:`~scoreatlas.priors.diffusion.Denoiser`, the exact one of that Gaussian.

    Attributes:
        mean: m, (\*s).
        basis: U, orthonormal columns (n, k) with n = prod(s).
        variances: lambda, (k,), largest first.
        rest: variance of each direction outside of the basis.
    """

    mean: Tensor
    basis: Tensor
    variances: Tensor
    rest: float = 0.0

    @classmethod
    def from_images(cls, images: Tensor, rank: int) -> Self:
        """Mean and leading covariance of images (m, *s); the variance left over is spread evenly over the rest.

        Raises:
            ValueError: the rank is negative, or larger than the images can support.
        """
        flat = images.flatten(1)
        m, n = flat.shape
        if not 0 <= rank <= min(m - 1, n):
            raise ValueError(f"{m} images of {n} pixels support ranks 0 ... {min(m - 1, n)}, got {rank}")
        mean = flat.mean(0)
        x = (flat - mean) / (m - 1) ** 0.5
        total = float(x.square().sum())
        if n <= m:
            values, vectors = (v.flip(-1) for v in torch.linalg.eigh(x.T @ x))
            basis = vectors[:, :rank]
        else:  # the small Gram matrix has the same eigenvalues
            values, vectors = (v.flip(-1) for v in torch.linalg.eigh(x @ x.T))
            basis = torch.linalg.qr(x.T @ vectors[:, :rank]).Q
        variances = values[:rank].clamp_min(0)
        rest = max(0.0, total - float(variances.sum())) / (n - rank) if rank < n else 0.0
        return cls(mean.reshape(images.shape[1:]), basis.contiguous(), variances, rest)

    def __repr__(self) -> str:
        return f"GaussianFlow(rank={len(self.variances)}, rest={self.rest:.3g})"

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Self:
        """A copy on another device or in another real dtype."""
        return moved(self, device, dtype)

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        """E[x_0 | x_0 + sigma eps = x], (b, *s), for sigma of shape () or (b,)."""
        s2 = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1, 1).square()
        return self._act(x, self.variances / (self.variances + s2), self.rest / (self.rest + s2))

    def move(self, z: Tensor, noise: float, to: float) -> Tensor:
        """The flow in image units: z (b, *s) at one noise level, carried to another, which may be 0.

        Raises:
            ValueError: the first level is not positive, or the second is negative.
        """
        if noise <= 0 or to < 0:
            raise ValueError(f"noise levels must be positive, and >= 0 where the flow ends; got {noise} and {to}")
        gain = ((self.variances + to**2) / (self.variances + noise**2)).sqrt()
        outside = ((self.rest + to**2) / (self.rest + noise**2)) ** 0.5
        return self._act(z, gain, z.new_full((), outside))

    def at(self, x: Tensor, t: Time, s: Time) -> Tensor:
        """The flow of any schedule: x_t (b, *s) at t, carried to x_s."""
        return s.alpha * self.move(x / t.alpha, t.noise, s.noise)

    def _act(self, x: Tensor, gain: Tensor, outside: Tensor) -> Tensor:
        """m + U gain U^T (x - m) + outside (I - U U^T) (x - m), gains (k,) or (b or 1, k)."""
        d = (x - self.mean).flatten(1)
        return self.mean + (outside * d + ((gain - outside) * (d @ self.basis)) @ self.basis.T).reshape(x.shape)
