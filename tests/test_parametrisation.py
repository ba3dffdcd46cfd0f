"""The dictionary in double precision: identities of the code, and against a mixture's own densities."""

import math

import pytest
import sympy
import torch
from torch import Tensor

from scoreatlas.parametrisation import (
    QUANTITIES,
    carry,
    conversion,
    identities,
    moment,
    rate,
    velocity_from_score,
    velocity_from_x0,
    worth,
    x0_from_velocity,
)
from scoreatlas.priors.mixture import GaussianMixture
from scoreatlas.rng import Rng
from scoreatlas.schedules import SCHEDULES, VE, VP, Flow, Time
from scoreatlas.tweedie import FROM_X0, convert, score_from_x0

every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
TIMES = (0.05, 0.3, 0.7, 0.95)
MIXTURE = GaussianMixture(
    torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
    torch.tensor([[-0.7, -0.3], [0.6, 0.5], [0.4, -0.8]], dtype=torch.float64),
    torch.tensor([0.04, 0.09, 0.02], dtype=torch.float64),
)


def rng(rows: int) -> Rng:
    return Rng([0], rows, dtype=torch.float64)


def points(t: Time, rows: int = 16) -> tuple[Tensor, Tensor]:
    """x_t and E[x_0 | x_t] of the mixture."""
    r = rng(rows)
    x0 = MIXTURE.sample(r)
    x = t.alpha * x0 + t.sigma * r.normal_like(x0)
    return x, MIXTURE(x / t.alpha, x.new_full((), t.noise))


@every_schedule
@pytest.mark.parametrize("t", TIMES)
def test_all_round_trips(schedule, t):
    """25 round trips; what is lost is rounding, amplified by up to sigma / alpha of the moment."""
    at = schedule.at(t)
    assert identities(*points(at), at) < 1e-12 * max(1.0, at.noise)


@every_schedule
def test_velocity_is_that_of_the_song_drift_and_comes_back(schedule):
    """Two formulas for one vector: alpha' x0 + sigma' eps, and f x - g^2 s / 2."""
    for t in TIMES:
        at, r = schedule.at(t), rate(schedule, t)
        x, x0 = points(at)
        u = velocity_from_x0(x, x0, at, r)
        other = velocity_from_score(x, score_from_x0(x, x0, at), at, r)
        scale = max(abs(r.alpha), abs(r.sigma)) * max(1.0, at.noise)
        assert float((u - other).abs().max()) < 1e-12 * scale
        assert float((x0_from_velocity(x, u, at, r) - x0).abs().max()) < 1e-12 * max(1.0, at.noise)


@every_schedule
def test_rates_are_differences(schedule):
    """Central differences have an error of order h^2 = 1e-10, times third derivatives."""
    for t in TIMES:
        r, h = rate(schedule, t), 1e-5
        a, b = schedule.at(t + h), schedule.at(t - h)
        assert r.alpha == pytest.approx((a.alpha - b.alpha) / (2 * h), rel=1e-6, abs=1e-9)
        assert r.sigma == pytest.approx((a.sigma - b.sigma) / (2 * h), rel=1e-6, abs=1e-9)


def test_rates_of_a_straight_line_and_no_rate_at_the_image():
    assert rate(Flow(end=0.9), 0.4) == pytest.approx((-0.9, 0.9), abs=1e-14)
    with pytest.raises(ValueError, match="in \\(0, 1\\]"):
        rate(VP(), 0.0)


def test_the_flow_quantity_is_the_velocity_on_straight_lines():
    at, r = Flow(end=1.0).at(0.4), rate(Flow(end=1.0), 0.4)
    x, x0 = points(at)
    assert torch.allclose(velocity_from_x0(x, x0, at, r), FROM_X0["flow"](x, x0, at), atol=1e-14, rtol=0)


@every_schedule
def test_continuity_equation(schedule):
    """d log p_t / dt = -div u - u . grad log p_t: the velocity carries the mixture's own marginals, by differences."""
    t, h = 0.6, 1e-5
    at, r = schedule.at(t), rate(schedule, t)
    x = points(at)[0].requires_grad_()

    def log_p(x: Tensor, at: Time) -> Tensor:
        return MIXTURE.log_prob(x / at.alpha, at.noise) - 2 * math.log(at.alpha)

    u = velocity_from_x0(x, MIXTURE(x / at.alpha, x.new_full((), at.noise)), at, r)
    divergence = sum(torch.autograd.grad(u[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(2))
    score = torch.autograd.grad(log_p(x, at).sum(), x)[0]
    x = x.detach()
    left = (log_p(x, schedule.at(t + h)) - log_p(x, schedule.at(t - h))) / (2 * h)
    right = (-divergence - (u * score).sum(1)).detach()
    assert float((left - right).abs().max()) < 1e-6 * max(1.0, float(left.abs().max()))


def test_the_same_moment_in_two_schedules():
    at = VP().at(0.37)
    s = moment(Flow(), at.noise)
    assert s.noise == pytest.approx(at.noise, rel=1e-14)
    assert Flow().at(s.t).noise == pytest.approx(at.noise, rel=1e-12)
    x, x0 = points(at)
    moved = carry(x, at, s)
    assert torch.allclose(moved, s.alpha * x0 + s.sigma * (x - at.alpha * x0) / at.sigma, atol=1e-14, rtol=0)
    with pytest.raises(ValueError, match="noise levels differ"):
        carry(x, at, VE().at(0.9))
    with pytest.raises(ValueError, match="noise must lie"):
        moment(Flow(end=0.5), 1.5)


def test_conversions_by_numbers_and_by_symbols():
    """The coefficients reproduce convert(); with symbols they are the textbook formulas."""
    at = VP().at(0.4)
    x, x0 = points(at)
    for source in QUANTITIES:
        for target in QUANTITIES:
            value = FROM_X0[source](x, x0, at)
            c = conversion(source, target, at)
            want = convert(value, x, at, source, target)
            assert torch.allclose(c.x_part * x + c.source_part * value, want, atol=1e-12, rtol=1e-11)
    a, s = sympy.symbols("alpha sigma", positive=True)
    c = conversion("v", "score", Time(0, a, s))
    # s = -eps / sigma with eps = (sigma x + alpha v) / (alpha^2 + sigma^2)
    assert sympy.simplify(c.x_part + 1 / (a**2 + s**2)) == 0
    assert sympy.simplify(c.source_part + a / (s * (a**2 + s**2))) == 0


@pytest.mark.parametrize("t", TIMES)
def test_worth_is_the_ratio_of_errors(t):
    at = VP().at(t)
    x, x0 = points(at)
    other = x0 + 1e-3
    for q in QUANTITIES:
        gap = (FROM_X0[q](x, other, at) - FROM_X0[q](x, x0, at)).abs()
        assert float((gap / 1e-3 / worth(q, at) - 1).abs().max()) < 1e-9
    assert worth("noise", at) == pytest.approx(at.alpha / at.sigma) and worth("v", at) == pytest.approx(1 / at.sigma)
