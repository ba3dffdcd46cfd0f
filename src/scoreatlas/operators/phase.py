r"""Phase retrieval: a detector sees the size of a wave and not its phase.

An image x in [-1, 1] is a transmittance u = (x + 1) / 2 in [0, 1]; outside the image u is 0: nothing shines through.
The wave on the detector is linear in u, z = L u; the data are |z| (:class:`Amplitude`) or |z|^2 (:class:`Intensity`).
All transforms are orthonormal and L^H L = ``gain`` times the identity, so that noise, in units of u, keeps its size.

|z| has no derivative where z = 0. The derivative there is taken to be 0, the middle of Clarke's generalised gradient,
which is also what torch does: no NaN, and no pull from a datum whose phase is undefined. |z|^2 is smooth.

Deviations:
    - H. Chung et al. (ICLR 2023, arXiv:2209.14687, ``guided_diffusion/measurements.py``) pad x itself with 0, so that
      their images are surrounded by middle grey and x -> -x leaves the data unchanged. (x + 1) / 2 is what DAPS does
      (B. Zhang et al., CVPR 2025, arXiv:2407.01521, ``forward_operator/__init__.py``).
    - Their ``oversample: 2.0`` pads a quarter of the side at each end: a side 1.5 times as long. Here 2 means twice.
"""

from abc import abstractmethod
from typing import final

import torch
from torch import Tensor
from torch.fft import fft2, ifft2
from torch.nn.functional import pad

from scoreatlas.operators.base import Operator
from scoreatlas.rng import Rng


class Phaseless(Operator):
    """What amplitude and intensity share: the linear map from transmittance to wave.

    Attributes:
        gain: the number c in L^H L = c I.
    """

    gain: float

    @abstractmethod
    def wave(self, u: Tensor) -> Tensor:
        """L u, complex (b, *m), for transmittances (b, *s)."""

    @abstractmethod
    def back(self, z: Tensor) -> Tensor:
        """The adjoint, Re L^H z, (b, *s)."""


class Amplitude(Phaseless):
    """y = |L u|, u = (x + 1) / 2."""

    def __call__(self, x: Tensor) -> Tensor:
        return self.wave((x + 1) / 2).abs()

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        r"""J^T v = Re L^H (v e^{i \phi}) / 2, \phi the phase of the wave; nothing where the wave is 0."""
        return self.back(v * self.wave((x + 1) / 2).sgn()) / 2


class Intensity(Phaseless):
    """y = |L u|^2, u = (x + 1) / 2: what photons count."""

    def __call__(self, x: Tensor) -> Tensor:
        z = self.wave((x + 1) / 2)
        return z.real.square() + z.imag.square()

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """J^T v = Re L^H (v z)."""
        return self.back(v * self.wave((x + 1) / 2))


class _Far(Phaseless):
    """The far field of an image in an opaque frame: the Fourier transform of the zero-padded image.

    Each channel is transformed on its own. As u is real, z(-k) is the conjugate of z(k), and every number but a few
    is measured twice.

    Args:
        shape: (c, h, w) of one image.
        oversampling: side of the padded image over that of the image, rounded to whole pixels. From 2 (one pixel
            less) the autocorrelation of the image is seen without overlap.

    Raises:
        ValueError: ``oversampling`` is less than 1.
    """

    gain = 1.0

    def __init__(self, shape: tuple[int, int, int], oversampling: float = 2.0) -> None:
        if not oversampling >= 1:
            raise ValueError(f"oversampling must be at least 1, got {oversampling}")
        self.shape, self.oversampling = tuple(shape), oversampling
        _, h, w = shape
        self.frame = (round(oversampling * h), round(oversampling * w))
        self.corner = ((self.frame[0] - h) // 2, (self.frame[1] - w) // 2)  # of the image, which is centred

    def embed(self, u: Tensor) -> Tensor:
        """P u: zeros around (..., h, w)."""
        (top, left), (_, h, w), (height, width) = self.corner, self.shape, self.frame
        return pad(u, (left, width - w - left, top, height - h - top))

    def crop(self, g: Tensor) -> Tensor:
        """P^T g: the image in the frame (..., H, W)."""
        (top, left), (_, h, w) = self.corner, self.shape
        return g[..., top : top + h, left : left + w]

    def wave(self, u: Tensor) -> Tensor:
        return fft2(self.embed(u), norm="ortho")

    def back(self, z: Tensor) -> Tensor:
        return self.crop(ifft2(z, norm="ortho").real)


@final
class FourierMagnitude(_Far, Amplitude):
    """y = |F P u|, (b, c, H, W), zero frequency at index 0: classical phase retrieval.

    Unchanged by a half-turn of the image, and by circular shifts in the frame; see
    :mod:`scoreatlas.metrics.ambiguity`. Arguments: those of the padding.
    """


@final
class FourierIntensity(_Far, Intensity):
    """y = |F P u|^2, (b, c, H, W): the same before the square root, for photon noise."""


@final
class CodedDiffraction(Amplitude):
    r"""y_k = |F (d_k u)|, (b, masks, c, h, w): K exposures through known random phase plates d_k = e^{i \theta_k}.

    E. J. Candès, X. Li and M. Soltanolkotabi, *Phase retrieval from coded diffraction patterns*, Appl. Comput. Harmon.
    Anal. 39, 2015, arXiv:1310.3240. Each exposure has the full light, L^H L = K I.

    Deviations:
        - The phases are uniform on the circle; the theorem is about masks that vary in modulus, too.

    Args:
        shape: (c, h, w) of one image; channels go through the same plates.
        masks: K, the number of exposures.
        rng: draws the plates; only its first problem is used.
        dtype: real dtype of the images.

    Raises:
        ValueError: no mask.
    """

    def __init__(self, shape: tuple[int, int, int], masks: int, rng: Rng, dtype: torch.dtype = torch.float32) -> None:
        if masks < 1:
            raise ValueError(f"coded diffraction needs at least one mask, got {masks}")
        self.shape, self.gain = tuple(shape), float(masks)
        angle = 2 * torch.pi * rng.uniform(masks, 1, *shape[1:])[0].cpu().double()
        self.masks = torch.polar(torch.ones_like(angle), angle).to(dtype.to_complex())

    def wave(self, u: Tensor) -> Tensor:
        return fft2(self.masks * u.unsqueeze(-4), norm="ortho")

    def back(self, z: Tensor) -> Tensor:
        return (self.masks.conj() * ifft2(z, norm="ortho")).sum(-4).real
