"""DPM-Solver and DPM-Solver++ against the published updates, written out in alpha, sigma and lambda; float64."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.mixture import GaussianMixture, gaussian
from scoreatlas.rng import Rng
from scoreatlas.samplers.dpm_solver import DPMSolver, LogSNR
from scoreatlas.samplers.dpm_solver_pp import DPMSolverPP
from scoreatlas.samplers.ode import Karras
from scoreatlas.schedules import VP, Time

GRID = LogSNR(0.05)
PRIOR = DiffusionPrior(
    GaussianMixture(
        torch.tensor([0.6, 0.4], dtype=torch.float64),
        torch.tensor([[-0.7, -0.3], [0.6, 0.5]], dtype=torch.float64),
        torch.tensor([0.04, 0.02], dtype=torch.float64),
    ),
    VP(),
    (2,),
)


def rng() -> Rng:
    return Rng([0], 6, dtype=torch.float64)


def vp(lam: float) -> Time:
    """The variance-preserving moment with this lambda = log(alpha / sigma)."""
    return Time(0.5, 1 / math.sqrt(1 + math.exp(-2 * lam)), 1 / math.sqrt(1 + math.exp(2 * lam)))


def data(x: Tensor, lam: float) -> Tensor:
    return PRIOR.denoise(x, vp(lam))


def eps(x: Tensor, lam: float) -> Tensor:
    return (x - vp(lam).alpha * data(x, lam)) / vp(lam).sigma


def lambdas(steps: int) -> list[float]:
    return [-math.log(n) for n in GRID(VP(), steps)[:-1]]


def start(lam: float) -> Tensor:
    return PRIOR.initial(rng()) / VP().at(1.0).alpha * vp(lam).alpha


def close(sampler: DPMSolver | DPMSolverPP, x: Tensor, lam: float) -> bool:
    """Whether the state before the last step is x, in alpha units, and the answer its denoised version."""
    states = list(sampler.run(None, PRIOR, rng()))
    before = float((states[-2].x - x / vp(lam).alpha).abs().max()) < 1e-10
    return before and float((states[-1].x - data(x, lam)).abs().max()) < 1e-10


def test_order_1_2_3_as_printed():
    """Equations 3.7 and Algorithms 1 and 2 of arXiv:2206.00927, in the variables of the paper."""
    levels = lambdas(6)
    for order in (1, 2, 3):
        x = start(levels[0])
        for s, t in pairwise(levels):
            h, a, b = t - s, vp(s), vp(t)
            e = eps(x, s)
            linear = b.alpha / a.alpha * x - b.sigma * math.expm1(h) * e
            if order == 1:
                x = linear
            elif order == 2:
                c = vp(s + 0.5 * h)
                u = c.alpha / a.alpha * x - c.sigma * math.expm1(0.5 * h) * e
                x = linear - b.sigma / (2 * 0.5) * math.expm1(h) * (eps(u, s + 0.5 * h) - e)
            else:
                r1, r2 = 1 / 3, 2 / 3
                c1, c2 = vp(s + r1 * h), vp(s + r2 * h)
                u1 = c1.alpha / a.alpha * x - c1.sigma * math.expm1(r1 * h) * e
                d1 = eps(u1, s + r1 * h) - e
                u2 = c2.alpha / a.alpha * x - c2.sigma * math.expm1(r2 * h) * e
                u2 = u2 - c2.sigma * r2 / r1 * (math.expm1(r2 * h) / (r2 * h) - 1) * d1
                d2 = eps(u2, s + r2 * h) - e
                x = linear - b.sigma / r2 * (math.expm1(h) / h - 1) * d2
        assert close(DPMSolver(6, order, GRID), x, levels[-1])


def test_two_steps_as_in_diffusers():
    """2M and 2S in the form of diffusers' DPMSolver{Multi,Single}stepScheduler with solver_type "midpoint"."""
    levels = lambdas(8)
    x, past = start(levels[0]), []
    for i, (s, t) in enumerate(pairwise(levels)):
        h, a, b = t - s, vp(s), vp(t)
        past.append(data(x, s))
        x = b.sigma / a.sigma * x - b.alpha * (math.exp(-h) - 1.0) * past[-1]
        if i > 0:
            r0 = (s - levels[i - 1]) / h
            d1 = (past[-1] - past[-2]) / r0
            x = x - 0.5 * b.alpha * (math.exp(-h) - 1.0) * d1
    assert close(DPMSolverPP(8, "2M", GRID), x, levels[-1])

    x = start(levels[0])
    for s, t in pairwise(levels):
        h, a, b, c = t - s, vp(s), vp(t), vp((s + t) / 2)
        d0 = data(x, s)
        u = c.sigma / a.sigma * x - c.alpha * (math.exp(-h / 2) - 1.0) * d0
        d1 = (data(u, (s + t) / 2) - d0) / 0.5
        x = b.sigma / a.sigma * x - b.alpha * (math.exp(-h) - 1.0) * d0 - 0.5 * b.alpha * (math.exp(-h) - 1.0) * d1
    assert close(DPMSolverPP(8, "2S", GRID), x, levels[-1])


