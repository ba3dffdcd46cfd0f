r"""Turbulence as a function of a few numbers: a family of operators for blind restoration.

Deviations:
    - The displacement is a stationary Gaussian random field with a Gaussian correlation, cut off after a few
      frequencies. Real tilt follows from Kolmogorov's spectrum, whose correlation has a long tail (J. D. Schmidt,
      *Numerical simulation of optical wave propagation*, SPIE, 2010).
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from scoreatlas.operators.turbulence import Turbulence
from scoreatlas.rng import Rng


@final
@dataclass(frozen=True)
class TurbulenceFamily:
    r"""The operators :math:`A_\varphi = K_s T_d`, and the numbers :math:`\varphi` that name them.

    .. math:: \varphi = (\log \text{strength}, \log \text{correlation}, \log s, c), \qquad
       d(u) = \text{strength} \sum_k \sqrt{S_k} \, (c_k \cos 2 \pi k u + c_k' \sin 2 \pi k u),
       \quad S_k \propto e^{-(2 \pi k \, \text{correlation})^2 / 2}, \; \sum_k S_k = 1

    over half of the frequencies k (cycles per pixel) with at most ``modes`` periods per side; k = 0 is left out, as a
    shift of the whole field cannot be told from a shift of the scene. Coefficients that are independent N(0, 1) make
    the field stationary: each displacement is N(0, strength^2) and d(u), d(u') correlate as
    :math:`\sum_k S_k \cos 2 \pi k (u - u')`. That is the prior under which they should be estimated.

    The three lengths are held between 0.01 pixels and the side; beyond, the operator stays and its gradient is 0.

    Args:
        shape: (c, h, w) of one image.
        modes: highest number of periods per side.
        cubic: interpolation of the tilt, smooth in the displacement.

    Raises:
        ValueError: ``modes`` is not between 1 and half of the shorter side.
    """

    shape: tuple[int, int, int]
    modes: int = 4
    cubic: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.modes < min(self.shape[1:]) / 2:
            raise ValueError(f"modes must lie between 1 and half the side of {self.shape}, got {self.modes}")

    @property
    def size(self) -> int:
        """Length p of phi: 3 + 4 per frequency (cosine and sine, down and right)."""
        return 3 + 4 * len(self._periods())

    def at(self, phi: Tensor) -> Turbulence:
        """The operator of phi, (p,), or (b, p) with one for each row; differentiable in phi."""
        return Turbulence(self.displacement(phi), self._lengths(phi)[2], self.shape, self.cubic)

    def displacement(self, phi: Tensor) -> Tensor:
        """d in pixels, (2, h, w) or (b, 2, h, w)."""
        _, h, w = self.shape
        periods = self._periods().to(phi)
        rows = torch.arange(h, device=phi.device, dtype=phi.dtype)[:, None] / h
        columns = torch.arange(w, device=phi.device, dtype=phi.dtype) / w
        phase = 2 * math.pi * (periods[:, 0, None, None] * rows + periods[:, 1, None, None] * columns)
        waves = torch.stack([phase.cos(), phase.sin()], 1)  # (k, 2, h, w)
        f = periods / torch.tensor([h, w]).to(phi)
        strength, correlation, _ = self._lengths(phi)
        root = (-((math.pi * correlation[..., None]) ** 2) * f.square().sum(1)).softmax(
            -1
        )  # S at half the exponent ...
        root = root / root.square().sum(-1, keepdim=True).sqrt()  # ... whose squares sum to 1
        c = phi[..., 3:].unflatten(-1, (2, len(periods), 2)) * root[..., None, :, None]
        return strength[..., None, None, None] * torch.einsum("...dks,kshw->...dhw", c, waves)

    def phi(self, strength: float, correlation: float, blur: float, coefficients: Tensor) -> Tensor:
        """phi from rms displacement, correlation length and blur, all in pixels, and coefficients (*b, p - 3)."""
        head = torch.tensor([strength, correlation, blur]).log().to(coefficients)
        return torch.cat([head.expand(*coefficients.shape[:-1], 3), coefficients], -1)

    def draw(self, strength: float, correlation: float, blur: float, rng: Rng) -> Tensor:
        """phi (b, p) of random fields, one for each row of ``rng``."""
        return self.phi(strength, correlation, blur, rng.normal(self.size - 3))

    def _lengths(self, phi: Tensor) -> tuple[Tensor, ...]:
        """Strength, correlation length and blur, each (*b,), in pixels."""
        return phi[..., :3].clamp(math.log(0.01), math.log(max(self.shape[1:]))).exp().unbind(-1)

    def _periods(self) -> Tensor:
        """Half of the frequencies within ``modes``, in periods per side, (k, 2)."""
        m = self.modes
        pairs = [(i, j) for i in range(m + 1) for j in range(-m, m + 1) if (i > 0 or j > 0) and i * i + j * j <= m * m]
        return torch.tensor(pairs, dtype=torch.float64)
