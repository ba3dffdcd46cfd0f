"""Stationary Gaussian random fields on a periodic grid: truth at the size of an image.

Covariances are diagonal in the Fourier basis, so every quantity of diffusion costs two FFTs, and the posterior
under any linear Gaussian measurement can be sampled exactly: by a filter where the operator is a convolution, by
conjugate gradients and perturbation (Matheron's rule) elsewhere.
"""

import math
from typing import Self, final

import torch
from torch import Tensor
from torch.fft import fft2, fftfreq, ifft2

from scoreatlas.linalg import cg
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Linear
from scoreatlas.operators.blur import Blur
from scoreatlas.operators.identity import Identity
from scoreatlas.rng import Rng
from scoreatlas.tensors import moved


@final
class GaussianField:
    r"""N(m, C) with :math:`C = F^H \mathrm{diag}(S) F`, F the orthonormal two-dimensional Fourier transform.

    It is a :class:`~scoreatlas.priors.diffusion.Denoiser`: the exact one is the Wiener filter
    :math:`m + F^H \frac{S}{S + \sigma^2} F (x - m)`.

    Args:
        mean: (c, h, w).
        spectrum: S, (h, w), shared by the channels, which are independent; real, not negative, zero frequency at
            [0, 0] and symmetric, S(k) = S(-k). Its mean over the frequencies is the variance of a pixel.

    Raises:
        ValueError: shapes disagree, or the spectrum is negative, not finite or not symmetric.
    """

    def __init__(self, mean: Tensor, spectrum: Tensor) -> None:
        if mean.ndim != 3 or spectrum.shape != mean.shape[1:]:
            raise ValueError(
                f"need mean (c, h, w) and spectrum (h, w), got {list(mean.shape)} and {list(spectrum.shape)}"
            )
        if not bool(spectrum.isfinite().all() & (spectrum >= 0).all()):
            raise ValueError("the power spectrum must be finite and >= 0")
        if not torch.allclose(spectrum, _reversed(spectrum), rtol=1e-4, atol=0):
            raise ValueError("the power spectrum of a real field is symmetric, S(k) = S(-k); this one is not")
        self.shape = tuple(mean.shape)
        self.mean = mean
        self.spectrum = spectrum

    @classmethod
    def from_images(cls, images: Tensor) -> Self:
        """The field with the mean and the average power spectrum of images (n, c, h, w), n > 1.

        The border of an image does not meet the opposite border; a periodic field pretends that it does, and
        the jump shows as a cross in the spectrum.
        """
        n = images.shape[0]
        if n < 2:
            raise ValueError(f"a spectrum needs at least 2 images, got {n}")
        mean = images.mean(0)
        power = fft2(images - mean, norm="ortho").abs().square().mean(1).sum(0) / (n - 1)
        return cls(mean, (power + _reversed(power)) / 2)  # the two differ by rounding

    @classmethod
    def power_law(
        cls, shape: tuple[int, int, int], exponent: float, std: float, dtype: torch.dtype = torch.float32
    ) -> Self:
        """Zero mean, S proportional to frequency^-exponent, standard deviation ``std`` in each pixel.

        Photographs have an exponent near 2. The zero frequency, where the law is infinite, gets the power of the
        lowest other one.
        """
        _, h, w = shape
        f = torch.hypot(fftfreq(h, dtype=torch.float64)[:, None], fftfreq(w, dtype=torch.float64))
        f[0, 0] = 1 / max(h, w)
        s = f**-exponent
        return cls(torch.zeros(shape, dtype=dtype), (std**2 * s / s.mean()).to(dtype))

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Self:
        """A copy on another device or in another real dtype."""
        return moved(self, device, dtype)

    def sample(self, rng: Rng) -> Tensor:
        """Draws (b, c, h, w), one per row of ``rng``."""
        return self.mean + _filter(self.spectrum.sqrt(), rng.normal(*self.shape))

    def log_prob(self, x: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        """log density (b,) of x (b, c, h, w) under the field plus white noise; natural logarithm."""
        total = self.spectrum + _image(sigma, x).square()
        power = fft2(x - self.mean, norm="ortho").abs().square()
        return -0.5 * (power / total + (2 * math.pi * total).log()).flatten(1).sum(1)

    def score(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Gradient of :meth:`log_prob`, (b, c, h, w)."""
        return -_filter(1 / (self.spectrum + _image(sigma, x).square()), x - self.mean)

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        """E[x_0 | x_0 + sigma eps = x], (b, c, h, w): the exact denoiser."""
        return self.mean + self.jacobian(x - self.mean, sigma)

    def jacobian(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        """Derivative of the denoiser applied to v (b, c, h, w); symmetric, and the same at every image."""
        return _filter(self.spectrum / (self.spectrum + _image(sigma, v).square()), v)

    def posterior(self, m: Measurement[Linear, Gaussian], iterations: int = 400) -> "GaussianFieldPosterior":
        """The exact p(x | y) of each row of a linear Gaussian measurement.

        Raises:
            ValueError: noise-free data, or images of another shape.
        """
        return GaussianFieldPosterior(self, m, iterations)


@final
class GaussianFieldPosterior:
    r"""p(x | y), Gaussian: mean :math:`m + G (y - A m)`, gain :math:`G = C A^T (A C A^T + \sigma_y^2 I)^{-1}`.

    Samples by Matheron's rule: draw x' from the prior and y' = A x' + noise; then x' + G (y - y') has the posterior
    law (also known as perturb-and-MAP). The gain is a filter for blur and for denoising. Otherwise it takes conjugate
    gradients, in the white coordinates z of :math:`x = m + C^{1/2} z`, where the matrix is
    :math:`C^{1/2} A^T A C^{1/2} + \sigma_y^2 I`; mean and samples are then exact up to their tolerance.

    Args:
        field: the prior.
        m: the measurement, data (b, \*m).
        iterations: of conjugate gradients.

    Raises:
        ValueError: noise-free data, or images of another shape.

    Attributes:
        mean: (b, c, h, w).
    """

    def __init__(self, field: GaussianField, m: Measurement[Linear, Gaussian], iterations: int = 400) -> None:
        if m.noise.std == 0:
            raise ValueError("the exact posterior needs noise: sigma_y is 0")
        if m.A.shape != field.shape:
            raise ValueError(f"the operator acts on images {m.A.shape}, the field has {field.shape}")
        self.field, self.m, self.iterations = field, m, iterations
        self._gain = self._filtered if isinstance(m.A, Blur | Identity) else self._solved
        self.mean = field.mean + self._gain(m.y - m.A(field.mean[None]))

    def sample(self, rng: Rng) -> Tensor:
        """Draws (b, c, h, w), one per row of the measurement; for more, ``m.repeat(n)`` and ``Rng(seeds, n)``."""
        x = self.field.sample(rng)
        return x + self._gain(self.m.y - self.m.noise.sample(self.m.A(x), rng))

    def _filtered(self, r: Tensor) -> Tensor:
        """G r by one filter: A is a convolution, A^T A = F^H diag(power) F."""
        delta = torch.zeros_like(self.field.mean)[None]
        delta[..., 0, 0] = 1
        power = fft2(self.m.A.adjoint(self.m.A(delta))).real
        s = self.field.spectrum
        return _filter(s / (s * power + self.m.noise.std**2), self.m.A.adjoint(r))

    def _solved(self, r: Tensor) -> Tensor:
        """G r by conjugate gradients in white coordinates."""
        root, variance = self.field.spectrum.sqrt(), self.m.noise.std**2

        def precision(z: Tensor) -> Tensor:
            return _filter(root, self.m.A.adjoint(self.m.A(_filter(root, z)))) + variance * z

        return _filter(root, cg(precision, _filter(root, self.m.A.adjoint(r)), self.iterations))


def _filter(gain: Tensor, x: Tensor) -> Tensor:
    """F^H diag(gain) F x for a real, symmetric gain."""
    return ifft2(gain * fft2(x)).real


def _image(sigma: float | Tensor, x: Tensor) -> Tensor:
    """sigma as (b or 1, 1, 1, 1)."""
    return torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1, 1, 1, 1)


def _reversed(s: Tensor) -> Tensor:
    """S(-k)."""
    return s.flip((-2, -1)).roll((1, 1), (-2, -1))
