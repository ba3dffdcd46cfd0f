"""The laws of MCG, TMPD, MMPS, LGD and FlowChef: exactness proved on Gaussians, biases pinned by recursions.

Where a method maps its noise to its answer by an affine map, the answer is Gaussian and scalar recursions, written here
from the papers' formulas, give its mean and variance, discretisation included. Samples must agree with them within 5
Monte-Carlo standard errors.
"""

import math

import numpy as np
import pytest
import torch
from test_exactness import Walk, ddim

from scoreatlas.linalg import dot
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.dense import Dense
from scoreatlas.operators.identity import Identity
from scoreatlas.operators.inpainting import Inpainting
from scoreatlas.operators.mri import CartesianMRI, cartesian_mask
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.mixture import GaussianMixture, autoregressive, gaussian
from scoreatlas.rng import Rng
from scoreatlas.samplers.ancestral import DDPM
from scoreatlas.schedules import VP, Flow, Schedule
from scoreatlas.solvers.base import Solver
from scoreatlas.solvers.guidance.dps import DPS
from scoreatlas.solvers.guidance.flowchef import FlowChef
from scoreatlas.solvers.guidance.lgd import LGD
from scoreatlas.solvers.guidance.mcg import MCG
from scoreatlas.solvers.guidance.mmps import MMPS, conjugate_gradients
from scoreatlas.solvers.guidance.tmpd import TMPD

F64 = torch.float64
C, S, Y, STEPS, N = 0.25, 0.2, 0.6, 40, 10_000  # prior variance, noise, datum, steps, samples
SHAPE = (1, 1, 2)
TOP = VP().at(1.0).sigma ** 2


def rng(*seeds: int, rows: int = 1) -> Rng:
    return Rng(seeds, rows, dtype=F64)


def white(schedule: Schedule = VP()) -> DiffusionPrior:  # noqa: B008
    return DiffusionPrior(gaussian(torch.zeros(SHAPE, dtype=F64), torch.tensor(C, dtype=F64)), schedule, SHAPE)


def seen_first(std: float = S) -> Measurement:
    """The first pixel is seen, the second is not."""
    A = Inpainting(torch.tensor([True, False]).reshape(SHAPE), F64)
    return Measurement(torch.full((1, 1), Y, dtype=F64), A, Gaussian(std))


def gain(t) -> float:
    """E[x_0 | x_t] = gain x_t."""
    return t.alpha * C / (t.alpha**2 * C + t.sigma**2)


def agree(x: torch.Tensor, *walks: Walk) -> None:
    """Each column of x (n, k) has the mean and variance of its walk."""
    for column, walk in zip(x.T, walks, strict=True):
        n = len(column)
        assert abs(float(column.mean()) - walk.mean) < 5 * math.sqrt(walk.variance / n)
        assert abs(float(column.var()) / walk.variance - 1) < 5 * math.sqrt(2 / n)


def relative(walk: Walk, mean: float, variance: float) -> tuple[float, float]:
    """Bias in exact standard deviations, and spread ratio."""
    return (walk.mean - mean) / math.sqrt(variance), math.sqrt(walk.variance / variance)


def ancestral(steps: int) -> Walk:
    """The unguided chain."""
    walk = Walk(0.0, TOP)
    for t, s in VP().pairs(steps):
        p, q, std = ddim(t, s, 1.0)
        walk.step(p * gain(t) + q, 0.0, std)
    return walk


# ---------------------------------------------------------------- the covariance of Tweedie: TMPD and MMPS


def worlds() -> dict[str, tuple[GaussianMixture, Measurement]]:
    """Correlated Gaussians, seen through a mask, a matrix of rank 3 and half of the Fourier coefficients."""
    chain, image = autoregressive(8, 0.9), autoregressive(32, 0.8)
    image.shape = (2, 4, 4)
    mri = CartesianMRI(cartesian_mask((4, 4), 2, 0.25, rng(8)), F64)
    problems = {
        "mask": (chain, Inpainting(torch.arange(8) % 3 < 2, F64)),
        "matrix": (chain, Dense(rng(1, rows=3).normal(8), (8,))),
        "MRI": (image, mri),
    }
    return {
        name: (p, Measurement(A(p.sample(rng(2))) + 0.1 * rng(3).normal_like(A(p.sample(rng(2)))), A, Gaussian(0.1)))
        for name, (p, A) in problems.items()
    }


