"""Translations between notations, in float64: published formulas, and the Fokker-Planck equation by autodiff."""

import math

import pytest
import torch

from scoreatlas import dialects
from scoreatlas.priors.mixture import GaussianMixture
from scoreatlas.rng import Rng
from scoreatlas.schedules import SCHEDULES, VE, VP, Cosine, Flow, Schedule

every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
MIXTURE = GaussianMixture(
    torch.tensor([0.6, 0.4], dtype=torch.float64),
    torch.tensor([[-1.0, 0.3], [0.8, -0.5]], dtype=torch.float64),
    torch.tensor([[[0.2, 0.1], [0.1, 0.3]], [[0.1, 0.0], [0.0, 0.4]]], dtype=torch.float64),
)


def density(schedule: Schedule, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """p_t(x), the law of alpha x_0 + sigma eps: a component has covariance alpha^2 C + sigma^2 I."""
    alpha, sigma = schedule(t)
    c = alpha**2 * MIXTURE.covariances + sigma**2 * torch.eye(2, dtype=torch.float64)
    d = x[:, None] - alpha * MIXTURE.means
    square = torch.einsum("bki,kij,bkj->bk", d, torch.linalg.inv(c), d)
    return (MIXTURE.weights * (-0.5 * square).exp() / (2 * math.pi * torch.linalg.det(c).sqrt())).sum(1)


def derivatives(schedule: Schedule, at: float) -> tuple[torch.Tensor, ...]:
    """Points x, p, dp/dt, gradient and Laplacian of p at a moment."""
    x = Rng([0], 20, dtype=torch.float64).normal(2).requires_grad_()
    t = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    p = density(schedule, x, t)
    in_time = torch.stack([torch.autograd.grad(v, t, retain_graph=True)[0] for v in p])
    (g,) = torch.autograd.grad(p.sum(), x, create_graph=True)
    laplacian = sum(torch.autograd.grad(g[:, i].sum(), x, retain_graph=True)[0][:, i] for i in (0, 1))
    return x.detach(), p.detach(), in_time, g.detach(), laplacian


@every_schedule
@pytest.mark.parametrize("at", [0.2, 0.6])
def test_marginals_solve_the_fokker_planck_equation(schedule, at):
    r"""dp/dt = -f div(x p) + g^2 / 2 Laplace p, with the rates of the schedule."""
    x, p, in_time, g, laplacian = derivatives(schedule, at)
    f, g2 = dialects.rates(schedule, at)
    right = -f * (2 * p + (x * g).sum(1)) + 0.5 * g2 * laplacian
    assert float((in_time - right).abs().max() / in_time.abs().max()) < 1e-10


@every_schedule
def test_the_reverse_sde_s_drift_is_tweedie_s(schedule):
    """f x - g^2 / 2 score, the velocity of the ODE, is alpha' E[x_0 | x] + sigma' E[eps | x]."""
    at = 0.4
    t, (f, g2) = schedule.at(at), dialects.rates(schedule, at)
    leaf = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    alpha, sigma = schedule(leaf)
    slope = [torch.autograd.grad(v + 0 * leaf, leaf, retain_graph=True)[0] for v in (alpha, sigma)]
    x = Rng([1], 20, dtype=torch.float64).normal(2)
    x0 = MIXTURE(x / t.alpha, torch.tensor(t.noise, dtype=torch.float64))
    eps, score = (x - t.alpha * x0) / t.sigma, MIXTURE.score(x / t.alpha, t.noise) / t.alpha
    velocity = f * x - 0.5 * g2 * score
    assert float((velocity - slope[0] * x0 - slope[1] * eps).abs().max()) < 1e-11 * float(velocity.abs().max())


def test_rates_are_the_published_ones():
    vp, ve, flow, t = VP(), VE(), Flow(), 0.3
    beta = vp.beta0 + t * (vp.beta1 - vp.beta0)
    assert dialects.rates(vp, t) == pytest.approx((-beta / 2, beta), rel=1e-12)
    ratio = ve.sigma_max / ve.sigma_min
    assert dialects.rates(ve, t) == pytest.approx((0, 2 * math.log(ratio) * (ve.sigma_min * ratio**t) ** 2), rel=1e-12)
    end, tau = flow.end, flow.end * t  # d log(1 - tau), and 2 tau / (1 - tau), per unit of tau
    assert dialects.rates(flow, t) == pytest.approx((-end / (1 - tau), 2 * end * tau / (1 - tau)), rel=1e-12)
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        dialects.rates(vp, 0.0)


def test_betas_and_back():
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    chain = dialects.from_betas(beta)
    assert chain[0] == (0.0, 1.0, 0.0) and len(chain) == 1001
    assert math.isclose(chain[-1].alpha ** 2, float((1 - beta).prod()), rel_tol=1e-12)
    assert math.isclose(chain[1].sigma ** 2, 1e-4, rel_tol=1e-12)
    assert float((dialects.to_betas(chain) / beta - 1).abs().max()) < 1e-9  # differences of logarithms
    # the continuous schedule misses the published chain by the second order of log(1 - beta)
    gap = math.log(VP().at(1.0).alpha) - math.log(chain[-1].alpha)
    assert math.isclose(gap, float((beta**2).sum()) / 4, rel_tol=0.02)


@every_schedule
def test_same_noise_inverts_every_schedule(schedule):
    for t in schedule.grid(7)[:-1]:
        assert math.isclose(dialects.same_noise(schedule, t.noise).noise, t.noise, rel_tol=1e-13)
        assert math.isclose(dialects.same_noise(schedule, t.noise).t, t.t, rel_tol=1e-7)  # sigma saturates near t = 1
    with pytest.raises(ValueError, match="has noise levels 0"):
        dialects.same_noise(schedule, 1e9)


def test_ddim_walks_the_same_path_in_every_schedule():
    """The deterministic step commutes with the change of variables, at any number of steps."""
    levels = [20.0, 5.0, 1.0, 0.3, 0.0]
    start = 20.0 * Rng([2], 9, dtype=torch.float64).normal(2)
    ends = []
    for schedule in (VP(), Cosine(), VE(), Flow()):
        moments = [dialects.same_noise(schedule, n) for n in levels]
        x = moments[0].alpha * start
        for t, s in zip(moments[:-1], moments[1:], strict=True):
            x0 = MIXTURE(x / t.alpha, torch.tensor(t.noise, dtype=torch.float64))
            x, _ = Schedule.bridge(x, x0, t, s, eta=0.0)
        ends.append(x)
    assert max(float((e - ends[0]).abs().max()) for e in ends) < 1e-12


def test_translation_is_a_factor_and_refuses_another_noise_level():
    x, t = torch.ones(1, 2, dtype=torch.float64), VP().at(0.5)
    s = dialects.same_noise(Flow(), t.noise)
    there = dialects.translate(x, t, s)
    assert float((there / s.alpha - x / t.alpha).abs().max()) < 1e-14 * float(x.max() / t.alpha)
    with pytest.raises(ValueError, match="different noise levels"):
        dialects.translate(x, t, VP().at(0.6))


def test_clocks():
    t = VP().at(0.37)
    assert dialects.edm(t) == (t.sigma / t.alpha, t.alpha)
    assert math.isclose(dialects.log_snr(t), -2 * math.log(t.noise), rel_tol=1e-13)
    flow = Flow(end=0.97)
    assert math.isclose(dialects.flow_time(flow.at(0.4)), 0.97 * 0.4, rel_tol=1e-14)
    assert math.isclose(dialects.same_noise(flow, t.noise).sigma, dialects.flow_time(t), rel_tol=1e-12)
