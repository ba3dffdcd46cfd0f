r"""The reverse SDE with any amount of noise: from the probability-flow ODE (0) through Anderson's (1) to beyond.

Anderson (1982), *Reverse-time diffusion equation models*; Song et al. (2021), arXiv:2011.13456, equation 6;
Zhang & Chen (2023), *Fast Sampling of Diffusion Models with Exponential Integrator*, arXiv:2204.13902, whose amount of
noise is called lambda; Karras et al. (2022), arXiv:2206.00364, equation 6.

In the variable z = x_t / alpha_t and against the noise level n, for every schedule and every amount of noise kappa,

.. math:: dz = (1 + \kappa^2) \frac{z - D(z; n)}{n} dn + \kappa \sqrt{2 n} \, d\bar w

has the marginals of the forward process. Over a step from n to n' with D held constant the equation is linear, and its
solution exact:

.. math:: z' = D + \rho^{1 + \kappa^2} (z - D) + n' \sqrt{1 - \rho^{2 \kappa^2}} \, \epsilon, \qquad \rho = n' / n

kappa = 0 is DDIM with eta 0, kappa = 1 is DDPM with the small variance: see the tests.

Deviations:
    - Song et al. discretise the SDE of x_t by Euler and Maruyama in t. In z and against n^2 the step of Euler and
      Maruyama is DDPM's with the large variance, where alpha is 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.samplers.ode import Grid, Uniform
from scoreatlas.schedules import Time
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class ReverseSDE(Solver[None, DiffusionPrior]):
    """The reverse SDE, solved with the denoised image held constant over each step.

    ``State.x`` is z = x_t / alpha_t, as in :mod:`scoreatlas.samplers.ode`.

    Args:
        steps: network calls.
        kappa: amount of noise: 0 none (the ODE), 1 that of the forward process reversed.
        grid: noise levels.

    Raises:
        ValueError: a negative kappa.
    """

    steps: int = 200
    kappa: float = 1.0
    grid: Grid = Uniform()

    def __post_init__(self) -> None:
        if self.kappa < 0:
            raise ValueError(f"kappa must be >= 0, got {self.kappa}")

    def iterate(self, m: None, prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        levels = self.grid(prior.schedule, self.steps)
        z = prior.initial(rng) / prior.schedule.at(1.0).alpha
        for n, low in zip(levels[:-1], levels[1:], strict=True):
            x0, rho = prior.denoise(z, Time(n, 1.0, n)), low / n
            std = low * (1 - rho ** (2 * self.kappa**2)) ** 0.5
            z = x0 + rho ** (1 + self.kappa**2) * (z - x0) + std * rng.normal_like(z)
            yield State(z, x0)