@pytest.mark.parametrize("name", worlds())
@pytest.mark.parametrize("solver", [MMPS(STEPS, cg=60), TMPD(STEPS, "full")], ids=lambda s: type(s).__name__)
def test_with_the_full_covariance_they_are_the_oracle_on_gaussians(name, solver):
    """Sample by sample the chain whose denoiser is that of the exact posterior: nothing but time steps is left to err.

    To rounding, amplified by a condition number of about 1e4.
    """
    p, m = worlds()[name]
    x = solver(m.repeat(3), DiffusionPrior(p, VP(), p.shape), rng(0, rows=3))
    oracle = DDPM(STEPS)(None, DiffusionPrior(p.posterior(m), VP(), p.shape), rng(0, rows=3))
    assert float((x - oracle).abs().max()) < 1e-8


def kalman(steps: int) -> Walk:
    """The guided chain with the true variance of x_0 given x_t."""
    walk = Walk(0.0, TOP)
    for t, s in VP().pairs(steps):
        p, q, std = ddim(t, s, 1.0)
        v = C * t.noise**2 / (C + t.noise**2)
        k = v / (v + S**2)
        walk.step(p * gain(t) * (1 - k) + q, p * k * Y, std)
    return walk


@pytest.mark.parametrize("solver", [MMPS(STEPS, cg=1), TMPD(STEPS, "full"), TMPD(STEPS)], ids=repr)
def test_one_datum_needs_one_iteration(solver):
    """With one datum a row sum is the matrix, and conjugate gradients end after one step."""
    x = solver(seen_first().repeat(N), white(), rng(0, rows=N)).reshape(N, 2)
    agree(x, kalman(STEPS), ancestral(STEPS))


def test_the_chain_tends_to_the_posterior():
    """The mean is right at any number of steps, up to alpha_1; the spread at first order: four times the steps, about
    a quarter of the error."""
    found = [relative(kalman(n), C * Y / (C + S**2), C * S**2 / (C + S**2)) for n in (100, 400, 1600, 6400)]
    errors = [abs(spread - 1) for _, spread in found]
    assert max(abs(bias) for bias, _ in found) < 1e-5 and errors[-1] < 0.004
    assert all(fine < 0.35 * coarse for coarse, fine in zip(errors, errors[1:], strict=False))


def coupled(rho: float) -> tuple[DiffusionPrior, Measurement]:
    """Two pixels of correlation rho, both seen, with unequal data."""
    covariance = C * torch.tensor([[1, rho], [rho, 1]], dtype=F64)
    A = Identity(SHAPE, F64)
    y = torch.tensor([0.9, 0.1], dtype=F64).reshape(1, *SHAPE)
    return DiffusionPrior(gaussian(torch.zeros(SHAPE, dtype=F64), covariance), VP(), SHAPE), Measurement(
        y, A, Gaussian(S)
    )


def by_row_sums(rho: float, sign: int, y: float) -> tuple[Walk, float, float]:
    """TMPD along (1, sign) / sqrt 2, and exact mean and variance: both row sums are the eigenvalue of (1, 1)."""
    walk, c = Walk(0.0, TOP), {i: C * (1 + i * rho) for i in (1, -1)}
    for t, s in VP().pairs(STEPS):
        p, q, std = ddim(t, s, 1.0)
        v = {i: ci * t.noise**2 / (ci + t.noise**2) for i, ci in c.items()}
        g, k = c[sign] / (t.alpha * (c[sign] + t.noise**2)), v[sign] / (v[1] + S**2)
        walk.step(p * g * (1 - k) + q, p * k * y, std)
    return walk, c[sign] * y / (c[sign] + S**2), c[sign] * S**2 / (c[sign] + S**2)


