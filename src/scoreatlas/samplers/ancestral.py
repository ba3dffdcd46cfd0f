r"""Ancestral samplers: DDPM and DDIM.

Ho, Jain & Abbeel (2020), *Denoising Diffusion Probabilistic Models*, arXiv:2006.11239, Algorithm 2.
Song, Meng & Ermon (2021), *Denoising Diffusion Implicit Models*, arXiv:2010.02502, equation 12.

Deviations:
    - Both papers index a chain of 1000 discrete betas. Ours is the continuous schedule, which any
      number of steps subsamples; on the papers' own betas the update is theirs to rounding (tests).
    - The official samplers clip the estimate of x_0 to [-1, 1] by default; Algorithm 2 of the DDPM
      paper does not, and neither do we: clipping biases an exact sampler.
    - DDIM's code spaces its steps uniformly by default, the paper quadratically on CIFAR-10; ours is
      uniform in t. ``eta`` here is the paper's, not the fixed eta of DDRM or DDS.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, final

from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class DDPM(Solver[None, DiffusionPrior]):
    r"""The reverse chain :math:`x_s = \mu(x_t, \hat x_0) + \varsigma z`.

    Args:
        steps: network calls.
        variance: ``"fixedsmall"``, that of q(x_s | x_t, x_0), right when x_0 is known, or
            ``"fixedlarge"``, that of the forward step (beta_t in the VP case), right when x_0 is white
            with unit variance. The two differ by the factor sigma_t^2 / sigma_s^2; the last step adds
            no noise.

    Raises:
        ValueError: another variance.
    """

    steps: int = 1000
    variance: Literal["fixedsmall", "fixedlarge"] = "fixedsmall"

    def __post_init__(self) -> None:
        if self.variance not in ("fixedsmall", "fixedlarge"):
            raise ValueError(f"variance must be 'fixedsmall' or 'fixedlarge', got {self.variance!r}")

    def iterate(self, m: None, prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        x = prior.initial(rng)
        for t, s in prior.schedule.pairs(self.steps):
            x0 = prior.denoise(x, t)
            mean, std = prior.schedule.bridge(x, x0, t, s)
            if self.variance == "fixedlarge" and s.sigma > 0:
                std *= t.sigma / s.sigma
            x = mean + std * rng.normal_like(x)
            yield State(x, x0)


@final
@dataclass(frozen=True)
class DDIM(Solver[None, DiffusionPrior]):
    """The family between a deterministic map (eta 0) and DDPM with the small variance (eta 1).

    With eta 0 it is Euler's method on the probability-flow ODE in the variables of
    :mod:`scoreatlas.samplers.ode`.

    Args:
        steps: network calls.
        eta: share of fresh noise, in [0, 1].

    Raises:
        ValueError: eta outside [0, 1].
    """

    steps: int = 50
    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], got {self.eta}")

    def iterate(self, m: None, prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        x = prior.initial(rng)
        for t, s in prior.schedule.pairs(self.steps):
            x0 = prior.denoise(x, t)
            mean, std = prior.schedule.bridge(x, x0, t, s, self.eta)
            x = mean + std * rng.normal_like(x)
            yield State(x, x0)
