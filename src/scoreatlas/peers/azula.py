"""azula's posterior samplers (https://azula.readthedocs.io; written against 0.11.1).

Conversions. azula assumes no data range, so images stay in [-1, 1] and sigma_y in those units. Its
schedules are functions of a tensor t, as ours are; its denoisers take x_t and t, and ours take
x_t / alpha_t and sigma_t / alpha_t. Complex data become real rows. DiffPIR's inner solver treats the
last axis as the vector, so images are flattened for it.

Defaults are the library's. The steps are taken on the prior's own schedule.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, final

import azula.denoise
from azula.guidance import diffpir, dps, mmps, pgdm, tmpd
from azula.linalg.covariance import IsotropicCovariance
from azula.sample import DDPMSampler
from torch import Tensor

from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Diagonalised, Linear, Operator, real_rows
from scoreatlas.peers import global_stream
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.schedules import Schedule
from scoreatlas.solvers.base import M_contra, P_contra, Solver, State


class Conditional(azula.denoise.Denoiser):
    """Our prior as an azula denoiser of flattened or ordinary images.

    Args:
        prior: denoiser, schedule and shape.
        flat: whether images come as vectors.
    """

    def __init__(self, prior: DiffusionPrior, flat: bool) -> None:
        super().__init__()
        self.prior, self.flat = prior, flat

    @property
    def schedule(self) -> Schedule:
        return self.prior.schedule

    def forward(self, x_t: Tensor, t: Tensor, **options: Any) -> Any:
        alpha, sigma = self.schedule(t)
        z = x_t.reshape(-1, *self.prior.shape) if self.flat else x_t
        mean = self.prior.denoiser(z / alpha, sigma / alpha)
        return azula.denoise.DiracPosterior(mean=mean.flatten(1) if self.flat else mean)


class _Azula(Solver[M_contra, P_contra]):
    """Converts, runs, converts back."""

    steps: int
    flat = False

    @abstractmethod
    def sampler(
        self, denoiser: Conditional, y: Tensor, A: Callable[[Tensor], Tensor], m: Any, options: dict[str, Any]
    ) -> Any:
        """azula's sampler for data y of A; ``options`` are those of every sampler."""

    @final
    def iterate(self, m: Any, prior: Any, rng: Rng) -> Iterator[State]:
        def forward(x: Tensor) -> Tensor:
            y = m.A(x.reshape(-1, *m.A.shape) if self.flat else x)
            return real_rows(y) if y.is_complex() or self.flat else y

        y = real_rows(m.y) if m.y.is_complex() or self.flat else m.y
        options = {"steps": self.steps, "silent": True, "dtype": rng.dtype, "device": rng.device}
        sampler = self.sampler(Conditional(prior, self.flat), y, forward, m, options)
        start = prior.initial(rng)
        with global_stream(rng):
            x = sampler(start.flatten(1) if self.flat else start).reshape(-1, *prior.shape)
        yield State(x, x)


@final
@dataclass(frozen=True)
class AzulaDPS(_Azula[Measurement[Operator, Gaussian], DiffusionPrior]):
    """``DPSSampler``. Its norm runs over the batch. Args: steps; zeta as there."""

    steps: int = 64
    zeta: float = 1.0

    def sampler(
        self, denoiser: Conditional, y: Tensor, A: Callable[[Tensor], Tensor], m: Any, options: dict[str, Any]
    ) -> Any:
        return dps.DPSSampler(denoiser, y=y, A=A, zeta=self.zeta, **options)


@final
@dataclass(frozen=True)
class AzulaPGDM(_Azula[Measurement[Diagonalised, Gaussian], DiffusionPrior]):
    """``PGDMSampler``, which takes no noise level. Args: steps; eta as there."""

    steps: int = 64
    eta: float = 0.0

    def sampler(
        self, denoiser: Conditional, y: Tensor, A: Callable[[Tensor], Tensor], m: Any, options: dict[str, Any]
    ) -> Any:
        return pgdm.PGDMSampler(denoiser, y=m.y, A=m.A, A_inv=m.A.pinv, eta=self.eta, **options)


@final
@dataclass(frozen=True)
class AzulaTMPD(_Azula[Measurement[Linear, Gaussian], DiffusionPrior]):
    """``TMPDenoiser`` in a DDPM sampler."""

    steps: int = 64

    def sampler(
        self, denoiser: Conditional, y: Tensor, A: Callable[[Tensor], Tensor], m: Any, options: dict[str, Any]
    ) -> Any:
        return DDPMSampler(tmpd.TMPDenoiser(denoiser, y=y, A=A, var_y=m.noise.std**2), **options)


@final
@dataclass(frozen=True)
class AzulaMMPS(_Azula[Measurement[Linear, Gaussian], DiffusionPrior]):
    """``MMPSDenoiser`` (GMRES) in a DDPM sampler. Args: steps; iterations of the inner solve as there."""

    steps: int = 64
    iterations: int = 1
    flat = True

    def sampler(
        self, denoiser: Conditional, y: Tensor, A: Callable[[Tensor], Tensor], m: Any, options: dict[str, Any]
    ) -> Any:
        covariance = IsotropicCovariance(y.new_full((), m.noise.std**2))
        return DDPMSampler(
            mmps.MMPSDenoiser(denoiser, y=y, A=A, cov_y=covariance, iterations=self.iterations), **options
        )


@final
@dataclass(frozen=True)
class AzulaDiffPIR(_Azula[Measurement[Linear, Gaussian], DiffusionPrior]):
    """``DiffPIRDenoiser`` (GMRES) in a DDPM sampler. Args: steps; lmbda and iterations as there."""

    steps: int = 64
    lmbda: float = 10.0
    iterations: int = 1
    flat = True

    def sampler(
        self, denoiser: Conditional, y: Tensor, A: Callable[[Tensor], Tensor], m: Any, options: dict[str, Any]
    ) -> Any:
        q = diffpir.DiffPIRDenoiser(
            denoiser, y=y, A=A, var_y=m.noise.std**2, lmbda=self.lmbda, iterations=self.iterations
        )
        return DDPMSampler(q, **options)
