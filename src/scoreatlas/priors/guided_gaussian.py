r"""Guidance between two Gaussians in closed form: what each sampler ends on, and what it was meant to sample.

Condition p(x | c) = N(m_c, v_c), everything p(x) = N(m_u, v_u), scale s. In x = x_0 + sqrt(tau) eps the guided score is

.. math:: g(x; \tau) = -s \, \frac{x - m_c}{v_c + \tau} - (1 - s) \, \frac{x - m_u}{v_u + \tau},

so the probability flow dx/dtau = -g/2 and the reverse diffusion dx = -g dtau + dW are linear, and keep Gaussians
Gaussian. All formulas are for an infinite top noise level and exact steps. A pair with one mean and two variances is
the counterexample of Bradley & Nakkiran (2024, arXiv:2408.09000).
"""

import math
from dataclasses import dataclass
from typing import final

import torch


@final
@dataclass(frozen=True)
class Pair:
    """Two Gaussians and a scale.

    Args:
        m_c, v_c: mean and variance given the condition.
        m_u, v_u: mean and variance of everything.
        scale: s; 1 is the condition, 0 everything.
    """

    m_c: float
    v_c: float
    m_u: float
    v_u: float
    scale: float

    def tilted(self) -> tuple[float, float]:
        r"""Mean and variance of the law proportional to :math:`p(x) \, p(c \mid x)^s`, that is p(x|c)^s p(x)^(1-s).

        Raises:
            ValueError: it cannot be normalised.
        """
        precision = self.scale / self.v_c + (1 - self.scale) / self.v_u
        if precision <= 0:
            raise ValueError(f"the tilted law of {self} has no finite mass")
        return (self.scale * self.m_c / self.v_c + (1 - self.scale) * self.m_u / self.v_u) / precision, 1 / precision

    def flow(self) -> tuple[float, float]:
        """Mean and variance at the end of the guided probability flow: variance v_c^s v_u^(1 - s)."""
        return self._mean(0.5), self.v_c**self.scale * self.v_u ** (1 - self.scale)

    def diffusion(self) -> tuple[float, float]:
        r"""Mean and variance at the end of the guided reverse diffusion.

        .. math:: \frac{v_c v_u}{v_u - v_c} \, \frac{1 - (v_c / v_u)^{2 s - 1}}{2 s - 1},
           \quad \text{at } s = \tfrac12: \; \frac{v_c v_u}{v_u - v_c} \log \frac{v_u}{v_c},
           \quad \text{at } v_u = v_c: \; v_c
        """
        log_ratio = math.log(self.v_u / self.v_c)
        if abs(log_ratio) < 1e-9:
            return self._mean(1.0), self.v_c
        power = 2 * self.scale - 1
        last = -math.expm1(-power * log_ratio) / power if power != 0 else log_ratio
        return self._mean(1.0), self.v_c * self.v_u / (self.v_u - self.v_c) * last

    def _mean(self, rate: float) -> float:
        r"""End of dm/dtau = -rate E[g], as an integral over u = v / (v + tau) in (0, 1), by quadrature.

        With :math:`G(\tau)` the gain from tau down to 0, the end is :math:`m_c + \mathrm{rate} \, (1 - s) (m_u - m_c)
        \int_0^\infty G \, \mathrm d \tau / (v_u + \tau)`.
        """
        nodes, weights = _gauss_legendre()
        v = math.sqrt(self.v_c * self.v_u)
        # tau = v (1 - r^2) / r^2 with r in (0, 1): the integrand, of order tau^(-1 - rate), becomes smooth
        tau = v * (1 - nodes**2) / nodes**2
        jacobian = 2 * v / nodes**3
        log_gain = rate * (
            self.scale * (self.v_c / (self.v_c + tau)).log() + (1 - self.scale) * (self.v_u / (self.v_u + tau)).log()
        )
        integral = float((weights * jacobian * log_gain.exp() / (self.v_u + tau)).sum())
        return self.m_c + rate * (1 - self.scale) * (self.m_u - self.m_c) * integral


def _gauss_legendre(n: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """Nodes and weights on (0, 1) (Golub & Welsch, 1969)."""
    k = torch.arange(1, n, dtype=torch.float64)
    off = k / (4 * k**2 - 1).sqrt()
    values, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return (values + 1) / 2, vectors[0] ** 2
