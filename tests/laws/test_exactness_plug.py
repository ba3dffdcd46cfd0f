"""Coarse-to-fine stochastic ascent: its law on Gaussians by a recursion of its own, its limit, and the official loop.

The recursion is in scalars and from the paper's formulas; samples must agree within 5 Monte-Carlo standard errors.
"""

import math

import pytest
import torch
from members import measurement, mixture, rng

from scoreatlas.linalg import rows
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.identity import Identity
from scoreatlas.operators.inpainting import Inpainting
from scoreatlas.operators.superresolution import BlockAverage
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.mixture import gaussian
from scoreatlas.rng import Rng
from scoreatlas.schedules import VP
from scoreatlas.solvers.projection.kadkhodaie import KadkhodaieSimoncelli

C, Y, N = 0.25, 0.6, 20_000  # prior variance, datum, samples
SHAPE = (1, 1, 2)  # the first pixel is seen, the second is not
F64 = torch.float64


def walk(
    beta: float, noise: float | None, c: float = C, first: float = 2.0, last: float = 0.02, start: float | None = None
):
    """Mean, variance and number of steps; ``noise`` is that of the datum Y, None without one."""
    mean, variance, sigma, k = 0.0, first**2 if start is None else start, first, 0
    if noise is not None:
        mean = Y
    while sigma > last:
        k += 1
        h = 0.01 * k / (1 + 0.01 * (k - 1))
        gain = c / (c + sigma**2)
        fresh = sigma**2 * ((1 - beta * h) ** 2 - (1 - h) ** 2)
        if noise is not None and noise <= sigma:
            mean, variance = (1 - h) * mean + h * Y, (1 - h) ** 2 * variance + fresh
        else:
            pull = 1 - h + h * gain
            mean, variance = pull * mean, pull**2 * variance + fresh
        sigma *= 1 - beta * h
    gain = c / (c + sigma**2)
    return gain * mean, gain**2 * variance, k


