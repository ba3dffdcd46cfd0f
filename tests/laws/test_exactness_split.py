"""The laws of DAPS, PnP-DM, FPS and RED-diff, by algebra of their own on Gaussians.

Where noise goes in by an affine map, the answer on N(0, c) is Gaussian, and a recursion written here from the papers'
formulas gives its mean and variance. Samples must agree within 5 Monte-Carlo standard errors; the recursions themselves
show what is exact in which limit, and pin what is biased.
"""

import math
from itertools import pairwise

import pytest
import torch
from members import F64, GRAY, measurement, mixture, operators, rng
from test_exactness import EXACT, SHAPE, C, N, S, Walk, Y, ddim, moments, relative

from scoreatlas.linalg import ridge
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Operator
from scoreatlas.operators.dense import Dense
from scoreatlas.operators.inpainting import Inpainting
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.mixture import gaussian
from scoreatlas.rng import Rng
from scoreatlas.schedules import VP
from scoreatlas.solvers.particles.fps import FPS
from scoreatlas.solvers.splitting.base import exact_draw, levels, squared_slope
from scoreatlas.solvers.splitting.daps import DAPS
from scoreatlas.solvers.splitting.pnp_dm import PnPDM
from scoreatlas.solvers.variational.red_diff import REDdiff


def agree(solver, law: tuple[Walk, Walk]) -> None:
    for (mean, variance), walk in zip(moments(solver), law, strict=True):
        assert abs(mean - walk.mean) < 5 * math.sqrt(walk.variance / N)
        assert abs(variance / walk.variance - 1) < 5 * math.sqrt(2 / N)


def grid(first: float, last: float, n: int) -> list[float]:
    """EDM's equation 5 with the end at 0."""
    return [(first ** (1 / 7) + i / n * (last ** (1 / 7) - first ** (1 / 7))) ** 7 for i in range(n)] + [0.0]


def shrink(sigma: float) -> float:
    return C / (C + sigma**2)


# DAPS


def decoupled(steps: int, ode: int, last: float = 0.1, tau: float = S, prior_std: float = math.inf, langevin: int = 0):
    """The seen and the unseen pixel; Langevin steps of 1e-4, or as long as is stable for one singular value of 1."""
    seen, hidden = Walk(0.0, 100.0**2), Walk(0.0, 100.0**2)
    for k, (t, s) in enumerate(pairwise(grid(100.0, last, steps))):
        g = 1.0
        for a, b in pairwise(grid(t, min(0.01, 0.1 * t), ode)):
            g *= shrink(a) + b / a * (1 - shrink(a))
        r2 = 1 / (1 / t**2 + 1 / prior_std**2)
        for walk, data in ((seen, 1.0), (hidden, 0.0)):
            precision = data / tau**2 + 1 / r2
            if (
                langevin
            ):  # z <- z + h ((y - z) / tau^2 + (x0 - z) / r^2) + sqrt(2 h) n, from z = x0: z = p x0 + q + noise
                h, p, q, v = min(1e-4 * (1 - 0.99 * k / steps), 1 / (1 / tau**2 + 1 / r2)), 1.0, 0.0, 0.0
                for _ in range(langevin):
                    keep = 1 - h * precision
                    p, q, v = keep * p + h / r2, keep * q + h * data * Y / tau**2, keep**2 * v + 2 * h
            else:
                p, q, v = 1 / (r2 * precision), data * Y / (tau**2 * precision), 1 / precision
            walk.step(p * g, q, math.sqrt(v + s**2))
    return seen, hidden


@pytest.mark.parametrize(
    ("solver", "law"),
    [
        (DAPS(steps=20, ode=1, langevin=0, tau=None), decoupled(20, 1)),
        (DAPS(steps=20, ode=5, langevin=0, tau=None), decoupled(20, 5)),
        (DAPS(steps=20, ode=2, langevin=30), decoupled(20, 2, tau=0.01, langevin=30)),
        (DAPS(steps=20, ode=3, langevin=0, tau=0.1, prior_std=0.8, last=0.02), decoupled(20, 3, 0.02, 0.1, 0.8)),
    ],
    ids=repr,
)
def test_the_law_of_daps_is_that_of_the_recursion(solver, law):
    agree(solver, law)