def test_row_sums_of_a_coupled_pair():
    prior, m = coupled(0.8)
    x = TMPD(STEPS)(m.repeat(N), prior, rng(0, rows=N)).reshape(N, 2)
    along, across = by_row_sums(0.8, 1, 1.0 / math.sqrt(2)), by_row_sums(0.8, -1, 0.8 / math.sqrt(2))
    turned = torch.stack([x[:, 0] + x[:, 1], x[:, 0] - x[:, 1]], 1) / math.sqrt(2)
    agree(turned, along[0], across[0])
    # bias and spread: along (1, 1) only the steps err, across it the data are believed too little
    assert relative(*along) == pytest.approx(PINNED["TMPD, along"], abs=6e-5)
    assert relative(*across) == pytest.approx(PINNED["TMPD, across"], abs=6e-5)


PINNED = {  # bias in exact standard deviations and spread ratio, at 40 steps
    "TMPD, along": (0.0, 0.7571),
    "TMPD, across": (-0.4640, 0.7766),
    "LGD": (0.3843, 0.7190),
    "MCG": (-0.154, 0.857),  # by Monte Carlo
    "FlowChef": (0.5674, 0.0),  # the datum itself, without spread
}


def test_row_sums_of_anticorrelated_data_do_not_run_away():
    """Three data, two of which are opposed to the third: its row sum is negative, and counts as the mean."""
    covariance = C * torch.tensor([[1, 0.6, -0.9], [0.6, 1, -0.9], [-0.9, -0.9, 1.2]], dtype=F64)
    assert float(covariance[2].sum()) < 0
    p = gaussian(torch.zeros(3, dtype=F64), covariance)
    m = Measurement(torch.tensor([[0.5, 0.4, -0.6]], dtype=F64), Identity((3,), F64), Gaussian(0.05)).repeat(200)
    x = TMPD(100)(m, DiffusionPrior(p, VP(), (3,)), rng(0, rows=200))
    assert float(x.abs().max()) < 2  # prior standard deviations are 0.5 to 0.55, the data within them


def test_conjugate_gradients_end_where_the_matrix_is_not_positive():
    """A sound row is solved beside one that is not, which keeps what it had."""
    good = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=F64)
    bad = torch.tensor([[-3.0, 1.0], [1.0, 2.0]], dtype=F64)
    b = torch.tensor([[1.0, 2.0], [1.0, 0.0]], dtype=F64)
    w = conjugate_gradients(lambda v: torch.einsum("bij,bj->bi", torch.stack([good, bad]), v), b, 5, 0.1)
    assert torch.allclose(w[0], torch.linalg.solve(good, b[0]), atol=1e-12)
    assert w[1].tolist() == [0.0, 0.0]
    assert float(dot(w, w)[1]) == 0.0


# ---------------------------------------------------------------- LGD


def one_sample(std: float, prior_std: float) -> Walk:
    """LGD with n = 1 and zeta None: the gradient of DPS at a noisy estimate, r_t off."""
    walk = Walk(0.0, TOP)
    for t, s in VP().pairs(STEPS):
        p, q, noise = ddim(t, s, 1.0)
        g, r = gain(t), math.sqrt(1 / (1 / t.noise**2 + 1 / prior_std**2))
        k = t.sigma**2 / t.alpha * g / std**2
        walk.step(p * g * (1 - k) + q, p * k * Y, math.hypot(noise, p * k * r))
    return walk


def pseudo_inverse(std: float, prior_std: float) -> Walk:
    """PiGDM, which LGD tends to."""
    walk = Walk(0.0, TOP)
    for t, s in VP().pairs(STEPS):
        p, q, noise = ddim(t, s, 1.0)
        g, r2 = gain(t), 1 / (1 / t.noise**2 + 1 / prior_std**2)
        k = t.sigma**2 / t.alpha * g / (r2 + std**2)
        walk.step(p * g * (1 - k) + q, p * k * Y, noise)
    return walk


