"""Blind problems: the operator is known up to its parameters, which have a prior of their own."""

from dataclasses import dataclass
from typing import Generic, TypeVar, final

import torch
from torch import Tensor

from scoreatlas.linalg import dot
from scoreatlas.measurement import Measurement, N_co
from scoreatlas.operators.base import Operator
from scoreatlas.operators.family import Family
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng

F_co = TypeVar("F_co", bound=Family, covariant=True)


@final
@dataclass(frozen=True, eq=False)
class BlindMeasurement(Generic[F_co, N_co]):
    """Data, a family of operators and noise: the likelihood p(y | x, phi).

    Attributes:
        y: data (b, *m), one row per problem.
        family: the operators that it may have been; each row has its own parameters.
        noise: noise model.
    """

    y: Tensor
    family: F_co
    noise: N_co

    def at(self, phi: Tensor) -> Measurement[Operator, N_co]:
        """The measurement as it is if the parameters are phi (b, *p)."""
        return Measurement(self.y, self.family.at(phi), self.noise)

    def log_likelihood(self, x: Tensor, phi: Tensor) -> Tensor:
        """log p(y | x, phi) of each row, (b,), for images (b, *s) and parameters (b, *p)."""
        return self.at(phi).log_likelihood(x)

    def downhill(self, x: Tensor, phi: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The residual r = y - A_phi(x), and minus the gradients of |r|^2 / 2 in x and in phi, row by row."""
        with torch.enable_grad():
            x, phi = x.detach().requires_grad_(), phi.detach().requires_grad_()
            r = self.y - self.family.at(phi)(x)
            g, g_phi = torch.autograd.grad(-0.5 * dot(r, r).sum(), (x, phi))
        return r.detach(), g, g_phi

    def repeat(self, n: int) -> "BlindMeasurement[F_co, N_co]":
        """The same problems with each row repeated ``n`` times: n samples each, with ``Rng(seeds, rows=n)``."""
        return BlindMeasurement(self.y.repeat_interleave(n, 0), self.family, self.noise)


@final
@dataclass(frozen=True, eq=False)
class JointPrior:
    """p(x, phi) = p(x) p(phi): image and parameters are independent before there are data.

    Attributes:
        image: diffusion prior of the image.
        phi: diffusion prior of the parameters, of shape (*p).
    """

    image: DiffusionPrior
    phi: DiffusionPrior

    def initial(self, rng: Rng) -> tuple[Tensor, Tensor]:
        """Both at t = 1, noise alone: (b, *s) and (b, *p)."""
        return self.image.initial(rng), self.phi.initial(rng)

    def guess(self, rng: Rng) -> Tensor:
        """What the parameters are before there are data, (b, *p): E[phi | phi_1 = 0], next to the prior mean."""
        nothing = torch.zeros(rng.batch, *self.phi.shape, dtype=rng.dtype, device=rng.device)
        return self.phi.denoise(nothing, self.phi.schedule.at(1.0))