def test_daps_is_exact_where_its_gaussian_is_that_of_x0_given_xt():
    """Proposition 1: one ODE step is the posterior mean, prior_std the right variance. The start is the only error."""
    law = decoupled(20, 1, prior_std=math.sqrt(C))
    for walk, (mean, variance) in zip(law, (EXACT, (0.0, C)), strict=True):
        assert abs(walk.mean - mean) < 1e-3 and walk.variance == pytest.approx(variance, rel=1e-3)
    agree(DAPS(steps=20, ode=1, langevin=0, tau=None, prior_std=math.sqrt(C)), law)


def test_daps_with_a_converged_flow_doubles_the_variance_of_what_is_not_seen():
    r"""With r_t = sigma_t: V <- V c / (c + sigma^2) + 2 sigma^2 has the fixed point 2 (c + sigma^2). One step: c.

    The estimate of the flow is itself as wide as the prior, and the draw around it is added. Slow annealing to a small
    last level is what the fixed point needs, and a flow of many steps; 1 / 20 is left for what they lack.
    """
    slow = {ode: decoupled(4000, ode, last=0.02)[1].variance / C for ode in (1, 100)}
    assert slow[1] == pytest.approx(1, rel=0.05) and slow[100] == pytest.approx(2, rel=0.05)


def test_the_pinned_biases_of_daps():
    """Bias and spread of the seen pixel, spread of the unseen one, in exact standard deviations, for 200 levels."""
    found = {
        "official": decoupled(200, 5, tau=0.01, langevin=100), "exact draws": decoupled(200, 5),
        "one ODE step": decoupled(200, 1),
    }  # fmt: skip
    for name, (seen, unseen) in found.items():
        assert unseen.mean == 0
        got = (*relative(seen, EXACT), relative(unseen, (0.0, C))[1])
        assert got == pytest.approx(PINNED[name], abs=6e-5), (name, got)


PINNED = {
    "official": (0.4230, 0.1377, 0.9073),
    "exact draws": (0.1680, 1.0228, 1.3113),
    "one ODE step": (0.0221, 0.9931, 1.0264),
}


# PnP-DM


def gibbs(steps: int, inner: int, rho: float, first: float = 10.0, decay: float = 0.9) -> tuple[Walk, Walk]:
    seen, hidden = Walk(0.0, 1.0), Walk(0.0, 1.0)
    for k in range(steps):
        r = max(first * decay**k, rho)
        for walk, data in ((seen, 1 / S**2), (hidden, 0.0)):
            precision = data + 1 / r**2
            walk.step(1 / (r**2 * precision), data * Y / precision, math.sqrt(1 / precision))
            for t, s in pairwise(grid(r, min(0.002, 0.1 * r), inner)):  # DDPM's posterior of x_s given x_t and x_0
                w = s**2 / t**2
                walk.step((1 - w) * shrink(t) + w, 0.0, math.sqrt(s**2 * (1 - w)))
    return seen, hidden


@pytest.mark.parametrize("fields", [(10, 5, 0.3), (30, 10, 0.1), (8, 3, 1.0)], ids=str)
def test_the_law_of_pnp_dm_is_that_of_the_recursion(fields):
    steps, inner, rho = fields
    agree(PnPDM(steps=steps, inner=inner, rho=rho), gibbs(steps, inner, rho))


@pytest.mark.parametrize("rho", [1.0, 0.3, 0.1])
def test_pnp_dm_tends_to_the_posterior_under_noise_with_rho_squared_added(rho):
    """Stationary law at fixed rho: N(0, c) times N(y; x, s^2 + rho^2). The prior step is first order in 1 / inner."""
    total = S**2 + rho**2
    exact = ((C * Y / (C + total), C * total / (C + total)), (0.0, C))
    error = []
    for inner in (50, 200):
        law = gibbs(600, inner, rho)
        error.append(max(abs(w.variance / v - 1) + abs(w.mean - m) for w, (m, v) in zip(law, exact, strict=True)))
    assert error[1] < 0.03 and error[1] < error[0] / 3


