r"""Super-resolution from bicubic averages, with the true adjoint and a singular value decomposition.

R. G. Keys, *Cubic convolution interpolation for digital image processing*, IEEE Trans. Acoust., Speech, Signal
Process. 29, 1981, with a = -1/2.

Deviations:
    - The convention of MATLAB's ``imresize`` with antialiasing, which PyTorch-Resizer (used by DPS and ILVR) and the
      bicubic operator of DDRM share: the kernel is stretched by the factor, centres of pixels are aligned, and
      the image is continued by mirroring about its edge. Pillow and ``interpolate(..., antialias=True)`` have the same
      kernel but cut it off at the border and rescale what is left; without ``antialias``, PyTorch takes a = -3/4 and
      does not stretch.
    - DDRM sets singular values of R below 3e-2 to 0; nothing is cut here.
"""

import math
from typing import final

import torch
from torch import Tensor

from scoreatlas.operators.base import Diagonalised


@final
class Bicubic(Diagonalised):
    r"""y = R x C^T, each channel alone, (b, c, h / f, w / f): rows and columns are shrunk one after the other.

    With :math:`R = U_R S_R V_R^T` and :math:`C = U_C S_C V_C^T`, A is the Kronecker product :math:`R \otimes C` on the
    flattened image, so its singular vectors are the products of theirs, and its singular values too. Coefficients
    have the shape of the image; those that are seen fill the corner (h / f, w / f).

    The adjoint is R^T y C. It happens to be bicubic enlargement over f^2, border included, as long as that has the
    same kernel: shifts of the kernel sum to 1, so that neither direction has to be rescaled. PyTorch's default, with
    a = -3/4, and repeated pixels are not the adjoint.

    Args:
        shape: (c, h, w) of one image.
        factor: f, which must divide h and w.
        dtype: real dtype of the images.

    Raises:
        ValueError: ``factor`` does not divide the image.
    """

    def __init__(self, shape: tuple[int, int, int], factor: int, dtype: torch.dtype = torch.float32) -> None:
        c, h, w = shape
        if factor < 1 or h % factor or w % factor:
            raise ValueError(f"factor {factor} does not divide an image of {h}x{w}")
        self.shape, self.factor = (c, h, w), factor
        down = [bicubic_matrix(n, factor) for n in (h, w)]
        (u, s, vt), (u2, s2, vt2) = (torch.linalg.svd(matrix, full_matrices=True) for matrix in down)
        values = torch.zeros(h, w, dtype=torch.float64)
        values[: h // factor, : w // factor] = torch.outer(s, s2)
        self._rows, self._columns, self._values = down[0].to(dtype), down[1].to(dtype), values.to(dtype)
        self._u, self._vt, self._u2, self._vt2 = (matrix.to(dtype) for matrix in (u, vt, u2, vt2))

    @property
    def singular_values(self) -> Tensor:
        return self._values

    def vt(self, x: Tensor) -> Tensor:
        return self._vt @ x @ self._vt2.T

    def v(self, z: Tensor) -> Tensor:
        return self._vt.T @ z @ self._vt2

    def u(self, z: Tensor) -> Tensor:
        (_, h, w), f = self.shape, self.factor
        return self._u @ z[..., : h // f, : w // f] @ self._u2.T

    def ut(self, y: Tensor) -> Tensor:
        (_, h, w), f = self.shape, self.factor
        return torch.nn.functional.pad(self._u.T @ y @ self._u2, (0, w - w // f, 0, h - h // f))

    def __call__(self, x: Tensor) -> Tensor:
        return self._rows @ x @ self._columns.T

    def adjoint(self, y: Tensor) -> Tensor:
        return self._rows.T @ y @ self._columns


def cubic(x: Tensor, a: float = -0.5) -> Tensor:
    """Keys' cubic convolution kernel, zero beyond 2; a = -1/2 alone reproduces parabolas."""
    x = x.abs()
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return torch.where(x <= 1, near, torch.where(x < 2, far, 0))


def bicubic_matrix(n: int, factor: int) -> Tensor:
    """Antialiased shrinking of n pixels by ``factor``, (n / factor, n) in float64; every row sums to 1."""
    centre = (torch.arange(n // factor, dtype=torch.float64) + 0.5) * factor - 0.5
    return _convolved(centre, n, 1 / factor)


def enlargement_matrix(n: int, factor: int) -> Tensor:
    """Bicubic interpolation of n / factor pixels to n, (n, n / factor): ``factor`` times the transpose of shrinking."""
    centre = (torch.arange(n, dtype=torch.float64) + 0.5) / factor - 0.5
    return _convolved(centre, n // factor, 1.0)


def _convolved(centre: Tensor, n: int, scale: float) -> Tensor:
    """Weights (len(centre), n) of n pixels around each centre, by the kernel cubic(scale x), rows summing to 1.

    Weights that fall off an end come back in, mirrored about the edge: pixel -1 is pixel 0, pixel -2 is pixel 1.
    """
    reach = math.ceil(2 / scale) + 1
    j = torch.arange(-reach, n + reach)
    weights = cubic(scale * (j - centre[:, None]))
    weights = weights / weights.sum(1, keepdim=True)
    mirrored = j % (2 * n)  # the mirrored image has period 2 n
    mirrored = torch.where(mirrored < n, mirrored, 2 * n - 1 - mirrored)
    return weights.new_zeros(len(centre), n).index_add_(1, mirrored, weights)
