r"""BlindDPS, parallel diffusion of image and operator (Chung et al., CVPR 2023, arXiv:2211.10656), Algorithm 1.

Deviations:
    - As for DPS here, the step is a multiple of the gradient of the norm, the norm is taken row by row (official code,
      ``blind_condition_methods.py``: over the batch), and the ancestral step has the variance of the chain (official:
      a learned one). Estimates are not clipped; the official ones are, image and kernel, and clipping a kernel is here
      part of the family (``KernelBlurs(link="clip")``).
    - Step: constant in the paper; alpha_t in the official code, where a comment says so and the scale of the
      configuration files is never read (``growing=True, zeta=1, zeta_phi=1``).
    - No sparsity term. The paper adds a norm of the kernel to the residual. Of the two that the official script offers,
      the count of non-zeros (its default) has no gradient, and the L1 norm of a kernel that is not negative and sums
      to 1 is 1.
    - Any family of operators, any number of parameters: the paper has a blur kernel, and a kernel with a tilt field.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch

from scoreatlas.blind import BlindMeasurement, JointPrior
from scoreatlas.linalg import norm, rows
from scoreatlas.measurement import Gaussian
from scoreatlas.operators.family import Family
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import State
from scoreatlas.solvers.blind.base import BlindSolver


@final
@dataclass(frozen=True)
class BlindDPS(BlindSolver[BlindMeasurement[Family, Gaussian], JointPrior]):
    r"""Two reverse chains, of the image and of the parameters, both pulled by the residual that they share.

    .. math::
       x_s \gets x_s' - \zeta \, \nabla_{x_t} \| y - A_{\hat\varphi_0(\varphi_t)}(\hat x_0(x_t)) \|, \qquad
       \varphi_s \gets \varphi_s' - \zeta_\varphi \, \nabla_{\varphi_t} \| y - A_{\hat\varphi_0}(\hat x_0) \|

    Args:
        steps: network calls, of either prior, each with a product with its transposed Jacobian; the paper uses 1000.
        zeta: step of the image; 0.3 in the configuration files.
        zeta_phi: step of the parameters; the same in the paper.
        growing: multiply both by alpha_t, as the official code does.
        eta: 1 is DDPM's ancestral step.
    """

    steps: int = 1000
    zeta: float = 0.3
    zeta_phi: float = 0.3
    growing: bool = False
    eta: float = 1.0

    def iterate(self, m: BlindMeasurement[Family, Gaussian], prior: JointPrior, rng: Rng) -> Iterator[State]:
        tiny = torch.finfo(rng.dtype).tiny  # a residual of exactly 0 pulls nowhere
        image, other = prior.image, prior.phi
        x, phi = prior.initial(rng)
        moments = zip(image.schedule.pairs(self.steps), other.schedule.pairs(self.steps), strict=True)
        for (t, s), (u, v) in moments:
            x0, pull = image.denoise_vjp(x, t)
            phi0, pull_phi = other.denoise_vjp(phi, u)
            r, down, down_phi = m.downhill(x0, phi0)
            length = norm(r).clamp_min(tiny)
            share = t.alpha if self.growing else 1.0
            mean, std = image.schedule.bridge(x, x0, t, s, self.eta)
            x = mean + std * rng.normal_like(x) + share * self.zeta * pull(down) / rows(length, x)
            mean, std = other.schedule.bridge(phi, phi0, u, v, self.eta)
            step = share * self.zeta_phi * pull_phi(down_phi) / rows(length, phi)
            phi = mean + std * rng.normal_like(phi) + step
            yield State(x, x0, phi)