def test_pnp_dm_is_exact_as_rho_vanishes():
    seen, unseen = gibbs(1500, 200, 0.05)
    assert abs(seen.mean - EXACT[0]) / math.sqrt(EXACT[1]) < 0.08  # rho^2 / s^2 is 1 / 16
    assert seen.variance == pytest.approx(EXACT[1] * (1 + 0.05**2 / S**2) / (1 + 0.05**2 / (C + S**2)), rel=0.03)
    assert unseen.variance == pytest.approx(C, rel=0.03)


# The shared parts


@pytest.mark.parametrize("name", ["random", "x4", "gaussian blur", "matrix", "multi-coil MRI"])
def test_exact_draws_have_the_covariance_of_the_formula(name):
    """Mean and covariance of 4000 draws against (A^T A / s^2 + I / v)^-1, in units of its standard errors."""
    A, n, std, variance = operators()[name], 4000, 0.3, 0.5
    y, x = measurement(A, 0.3, 1).y, 0.3 * rng(4).normal(*A.shape)
    draws = exact_draw(A, y.expand(n, *y.shape[1:]), x.expand(n, *A.shape), variance, std, rng(0, rows=n), 40)
    a = A.matrix()
    covariance = torch.linalg.inv(a.T @ a / std**2 + torch.eye(a.shape[1], dtype=F64) / variance)
    back = A.adjoint(y).flatten() / std**2 + x.flatten() / variance
    z = (draws.flatten(1) - covariance @ back) @ torch.linalg.cholesky(torch.linalg.inv(covariance))
    assert float(z.mean(0).abs().max()) < 5 / math.sqrt(n)
    off = z.T @ z / n - torch.eye(len(covariance), dtype=F64)
    assert float(off.abs().max()) < 6 * math.sqrt(2 / n)  # 192^2 / 2 entries: 6


class Bent(Operator):
    """A sine of each pixel: the largest squared slope is that of the pixel nearest 0."""

    def __init__(self, shape: tuple[int, ...] = GRAY) -> None:
        self.shape = shape

    def __call__(self, x):
        return 3 * torch.sin(x)


def test_the_slope_of_an_operator():
    """By power iteration on a gap of 2 a step: 10 steps reach it, and 1.2 is put on top."""
    x = 1.4 * torch.ones(2, *GRAY, dtype=F64)
    x[0, 0, 0, 0], x[1, 0, 3, 3] = 0.0, 0.5
    expected = 9 * torch.tensor([1.0, math.cos(0.5) ** 2], dtype=F64)
    assert torch.allclose(squared_slope(Bent(), x, rng(0, 1)), 1.2 * expected, rtol=0.02)


def test_many_langevin_steps_are_an_exact_draw():
    """The recursion of the seen pixel: with a precision of 400 it forgets its start in 5000 steps of 1e-5."""
    (exact, _), (walked, _) = (decoupled(10, 1, tau=0.05, prior_std=0.5, langevin=k) for k in (0, 5000))
    assert walked.mean == pytest.approx(exact.mean, rel=1e-3)
    assert walked.variance == pytest.approx(exact.variance, rel=0.01)


def on_a_grid(rho: float, noise: float, y: float) -> tuple[float, float]:
    """Mean and variance of N(x; 0, c) times the integral of N(z; x, rho^2) N(y; 3 sin z, noise^2) over z, summed up."""
    x = torch.linspace(-3, 3, 1201, dtype=F64)
    likelihood = (-0.5 * ((y - 3 * x.sin()) / noise) ** 2).exp()
    if rho:
        likelihood = (-0.5 * ((x[:, None] - x) / rho) ** 2).exp() @ likelihood
    w = (-0.5 * x**2 / C).exp() * likelihood
    w = w / w.sum()
    return float(w @ x), float(w @ x**2 - (w @ x) ** 2)


