"""Schedules against closed forms, published formulas and quadrature, in float64."""

import math
from itertools import pairwise

import pytest
import torch
from scipy.integrate import quad

from scoreatlas.schedules import SCHEDULES, VE, VP, Cosine, Flow, Schedule, Time

every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)


def coefficients(t: Time, s: Time, eta: float) -> tuple[float, float, float]:
    """(weight of x_t, weight of x_0, std) of the bridge, which is affine."""
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    a, std = Schedule.bridge(one, zero, t, s, eta)
    b, _ = Schedule.bridge(zero, one, t, s, eta)
    return float(a), float(b), std


@every_schedule
def test_nothing_has_happened_at_time_zero(schedule):
    assert schedule.at(0.0) == (0.0, 1.0, 0.0)  # exactly, not nearly


@every_schedule
def test_signal_to_noise_falls_strictly(schedule):
    grid = schedule.grid(1000)
    assert all(t.noise > s.noise for t, s in pairwise(grid))
    assert grid[0].t == 1.0 and grid[-1] == (0.0, 1.0, 0.0)


@pytest.mark.parametrize("schedule", [VP(), Cosine()], ids=repr)
def test_variance_is_preserved(schedule):
    for t in schedule.grid(100):
        assert math.isclose(t.alpha**2 + t.sigma**2, 1.0, rel_tol=1e-14)


def test_vp_is_the_limit_of_products_of_one_minus_beta():
    # log prod (1 - beta_i / n) = -int beta - (1 / 2n) int beta^2 + O(n^-2), beta_i at midpoints
    n, vp = 100_000, VP()
    beta = vp.beta0 + (torch.arange(n, dtype=torch.float64) + 0.5) / n * (vp.beta1 - vp.beta0)
    log_product = float(torch.log1p(-beta / n).sum())
    second_order = float((beta**2).mean()) / (2 * n)
    closed_form = 2 * math.log(vp.at(1.0).alpha)
    assert math.isclose(closed_form - log_product, second_order, rel_tol=1e-3)


def test_vp_keeps_small_sigma_exact():
    vp, t = VP(), 1e-12  # sigma^2 = beta0 t to first order; 1 - exp(...) in plain float64 would be 1e-4 off
    assert math.isclose(vp.at(t).sigma ** 2, vp.beta0 * t, rel_tol=1e-10)


def test_cosine_is_the_paper_s_formula():
    c = Cosine()
    for t in c.grid(50):
        f = [math.cos((u + c.offset) / (1 + c.offset) * math.pi / 2) ** 2 for u in (c.end * t.t, 0.0)]
        assert math.isclose(t.alpha**2, f[0] / f[1], rel_tol=1e-12)
        assert math.isclose(t.sigma**2, 1 - f[0] / f[1], rel_tol=1e-12, abs_tol=1e-15)


def test_ve_variance_is_the_integral_of_the_squared_diffusion():
    ve = VE()
    ratio = ve.sigma_max / ve.sigma_min
    for t in (0.1, 0.5, 1.0):
        g2 = lambda u: (ve.sigma_min * ratio**u) ** 2 * 2 * math.log(ratio)  # noqa: E731
        assert math.isclose(ve.at(t).sigma ** 2, quad(g2, 0, t, epsrel=1e-12)[0], rel_tol=1e-10)
        assert ve.at(t).alpha == 1.0


def test_flow_is_straight():
    for t in Flow().grid(10):
        assert math.isclose(t.alpha + t.sigma, 1.0, rel_tol=1e-15)


@every_schedule
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_bridge_keeps_the_marginals(schedule, eta):
    """q(x_s | x_t, x_0) averaged over q(x_t | x_0) is q(x_s | x_0), in mean and variance."""
    for t, s in schedule.pairs(7):
        a, b, std = coefficients(t, s, eta)
        assert math.isclose(a * t.alpha + b, s.alpha, rel_tol=1e-12)
        assert math.isclose((a * t.sigma) ** 2 + std**2, s.sigma**2, rel_tol=1e-12)


@every_schedule
def test_bridge_with_eta_one_is_the_bayes_posterior_of_the_forward_chain(schedule):
    for t, s in list(schedule.pairs(7))[:-1]:
        r = t.alpha / s.alpha  # x_t = r x_s + N(0, tau2), the Markov kernel of the forward chain
        tau2 = t.sigma**2 - r**2 * s.sigma**2
        variance = 1 / (1 / s.sigma**2 + r**2 / tau2)
        a, b, std = coefficients(t, s, eta=1.0)
        # relative to what is compared; the subtraction in tau2 loses about sigma_t^2 / tau2 < 1e3 ulps
        assert math.isclose(std**2, variance, rel_tol=1e-10)
        assert math.isclose(a, variance * r / tau2, rel_tol=1e-10)
        assert math.isclose(b, variance * s.alpha / s.sigma**2, rel_tol=1e-10)


@every_schedule
def test_bridge_ends_on_the_image(schedule):
    t, s = list(schedule.pairs(5))[-1]
    assert coefficients(t, s, eta=1.0) == (0.0, 1.0, 0.0)


def test_times_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match=r"time must lie in \[0, 1\], got 1.5"):
        VP().at(1.5)
    with pytest.raises(ValueError, match="at least one step, got 0"):
        VP().grid(0)
    with pytest.raises(ValueError, match=r"start must lie in \(0, 1\], got 0"):
        VP().grid(3, start=0)


def test_a_late_start_begins_at_its_moment():
    grid = VP().grid(4, start=0.5)
    assert grid[0] == VP().at(0.5) and len(grid) == 5
