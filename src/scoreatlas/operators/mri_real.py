r"""Magnetic resonance imaging of a real image: k-space with its symmetry, and coils with a known phase.

The learned prior ``mri`` is of magnitudes: one real channel. These two operators let it see k-space.
"""

from typing import final

import torch
from torch import Tensor
from torch.fft import fft2, ifft2

from scoreatlas.operators.base import Diagonalised, Linear
from scoreatlas.operators.mri import _Sampling


@final
class RealMRI(_Sampling, Diagonalised):
    r"""Single coil, real image (1, h, w): y = M F x, complex (b, m).

    The transform of a real image is Hermitian, :math:`X_{-k} = \bar X_k`, so each sampled position also tells of its
    mirror image. In the Fourier basis the singular values are :math:`s_k = \sqrt{(M_k + M_{-k}) / 2}`: 1 where both of
    a pair are sampled, :math:`1 / \sqrt 2` where one is, 0 where none is. Coefficients are complex and Hermitian, as
    for a blur.

    Args:
        mask: (h, w) boolean, True where k-space is sampled, zero frequency at [0, 0].
        dtype: real dtype of the images.

    Raises:
        ValueError: the mask is not boolean (h, w) or samples nothing.
    """

    def __init__(self, mask: Tensor, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(mask)
        self.shape = (1, *mask.shape)
        sampled = mask.double()
        values = ((sampled + _mirror(sampled)) / 2).sqrt()
        self._values = values.to(dtype)
        self._inverse = torch.where(values > 0, 1 / values.clamp_min(0.5), 0).to(dtype)

    @property
    def singular_values(self) -> Tensor:
        return self._values

    def vt(self, x: Tensor) -> Tensor:
        return fft2(x[:, 0], norm="ortho")

    def v(self, z: Tensor) -> Tensor:
        return ifft2(z, norm="ortho").real[:, None]

    def u(self, z: Tensor) -> Tensor:
        return self._gather(self._inverse * z)

    def ut(self, y: Tensor) -> Tensor:
        k = self._scatter(y)
        return self._inverse * (k + _mirror(k).conj()) / 2

    def __call__(self, x: Tensor) -> Tensor:
        return self._gather(self.vt(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.v(self._scatter(y))


@final
class PhasedMRI(_Sampling, Linear):
    r"""Several coils see a real image in [-1, 1] through a known phase, complex (b, coils, m).

    The physical image is the complex :math:`\rho = e^{i \varphi} \, a \, (x + 1) / 2`: magnitude 0 at x = -1 and a at
    x = 1, phase :math:`\varphi`. Its data are :math:`M F (S_c \rho)`, affine in x. The operator is the linear part,

    .. math:: (A x)_c = M F \left( S_c \, e^{i \varphi} \, \tfrac a2 \, x \right)

    and the constant part, A of the image 1, is to be taken off the data: use :meth:`from_kspace`.

    What this assumes: the phase is known (in practice estimated from the centre of k-space, hence smooth, and wrong
    where the true phase is not: vessels, air, fat), sensitivities are known, and nothing has a negative magnitude.
    Signal that is not at the phase :math:`\varphi` cannot be explained and counts as noise.

    Args:
        coils: (coils, h, w) complex sensitivities.
        phase: (h, w), radians.
        scale: a, the magnitude that x = 1 stands for.
        mask: (h, w) boolean, True where k-space is sampled, zero frequency at [0, 0].

    Raises:
        ValueError: shapes disagree or the mask samples nothing.
    """

    def __init__(self, coils: Tensor, phase: Tensor, scale: float, mask: Tensor) -> None:
        super().__init__(mask)
        if not coils.is_complex() or coils.shape[1:] != mask.shape or phase.shape != mask.shape:
            size = ", ".join(map(str, mask.shape))
            raise ValueError(
                f"coils must be complex (coils, {size}) and phase ({size}),"
                f" got {tuple(coils.shape)} and {tuple(phase.shape)}"
            )
        self.shape = (1, *mask.shape)
        self._weights = coils * torch.polar(torch.full_like(phase, scale / 2), phase)

    def __call__(self, x: Tensor) -> Tensor:
        return self._gather(fft2(self._weights * x, norm="ortho"))

    def adjoint(self, y: Tensor) -> Tensor:
        images = ifft2(self._scatter(y), norm="ortho")
        return (self._weights.conj() * images).sum(1, keepdim=True).real

    def from_kspace(self, kspace: Tensor) -> Tensor:
        """Data (b, coils, m) of full k-space (b, coils, h, w): sampled, and less the constant part."""
        return self._gather(kspace) - self._gather(fft2(self._weights, norm="ortho"))


def central_kspace(kspace: Tensor, size: int) -> Tensor:
    """The ``size`` x ``size`` lowest frequencies of k-space (*, h, w), zero frequency at [0, 0].

    The same field of view with larger pixels. With orthonormal transforms a pixel gets brighter by the root of the
    ratio of the numbers of pixels.

    Raises:
        ValueError: ``size`` is larger than k-space.
    """
    for axis in (-2, -1):
        n = kspace.shape[axis]
        if size > n:
            raise ValueError(f"the centre cannot be larger than k-space: {size} > {n}")
        frequencies = torch.fft.fftfreq(size, 1 / size).round().long() % n
        kspace = kspace.index_select(axis, frequencies.to(kspace.device))
    return kspace


def _mirror(k: Tensor) -> Tensor:
    """The value at the opposite frequency."""
    return k.flip(-2, -1).roll((1, 1), (-2, -1))