@pytest.mark.parametrize(
    ("solver", "rho"),
    [
        (PnPDM(steps=24, inner=25, rho=0.2, first=1.0, rate=1e-3, langevin=120), 0.2),  # from x: it must forget x
        (DAPS(steps=10, ode=1, tau=None, prior_std=math.sqrt(C), langevin=800, rate=1e-3), 0.0),
    ],
    ids=["PnPDM", "DAPS"],
)
def test_an_operator_that_is_not_linear(solver, rho):
    """3 sin x on N(0, c), against sums over a grid: PnP-DM's law at its last rho, DAPS where its Gaussian is right.

    2000 rows: 5 standard errors of the mean; of the variance, and 6 % for steps of Langevin and of the prior step.
    """
    n, y, noise = 2000, 1.5, 0.6
    p = DiffusionPrior(gaussian(torch.zeros(1, 1, 1, dtype=F64), torch.tensor(C, dtype=F64)), VP(), (1, 1, 1))
    m = Measurement(torch.full((n, 1, 1, 1), y, dtype=F64), Bent((1, 1, 1)), Gaussian(noise))
    x = solver(m, p, Rng([0], n, dtype=F64))
    mean, variance = on_a_grid(rho, noise, y)
    assert abs(float(x.mean()) - mean) < 5 * math.sqrt(variance / n) + 0.01
    assert abs(float(x.var()) / variance - 1) < 5 * math.sqrt(2 / n) + 0.06


def test_exact_draws_need_a_linear_operator():
    p = DiffusionPrior(mixture(), VP(), GRAY)
    with pytest.raises(ValueError, match="langevin=0 draws exactly and needs a linear operator, got Bent"):
        DAPS(steps=2, langevin=0)(Measurement(torch.zeros(1, *GRAY, dtype=F64), Bent(), Gaussian(0.1)), p, rng(0))


def test_levels_are_those_of_the_official_code():
    """200 of DAPS' 201 levels from 100 to 0.1, then 0; the first and the middle one by the formula."""
    found = levels(100.0, 0.1, 200)
    assert len(found) == 200 and found[0][0] == pytest.approx(100) and found[-1][1] == 0
    assert found[100][0] == pytest.approx(((100 ** (1 / 7) + 0.1 ** (1 / 7)) / 2) ** 7)


# FPS


def filtered(c: torch.Tensor, y: float, s: float, steps: int, eta: float = 1.0, kappa: float = 1e-4):
    """Mean and covariance of FPS with endless particles on N(0, c), the first coordinate seen: matrices, no filter.

    All x of the chain are one Gaussian, the noisy data of the first coordinates another with independent noise
    alpha s; the law of x_0 given those data is averaged over the data's own diffusion from y.
    """
    d, grid = len(c), VP().grid(steps)
    eye, n = torch.eye(d, dtype=F64), steps + 1
    x, path = torch.zeros(n * d, n * d, dtype=F64), torch.zeros(n, n, dtype=F64)
    x[:d, :d], path[0, 0] = grid[0].sigma ** 2 * eye, grid[0].sigma ** 2
    for j, (t, u) in enumerate(pairwise(grid)):
        p, q, std = ddim(t, u, eta)
        step = p * t.alpha * c @ torch.linalg.inv(t.alpha**2 * c + t.sigma**2 * eye) + q * eye
        old, before, new = slice(j * d, (j + 1) * d), slice(0, (j + 1) * d), slice((j + 1) * d, (j + 2) * d)
        x[new, before] = step @ x[old, before]
        x[before, new] = x[new, before].T
        noise = std**2 * eye if u.sigma else kappa * torch.diag(torch.arange(d, dtype=F64) == 0).to(F64)
        x[new, new] = step @ x[old, old] @ step.T + noise
        path[j + 1, : j + 1] = q * path[j, : j + 1]
        path[: j + 1, j + 1] = path[j + 1, : j + 1]
        path[j + 1, j + 1] = q**2 * path[j, j] + std**2
    seen, alpha = torch.arange(n) * d, torch.tensor([t.alpha for t in grid], dtype=F64)
    gain = torch.linalg.solve(x[seen][:, seen] + torch.diag((alpha * s) ** 2), x[-d:, seen].T).T
    return gain @ (alpha * y), x[-d:, -d:] - gain @ x[-d:, seen].T + gain @ path @ gain.T


CORRELATED = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=F64)


