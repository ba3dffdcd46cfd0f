"""deepinv's diffusion samplers (https://deepinv.org; written against 0.5.0).

Conversions. deepinv's images are in [0, 1], ours in [-1, 1]: x = 2 u - 1. Its noise levels, of the
denoiser and of the data, are half of ours. Its data of an image u come from ours of x by
:math:`(y + A 1) / 2 = A u + n / 2`, which holds for every linear A. Its denoisers take levels as
Python floats, numpy floats, or tensors of shape (), (b,) or (b, 1, 1, 1), and may be 0, where ours
are positive: 0 becomes 1e-4, which moves no pixel by more than that.

Inpainting is handed over as its own ``Inpainting``, whose data are images with zeros; any other
operator as a ``LinearPhysics`` made of our operator and its adjoint.

Defaults are the library's, float64 states with float32 denoiser inputs included. ``steps`` is the
number of moments it is given. DDRM and DiffPIR call the network at each, the others not at the last.
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, final

import deepinv as dinv
import torch
from deepinv import sampling
from torch import Tensor

from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Linear
from scoreatlas.operators.inpainting import Inpainting
from scoreatlas.peers import global_stream
from scoreatlas.priors.diffusion import Denoiser, DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import M_contra, P_contra, Solver, State


class UnitRange(dinv.models.Denoiser):
    """A denoiser of images in [-1, 1] as deepinv wants one: images in [0, 1], any form of sigma.

    Args:
        denoiser: ours.
        dtype: what it computes in; deepinv hands over float32 whatever its own dtype.
    """

    def __init__(self, denoiser: Denoiser, dtype: torch.dtype) -> None:
        super().__init__()
        self.denoiser, self.dtype = denoiser, dtype

    def forward(self, x: Tensor, sigma: Any, *args: Any, **options: Any) -> Tensor:
        level = torch.as_tensor(sigma, dtype=self.dtype, device=x.device).clamp_min(0.5e-4)
        level = level if level.ndim == 0 else level.reshape(-1)
        return ((self.denoiser(2 * x.to(self.dtype) - 1, 2 * level) + 1) / 2).to(x.dtype)


class _Deepinv(Solver[M_contra, P_contra]):
    """Converts, runs, converts back."""

    @abstractmethod
    def model(self, denoiser: UnitRange, std: float, device: torch.device) -> Any:
        """deepinv's solver for denoiser and data noise in [0, 1]; called with data and physics."""

    @final
    def iterate(self, m: Any, prior: Any, rng: Rng) -> Iterator[State]:
        y, physics = to_physics(m, rng)
        model = self.model(UnitRange(prior.denoiser, rng.dtype), m.noise.std / 2, rng.device)
        with global_stream(rng):
            u = model(y, physics)
        x = 2 * u.to(rng.dtype) - 1
        yield State(x, x)


def to_physics(m: Measurement[Linear, Gaussian], rng: Rng) -> tuple[Tensor, Any]:
    """Data and forward operator for images in [0, 1]."""
    noise = dinv.physics.GaussianNoise(m.noise.std / 2)
    ones = torch.ones(1, *m.A.shape, dtype=rng.dtype, device=rng.device)
    y = (m.y + m.A(ones)) / 2
    if isinstance(m.A, Inpainting):
        mask = m.A.singular_values.to(rng.dtype)
        physics = dinv.physics.Inpainting(mask=mask, img_size=m.A.shape, noise_model=noise, device=rng.device)
        return m.A.adjoint(y), physics.to(rng.dtype)
    physics = dinv.physics.LinearPhysics(
        A=lambda x, **_: m.A(x.to(rng.dtype)),
        A_adjoint=lambda v, **_: m.A.adjoint(v.to(rng.dtype)),
        img_size=m.A.shape, noise_model=noise, device=rng.device,
    )  # fmt: skip
    return y, physics


@final
@dataclass(frozen=True)
class DeepinvDPS(_Deepinv[Measurement[Linear, Gaussian], DiffusionPrior]):
    """``deepinv.sampling.DPS``. Args: steps, weight (lambda), guidance ("norm" or "annealed") as there."""

    steps: int = 1000
    weight: float = 1.0
    guidance: Literal["norm", "annealed"] = "norm"

    def model(self, denoiser: UnitRange, std: float, device: torch.device) -> Any:
        return sampling.DPS(denoiser, num_steps=self.steps, weight=self.weight, guidance=self.guidance, device=device)


@final
@dataclass(frozen=True)
class DeepinvDDRM(_Deepinv[Measurement[Inpainting, Gaussian], DiffusionPrior]):
    """``deepinv.sampling.DDRM``, on inpainting. Args: steps (length of ``sigmas``), eta, etab as there."""

    steps: int = 100
    eta: float = 0.85
    etab: float = 1.0

    def model(self, denoiser: UnitRange, std: float, device: torch.device) -> Any:
        sigmas = torch.linspace(1, 0, self.steps, dtype=torch.float64).numpy()
        return sampling.DDRM(denoiser, sigmas=sigmas, eta=self.eta, etab=self.etab)


@final
@dataclass(frozen=True)
class DeepinvDiffPIR(_Deepinv[Measurement[Linear, Gaussian], DiffusionPrior]):
    """``deepinv.sampling.DiffPIR`` with the L2 fidelity. Args: steps (``max_iter``), zeta, lambda_ as there."""

    steps: int = 100
    zeta: float = 0.1
    lambda_: float = 7.0

    def model(self, denoiser: UnitRange, std: float, device: torch.device) -> Any:
        return sampling.DiffPIR(
            denoiser, dinv.optim.L2(), sigma=std, max_iter=self.steps, zeta=self.zeta, lambda_=self.lambda_,
            device=device,
        )  # fmt: skip


class _Posterior(_Deepinv[Measurement[Linear, Gaussian], DiffusionPrior]):
    """``PosteriorDiffusion`` with a data fidelity, on the VP SDE with the DDPM solver."""

    steps: int

    @abstractmethod
    def fidelity(self) -> Any:
        """The data fidelity."""

    @final
    def model(self, denoiser: UnitRange, std: float, device: torch.device) -> Any:
        moments = torch.linspace(1, 0, self.steps, dtype=torch.float64, device=device)
        return sampling.PosteriorDiffusion(
            self.fidelity(), denoiser, sampling.VariancePreservingDiffusion(alpha=1.0, device=device),
            sampling.DDPMSolver(timesteps=moments), device=device,
        )  # fmt: skip


@final
@dataclass(frozen=True)
class DeepinvPiGDM(_Posterior):
    """``PiGDMDataFidelity``."""

    steps: int = 1000

    def fidelity(self) -> Any:
        return sampling.PiGDMDataFidelity()


@final
@dataclass(frozen=True)
class DeepinvMMPS(_Posterior):
    """``MomentMatchingDataFidelity``. Args: steps; cg, iterations of the inner solve (``cg_max_iter``)."""

    steps: int = 1000
    cg: int = 3

    def fidelity(self) -> Any:
        return sampling.MomentMatchingDataFidelity(cg_max_iter=self.cg)


@final
@dataclass(frozen=True)
class DeepinvALD(_Posterior):
    """``ALDDataFidelity``."""

    steps: int = 1000

    def fidelity(self) -> Any:
        return sampling.ALDDataFidelity()


@final
@dataclass(frozen=True)
class DeepinvILVR(_Posterior):
    """``ILVRDataFidelity``."""

    steps: int = 1000

    def fidelity(self) -> Any:
        return sampling.ILVRDataFidelity()
