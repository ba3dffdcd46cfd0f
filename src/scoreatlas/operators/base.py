"""Forward operators: what the instrument does to an image, before noise.

An operator maps a batch of real images (b, *s) to data (b, *m), row by row. Data may be complex;
the inner product is real, <a, b> = Re(conj(a) . b), so that the adjoint of a complex-valued
operator is the one that gradients use. Complex images are real images with two channels.
"""

import math
from abc import ABC, abstractmethod
from typing import Self, final

import torch
from torch import Tensor

from scoreatlas.tensors import moved


class Operator(ABC):
    """A forward operator, linear or not.

    Attributes:
        shape: shape of one image, without the batch axis.
    """

    shape: tuple[int, ...]

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """Noise-free data (b, *m) of images (b, *s)."""

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """Adjoint of the derivative at ``x`` (b, *s), applied to ``v`` (b, *m): J(x)^T v, (b, *s)."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self(x), x, v)[0]

    @final
    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Self:
        """A copy whose tensors live on ``device`` with real dtype ``dtype``."""
        return moved(self, device, dtype)


class Linear(Operator):
    """A linear operator with its adjoint."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y (b, *s) for data (b, *m), with <A x, y> = <x, A^T y>."""

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """The derivative of a linear map is the map: A^T v."""
        return self.adjoint(v)

    @final
    def matrix(self) -> Tensor:
        """A as a dense real matrix (m, n); complex data give two real rows each. For small operators only."""
        n = math.prod(self.shape)
        columns = self.to("cpu", torch.float64)(torch.eye(n, dtype=torch.float64).reshape(n, *self.shape))
        return real_rows(columns).T


class Diagonalised(Linear):
    r"""A linear operator with a known singular value decomposition :math:`A = U \, \mathrm{diag}(s) \, V^T`.

    V is orthonormal and complete, so the spectral coefficients ``vt(x)`` carry the whole image;
    singular values of unseen directions are 0. Coefficients have any shape (b, *k) that suits the
    operator (pixels, frequencies, blocks) and may be complex, when V is the Fourier basis.
    """

    @property
    @abstractmethod
    def singular_values(self) -> Tensor:
        """s >= 0, of shape (*k), broadcastable against coefficients."""

    @abstractmethod
    def v(self, z: Tensor) -> Tensor:
        """V z: coefficients (b, *k) to image (b, *s)."""

    @abstractmethod
    def vt(self, x: Tensor) -> Tensor:
        """V^T x: image (b, *s) to coefficients (b, *k)."""

    @abstractmethod
    def u(self, z: Tensor) -> Tensor:
        """U z: coefficients (b, *k) to data (b, *m); what lies where s = 0 is dropped."""

    @abstractmethod
    def ut(self, y: Tensor) -> Tensor:
        """U^T y: data (b, *m) to coefficients (b, *k), 0 where s = 0."""

    def __call__(self, x: Tensor) -> Tensor:
        return self.u(self.singular_values * self.vt(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.v(self.singular_values * self.ut(y))

    @final
    def spectral(self, y: Tensor, std: float) -> tuple[Tensor, Tensor]:
        """Data as seen by each coordinate of the image, and their noise.

        Args:
            y: data (b, *m).
            std: noise standard deviation sigma_y.

        Returns:
            V^T A^+ y, (b, *k), 0 where nothing is seen; and tau = sigma_y / s, (*k), infinite where
            nothing is seen. Singular values below 1e-6 of the largest count as 0.
        """
        s = self.singular_values
        seen = s > 1e-6 * s.max()
        inverse = torch.where(seen, 1 / s.clamp_min(torch.finfo(s.dtype).tiny), 0)
        return inverse * self.ut(y), torch.where(seen, std * inverse, math.inf)

    @final
    def pinv(self, y: Tensor) -> Tensor:
        """Moore-Penrose pseudo-inverse A^+ y, (b, *s)."""
        return self.v(self.spectral(y, 0.0)[0])


def real_rows(y: Tensor) -> Tensor:
    """Data (b, *m), real or complex, as real rows (b, m): real and imaginary parts side by side."""
    return (torch.view_as_real(y.resolve_conj()) if y.is_complex() else y).flatten(1)