@pytest.mark.parametrize("beta", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_law_of_the_answer_is_that_of_the_recursion(beta, noise):
    prior = DiffusionPrior(gaussian(torch.zeros(SHAPE, dtype=F64), torch.tensor(C, dtype=F64)), VP(), SHAPE)
    A = Inpainting(torch.tensor([True, False]).reshape(SHAPE), F64)
    m = Measurement(torch.full((1, 1), Y, dtype=F64), A, Gaussian(noise)).repeat(N)
    x = KadkhodaieSimoncelli(steps=1000, beta=beta)(m, prior, Rng([0], N, dtype=F64)).reshape(N, 2)
    for i, datum in enumerate((noise, None)):
        mean, variance, _ = walk(beta, datum)
        assert abs(float(x[:, i].mean()) - mean) < 5 * math.sqrt(variance / N)
        assert abs(float(x[:, i].var()) / variance - 1) < 5 * math.sqrt(2 / N)


def test_the_pinned_spreads():
    """On N(0, 1) from sigma = 1 to 0.01: the paper's start, which has none of the signal, and one drawn from p(x)."""
    found = {
        b: (walk(b, None, 1.0, 1.0, 0.01)[1:], walk(b, None, 1.0, 1.0, 0.01, 2.0)[1]) for b in (1.0, 0.5, 0.1, 0.01)
    }
    steps = {b: v[0][1] for b, v in found.items()}
    assert steps == {1.0: 32, 0.5: 47, 0.1: 127, 0.01: 661}
    assert [v[0][0] for v in found.values()] == pytest.approx([0.4872, 0.7047, 0.8090, 0.5959], abs=6e-5)
    assert [v[1] for v in found.values()] == pytest.approx([0.9744, 0.9438, 0.8098, 0.5959], abs=6e-5)
    for beta, n in steps.items():
        solver = KadkhodaieSimoncelli(steps=2000, beta=beta)
        assert solver.calls() == n + 1


@pytest.mark.parametrize("c", [0.25, 1.0, 4.0])
def test_half_of_the_variance_is_left_in_the_limit(c):
    """Steps near 1 make the chain x <- D(x) + sigma z; its variance over the truth is (c + s^2) / (2 c + s^2).

    Which tends to 1/2 as s^2 falls. beta = 1e-4 is within 1e-2 of it, as h_k has to grow to 1 and sigma to fall.
    """
    assert walk(1e-4, None, c)[1] / c == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("steps", [2, 10, 33, 100, 662])
def test_the_level_arrives_with_the_last_step(steps):
    """Without beta, the number of calls is given, and what is left of the noise is last / first to 1e-9."""
    solver = KadkhodaieSimoncelli(steps=steps)
    beta, h0 = solver.pace()
    level = math.prod(1 - beta * h0 * k / (1 + h0 * (k - 1)) for k in range(1, steps))
    assert level == pytest.approx(0.01, rel=1e-9)
    assert (beta == 1) == (steps < 33)
    assert abs(beta - 0.01) < 2e-5 or steps != 662  # the paper's beta needs 661 steps and one call more


def official(denoise, A, y, seed: int, beta: float, h0: float = 0.01, first: float = 2.0, last: float = 0.02):
    """The loop of ``univ_inv_sol`` for one image, from the description, M^T x = sqrt(s) times block means etc.

    M has orthonormal columns: here M M^T x = A^+ A x and M x_c = A^+ y.
    """
    project, back = lambda x: A.pinv(A(x)), A.pinv(y)
    draws = Rng([seed], dtype=F64)
    x = back + first * draws.normal(*A.shape)
    n, sigma, t = x.numel(), float("inf"), 1
    while sigma > last:
        h = h0 * t / (1 + h0 * (t - 1))
        f = x - denoise(x)
        d = f - project(f) + project(x) - back
        sigma = float(d.norm()) / n**0.5
        gamma = sigma * ((1 - beta * h) ** 2 - (1 - h) ** 2) ** 0.5
        x = x - h * d + gamma * draws.normal(*A.shape)
        t += 1
    return denoise(x), t


@pytest.mark.parametrize("beta", [0.5, 0.1])
def test_a_blind_denoiser_runs_as_in_the_official_loop(beta):
    """Noise-free means of blocks, level read off the residual; rows stop at different times and do not mind."""
    A = BlockAverage((1, 8, 8), 2, F64)
    smooth = BlockAverage((1, 8, 8), 4, F64)
    denoise = lambda x, sigma=None: 0.2 * x.relu() - 0.1 * (-x).relu() + 0.7 * smooth.pinv(smooth(x))  # noqa: E731
    m = measurement(A, 0.0)
    y = rows(torch.tensor([1.0, 0.1, 3.0], dtype=F64), m.y) * m.y
    prior = DiffusionPrior(denoise, VP(), (1, 8, 8))
    x = KadkhodaieSimoncelli(steps=200, beta=beta, estimate=True)(Measurement(y, A, Gaussian(0.0)), prior, rng(0, 1, 2))
    for i in range(3):
        want, calls = official(denoise, A, y[i : i + 1], i, beta)
        assert calls < 200
        assert (x[i] - want[0]).abs().max() < 1e-10


def test_without_data_it_draws_from_the_prior_and_with_them_it_fits():
    """Noise above ``first`` means that nothing was measured; noise-free data are met up to the last denoising."""
    p = DiffusionPrior(mixture(), VP(), (1, 8, 8))
    blank = Measurement(torch.zeros(2, 1, 8, 8, dtype=F64), Identity((1, 8, 8), F64), Gaussian(3.0))
    other = Measurement(torch.ones(2, 1, 8, 8, dtype=F64), Identity((1, 8, 8), F64), Gaussian(3.0))
    solver = KadkhodaieSimoncelli(steps=40)
    assert torch.equal(solver(blank, p, rng(0, 1)), solver(other, p, rng(0, 1)))
    m = measurement(BlockAverage((1, 8, 8), 2, F64), 0.0)
    *_, state, end = solver.run(m, p, rng(0, 1, 2))
    assert (m.A(state.x) - m.y).square().mean().sqrt() == pytest.approx(0.02 / 2, rel=0.3)  # last / sqrt(4), 48 data
    assert (m.A(end.x) - m.y).abs().max() < 3 * 0.02


@pytest.mark.parametrize("fields", [{"beta": 0.0}, {"beta": 1.5}, {"h0": 0.0}, {"last": 2.0}, {"last": 0.0}])
def test_what_it_refuses(fields):
    with pytest.raises(ValueError, match="must"):
        KadkhodaieSimoncelli(**fields)