@pytest.mark.parametrize(("steps", "s", "eta"), [(10, 0.5, 1.0), (20, 0.5, 0.6), (20, 0.1, 1.0)])
def test_the_law_of_fps_is_that_of_the_algebra(steps, s, eta):
    """Moments of 60 clouds of 2000 particles: 5 standard errors as seen between clouds, plus the 1 / k bias of SMC."""
    c, clouds, k = torch.tensor([[1.0]], dtype=F64), 60, 2000
    mean, variance = (float(v) for v in filtered(c, 1.2, s, steps, eta))
    p = DiffusionPrior(gaussian(torch.zeros(1, dtype=F64), torch.tensor(1.0, dtype=F64)), VP(), (1,))
    m = Measurement(torch.full((clouds, 1), 1.2, dtype=F64), Dense(torch.eye(1, dtype=F64), (1,)), Gaussian(s))
    x = FPS(steps, k, eta).cloud(m, p, rng(*range(clouds))).flatten(1)
    for found, exact in ((x.mean(1), mean), (x.square().mean(1), variance + mean**2)):
        assert abs(float(found.mean()) - exact) < 5 * float(found.std()) / math.sqrt(clouds) + 5 / k


def test_fps_is_exact_for_noise_free_data_as_steps_grow():
    """The unseen coordinate has mean 0.8 y and variance 0.36; the error is first order in 1 / steps."""
    error = []
    for steps in (640, 1280):
        mean, covariance = filtered(CORRELATED, 0.7, 0.0, steps)
        assert float(mean[0]) == pytest.approx(0.7) and float(covariance[0, 0]) == pytest.approx(0, abs=1e-9)
        error.append((abs(float(mean[1]) - 0.56), abs(float(covariance[1, 1]) - 0.36)))
    assert all(b < 0.6 * a for a, b in zip(*error, strict=True)) and max(error[1]) < 0.005


def test_fps_counts_noisy_data_again_and_again():
    """With s = 0.2 the seen pixel goes to y = 0.6 and its spread to 0, where 0.52 and 0.19 are right."""
    laws = [filtered(torch.tensor([[C]], dtype=F64), Y, S, steps) for steps in (40, 160, 640)]
    spread = [math.sqrt(float(v) / EXACT[1]) for _, v in laws]
    assert spread == pytest.approx([0.7308, 0.5264, 0.3689], abs=6e-5)
    off = [Y - float(m) for m, _ in laws]
    assert off[2] < 0.01 < off[1] < off[0] and EXACT[0] < Y - 0.08


# RED-diff


def test_red_diff_is_the_paper_s_loss_by_torch_s_adam():
    """The official loss by automatic differentiation and torch.optim.Adam, with the same noise: the same iterates."""
    A = operators()["x4"]
    m, p, steps, lambd = measurement(A, 0.1, 1), DiffusionPrior(mixture(A.shape), VP(), A.shape), 12, 0.25
    stream = rng(3)
    mu = ridge(A, A.adjoint(m.y), 0.01).requires_grad_()
    adam = torch.optim.Adam([mu], lr=0.1, betas=(0.9, 0.99))
    for t, _ in VP().pairs(steps):
        eps = stream.normal_like(mu)
        x = t.alpha * mu.detach() + t.sigma * eps
        predicted = (x - t.alpha * p.denoise(x, t)) / t.sigma
        loss = (m.y - A(mu)).square().mean() / 2 + lambd * t.sigma / t.alpha * ((predicted - eps) * mu).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert torch.allclose(REDdiff(steps=steps)(m, p, rng(3)), mu.detach(), atol=1e-9)


def test_red_diff_ends_on_the_data_and_on_a_mode():
    """Its regulariser, lambda n_t^2 / (c + n_t^2) mu on N(0, c), is gone at the end: mu is y where seen, 0 elsewhere.

    Within the last steps of Adam, of 0.001 each. It has no spread that stands for uncertainty.
    """
    prior = gaussian(torch.zeros(SHAPE, dtype=F64), torch.tensor(C, dtype=F64))
    A = Inpainting(torch.tensor([True, False]).reshape(SHAPE), F64)
    m = Measurement(torch.full((1, 1), Y, dtype=F64), A, Gaussian(S)).repeat(20)
    x = REDdiff(steps=4000, rate=0.001)(m, DiffusionPrior(prior, VP(), SHAPE), Rng([0], 20, dtype=F64)).reshape(20, 2)
    assert float((x[:, 0] - Y).abs().max()) < 0.02 < Y - EXACT[0]
    assert float(x[:, 1].abs().max()) < 0.1 * math.sqrt(C)