def test_lgd_with_one_sample_is_dps_plus_noise():
    std = 0.4
    x = LGD(STEPS, samples=1, zeta=None, prior_std=0.5)(seen_first(std).repeat(N), white(), rng(0, rows=N))
    walk = one_sample(std, 0.5)
    agree(x.reshape(N, 2), walk, ancestral(STEPS))
    exact = (C * Y / (C + std**2), C * std**2 / (C + std**2))
    assert relative(walk, *exact) == pytest.approx(PINNED["LGD"], abs=6e-5)


def test_lgd_tends_to_pigdm_as_samples_grow():
    """The bias of a log of a mean is of order 1 / n: 5 standard errors plus 2 / n."""
    std, n, rows = 0.4, 400, 2000
    x = LGD(STEPS, samples=n, zeta=None, prior_std=0.5)(seen_first(std).repeat(rows), white(), rng(0, rows=rows))
    walk, seen = pseudo_inverse(std, 0.5), x.reshape(rows, 2)[:, 0]
    assert abs(float(seen.mean()) - walk.mean) < 5 * math.sqrt(walk.variance / rows) + 2 / n
    assert abs(float(seen.var()) / walk.variance - 1) < 5 * math.sqrt(2 / rows) + 2 / n


def test_lgd_without_spread_is_dps():
    p, m = worlds()["mask"]
    prior = DiffusionPrior(p, VP(), p.shape)
    a = LGD(STEPS, samples=4, zeta=0.3, eta=0.0, prior_std=0.0)(m.repeat(3), prior, rng(0, rows=3))
    b = DPS(STEPS, zeta=0.3, eta=0.0)(m.repeat(3), prior, rng(0, rows=3))
    assert float((a - b).abs().max()) < 1e-9


# ---------------------------------------------------------------- MCG


def test_mcg_fits_the_data_exactly_whatever_their_noise():
    for name in ("mask", "matrix"):
        p, m = worlds()[name]
        x = MCG(20)(m.repeat(3), DiffusionPrior(p, VP(), p.shape), rng(0, rows=3))
        assert float((m.A(x) - m.y).abs().max()) < 1e-9, name


def test_mcg_on_a_white_prior_leaves_the_unseen_to_the_prior():
    x = MCG(STEPS)(seen_first().repeat(N), white(), rng(0, rows=N)).reshape(N, 2)
    assert float((x[:, 0] - Y).abs().max()) < 1e-12
    agree(x[:, 1:], ancestral(STEPS))


def constrained(rho: float, zeta: float, n: int) -> np.ndarray:
    """MCG on a pair of correlation rho of which the first is seen: the paper's box in NumPy. Draws of the second."""
    random, covariance = np.random.default_rng(1), C * np.array([[1, rho], [rho, 1]])
    x = math.sqrt(TOP) * random.standard_normal((n, 2))
    for t, s in VP().pairs(STEPS):
        p, q, std = ddim(t, s, 1.0)
        jacobian = t.alpha * covariance @ np.linalg.inv(t.alpha**2 * covariance + t.sigma**2 * np.eye(2))
        x0 = x @ jacobian.T
        sign = np.sign(Y - x0[:, :1])  # with one datum the gradient of the norm has this direction and unit length
        x = p * x0 + q * x + std * random.standard_normal((n, 2)) + zeta * sign * jacobian[0]
        x[:, 0] = s.alpha * Y + s.sigma * random.standard_normal(n)
    return x[:, 1]


def test_mcg_on_a_coupled_pair():
    """Against another implementation, and its bias: the unseen pixel is no draw from the posterior."""
    rho, zeta = 0.8, 0.1
    prior, _ = coupled(rho)
    x = MCG(STEPS, zeta)(seen_first().repeat(N), prior, rng(0, rows=N)).reshape(N, 2)[:, 1].numpy()
    other = constrained(rho, zeta, N)
    assert abs(x.mean() - other.mean()) < 5 * math.sqrt((x.var() + other.var()) / N)
    assert abs(x.var() / other.var() - 1) < 5 * math.sqrt(4 / N)
    mean, variance = rho * C * Y / (C + S**2), C - (rho * C) ** 2 / (C + S**2)
    found = ((x.mean() - mean) / math.sqrt(variance), x.std() / math.sqrt(variance))
    assert found == pytest.approx(PINNED["MCG"], abs=5 / math.sqrt(N))


