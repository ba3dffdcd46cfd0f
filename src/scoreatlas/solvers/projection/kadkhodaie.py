r"""Coarse-to-fine stochastic ascent (Kadkhodaie and Simoncelli, NeurIPS 2021, arXiv:2007.13640), Algorithms 1 and 2.

One routine makes images and solves linear inverse problems; with nothing measured it is Algorithm 1. Official code:
``code/algorithm_inv_prob.py``.

Deviations:
    - Levels are in units of [-1, 1]: sigma_0 = 1 and sigma_L = 0.01 on [0, 1] are 2 and 0.02 here, the grey of the
      start, 0.5, is 0.
    - The paper's measurements are :math:`M^T x` with orthonormal columns. Any operator with a singular value
      decomposition is reduced to that: M holds the right singular vectors, a datum is divided by its singular value.
    - The paper's data are free of noise. Here a coordinate counts as measured as long as its noise
      :math:`\tau_i = \sigma_y / s_i` is below that of the iterate, and is the prior's after that.
    - Paper and code read the noise level off the residual, :math:`\sigma = |d| / \sqrt N`, of a denoiser that is told
      none. That is ``estimate``. Without it the level is the one that the step is designed to leave,
      :math:`(1 - \beta h) \sigma`, which any denoiser can be told. Read off the residual of one that believes what
      it is told, the level collapses (chapter 4.1).
    - Without ``beta`` the number of steps comes first, and beta is the one that arrives at ``last`` by then.
    - The code's first network call, whose result only decides whether to begin, is left out.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

import torch

from scoreatlas.linalg import rows
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Diagonalised
from scoreatlas.priors.blind_denoiser import noise_level
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class KadkhodaieSimoncelli(Solver[Measurement[Diagonalised, Gaussian], DiffusionPrior]):
    r"""Moves towards the denoised image, its measured part replaced by the data, and puts back a part of the noise.

    .. math::
       d &= (I - P) \, (x - D(x)) + P x - A^+ y, \qquad P = A^+ A \\
       x &\gets x - h_k d + \sigma \sqrt{(1 - \beta h_k)^2 - (1 - h_k)^2} \, z, \qquad
       h_k = \frac{h_0 k}{1 + h_0 (k - 1)} \\
       \sigma &\gets (1 - \beta h_k) \, \sigma \qquad \text{or, next time round, } |d| / \sqrt N

    until sigma is ``last``, and then D(x). With ``beta = 1`` no noise is added: DDIM in image units. As beta goes
    to 0, the last steps renew all the noise many times over, and half of the variance of a Gaussian prior is lost.

    Exactness card: ``book/cards/kadkhodaiesimoncelli``.

    Args:
        steps: network calls. With ``beta`` a run ends when the level has arrived, and ``steps`` is a limit; with
            ``estimate`` every row rests when its own level has.
        beta: in (0, 1]; the paper's is 0.01 (662 calls), and 0.5 in the official demonstration (48). None: the
            one that takes ``steps`` calls, 1 and a larger h0 where that is still too slow (below 33).
        h0: first step size.
        first, last: noise levels, image units.
        estimate: reads the noise level off the residual, for blind denoisers.

    Raises:
        ValueError: ``beta`` or ``h0`` is not in (0, 1], or levels do not fall.
    """

    steps: int = 100
    beta: float | None = None
    h0: float = 0.01
    first: float = 2.0
    last: float = 0.02
    estimate: bool = False

    def __post_init__(self) -> None:
        if not (0 < self.h0 <= 1 and (self.beta is None or 0 < self.beta <= 1)):
            raise ValueError(f"beta and h0 must lie in (0, 1], got {self.beta} and {self.h0}")
        if not 0 < self.last < self.first:
            raise ValueError(f"noise must fall to a positive level, got first {self.first} and last {self.last}")

    def iterate(self, m: Measurement[Diagonalised, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        A, (beta, h0) = m.A, self.pace()
        y, tau = A.spectral(m.y, m.noise.std)
        x = A.v(torch.where(tau <= self.first, y, 0)) + self.first * rng.normal(*prior.shape)
        sigma = reached = x.new_full(x.shape[:1], self.first)
        for k in range(1, self.calls()):
            h = step_size(h0, k)
            going = reached > self.last * (1 + 1e-6)
            x0 = prior.denoiser(x, sigma)
            d = x - A.v(torch.where(tau <= rows(sigma, y), y, A.vt(x0)))
            now = noise_level(d) if self.estimate else sigma
            gamma = now * math.sqrt(max((1 - beta * h) ** 2 - (1 - h) ** 2, 0.0))
            x = torch.where(rows(going, x), x - h * d + rows(gamma, x) * rng.normal_like(x), x)
            sigma = torch.where(going, (1 - beta * h) * now, sigma)
            reached = torch.where(going, now if self.estimate else sigma, reached)
            yield State(x, x0)
        x0 = prior.denoiser(x, sigma)
        yield State(x0, x0)

    def calls(self) -> int:
        """Network calls of a run: ``steps``, or fewer if ``beta`` is given and the level is not estimated."""
        if self.beta is None or self.estimate:
            return self.steps
        level, n = self.first, 1
        while n < self.steps and level > self.last * (1 + 1e-6):
            level *= 1 - self.beta * step_size(self.h0, n)
            n += 1
        return n

    def pace(self) -> tuple[float, float]:
        """beta and h0: as given, or such that the noise arrives at ``last`` after ``steps - 1`` steps."""
        n, ratio = self.steps - 1, self.last / self.first
        if self.beta is not None or n < 1:
            return self.beta or 1.0, self.h0
        if left(1.0, self.h0, n) > ratio:
            return 1.0, smallest(lambda h0: left(1.0, h0, n) <= ratio)
        return smallest(lambda beta: left(beta, self.h0, n) <= ratio), self.h0


def step_size(h0: float, k: int) -> float:
    """h_k, k = 1, 2, ...: from h0 up to 1."""
    return h0 * k / (1 + h0 * (k - 1))


def left(beta: float, h0: float, n: int) -> float:
    """What is left of the noise level after n steps."""
    return math.prod(1 - beta * step_size(h0, k) for k in range(1, n + 1))


def smallest(holds: Callable[[float], bool]) -> float:
    """The smallest number in (0, 1] for which a monotone condition holds, to 1e-12."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