def three(prior: DiffusionPrior, x: Tensor, levels: list[float], factor: float) -> Tensor:
    """3M in the form of diffusers, whose D2 lacks the ``factor`` 2 of a second derivative."""
    past = []
    for s, t in pairwise(levels):
        h, a, b = t - s, vp(s), vp(t)
        past.append((s, prior.denoise(x, a)))
        phi = math.exp(-h) - 1.0
        d0 = past[-1][1]
        x = b.sigma / a.sigma * x - b.alpha * phi * d0
        if len(past) == 2:
            x = x - 0.5 * b.alpha * phi * (d0 - past[-2][1]) * h / (s - past[-2][0])
        if len(past) > 2:
            r0, r1 = (s - past[-2][0]) / h, (past[-2][0] - past[-3][0]) / h
            d10, d11 = (d0 - past[-2][1]) / r0, (past[-2][1] - past[-3][1]) / r1
            d1 = d10 + r0 / (r0 + r1) * (d10 - d11)
            d2 = factor * (1 / (r0 + r1)) * (d10 - d11)
            x = x + b.alpha * (phi / h + 1.0) * d1 - b.alpha * ((phi + h) / h**2 - 0.5) * d2
    return x


def test_three_steps_are_those_of_diffusers_but_for_a_factor():
    levels = lambdas(8)
    assert close(DPMSolverPP(8, "3M", GRID), three(PRIOR, start(levels[0]), levels, 2), levels[-1])


@pytest.mark.parametrize(("factor", "order"), [(1, 2), (2, 3)])
def test_without_the_factor_the_third_order_is_the_second(factor, order):
    """The second derivative is twice the second divided difference. On N(0, 0.4), down to n = 0.3."""
    variance, top, low = 0.4, VP().at(1.0).noise, 0.3
    prior = DiffusionPrior(gaussian(torch.zeros(1).double(), torch.tensor(variance).double()), VP(), (1,))
    errors = []
    for steps in (256, 512):
        levels = [-math.log(n) for n in LogSNR(low)(VP(), steps + 1)[:-1]]
        z = three(prior, torch.full((1, 1), top * vp(levels[0]).alpha).double(), levels, factor) / vp(levels[-1]).alpha
        errors.append(abs(float(z) - top * math.sqrt((variance + low**2) / (variance + top**2))))
    assert abs(math.log2(errors[0] / errors[1]) - order) < 0.2


@pytest.mark.parametrize("sampler", [DPMSolver(6, 2, Karras()), DPMSolverPP(6, "2M", Karras())], ids=repr)
def test_the_schedule_is_only_a_grid(sampler):
    """Another schedule with the same start and the same levels gives the same answer, up to the scale of the noise."""

    class Twice(VP):
        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:  # the same ratio, not preserving variance
            alpha, sigma = super().__call__(t)
            return (1 + t) * alpha, (1 + t) * sigma

    other = DiffusionPrior(PRIOR.denoiser, Twice(), (2,))
    gap = sampler(None, PRIOR, rng()) - sampler(None, other, rng())
    assert float(gap.abs().max()) < 1e-10