# ---------------------------------------------------------------- FlowChef


def steered(schedule: Schedule, kappa: float, inner: int, y: float | None) -> Walk:
    """FlowChef's answer is affine in its start: x -> a x + b at each step, from the definition in words.

    The iterate moves with the velocity u = eps - x_0 held fixed. ``y`` None: a pixel that is not seen.
    """
    walk = Walk(0.0, schedule.at(1.0).sigma ** 2)
    for t, s in schedule.pairs(STEPS):
        g = gain(t)
        u = (1 - t.alpha * g) / t.sigma - g  # u = u x
        a, b = 1.0, 0.0
        for _ in range(inner if s.t > 0 and y is not None else 0):
            end = ((a - t.sigma * u) / (t.alpha + t.sigma), b / (t.alpha + t.sigma))
            a, b = a - kappa * end[0], b + kappa * (y - end[1])
        end = ((a - t.sigma * u) / (t.alpha + t.sigma), b / (t.alpha + t.sigma))
        walk.step((s.alpha + s.sigma) * end[0] + s.sigma * u, (s.alpha + s.sigma) * end[1], 0.0)
    return walk


def rectified(kappa: float) -> Walk:
    """The official loop: v = (z - x0) / t, z <- z - kappa (z - t v - y), z <- z + (t_next - t) v, but for the last."""
    walk = Walk(0.0, Flow().at(1.0).sigma ** 2)
    for t, s in Flow().pairs(STEPS):
        v = (1 - gain(t)) / t.sigma
        steer = kappa if s.t > 0 else 0.0
        walk.step(1 - steer * (1 - t.sigma * v) + (s.sigma - t.sigma) * v, steer * Y, 0.0)
    return walk


@pytest.mark.parametrize(
    ("schedule", "solver"),
    [(VP(), FlowChef(STEPS)), (VP(), FlowChef(STEPS, 0.3, 3)), (Flow(), FlowChef(STEPS, 0.5))],
    ids=["VP", "VP, inner steps", "straight lines"],
)
def test_the_law_of_flowchef(schedule, solver):
    x = solver(seen_first().repeat(N), white(schedule), rng(0, rows=N)).reshape(N, 2)
    agree(x, *(steered(schedule, solver.scale, solver.inner, y) for y in (Y, None)))


def test_flowchef_is_the_official_loop_on_straight_lines():
    a, b = steered(Flow(), 0.5, 1, Y), rectified(0.5)
    assert (a.mean, a.variance) == pytest.approx((b.mean, b.variance), rel=1e-9)


def test_the_bias_of_flowchef_is_that_of_a_point_estimate():
    exact = (C * Y / (C + S**2), C * S**2 / (C + S**2))
    assert relative(steered(VP(), 1.0, 1, Y), *exact) == pytest.approx(PINNED["FlowChef"], abs=6e-5)


def test_calls_and_products():
    """What the docstrings say of network calls and vector-Jacobian products a step."""
    from scoreatlas.bench.counting import Counter, counted_prior

    p, m = worlds()["mask"]
    costs: dict[Solver, int] = {
        MCG(5): 1, TMPD(5): 2, TMPD(5, "full"): 1 + m.y.shape[1], MMPS(5, cg=3): 4, LGD(5): 1, FlowChef(5): 0,
    }  # fmt: skip
    for solver, vjps in costs.items():
        counter = Counter()
        solver(m, counted_prior(DiffusionPrior(p, VP(), p.shape), counter), rng(0))
        assert (counter.denoiser, counter.vjps) == (5, 5 * vjps), solver
