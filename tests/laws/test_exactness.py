"""How wrong each biased solver is, pinned: closed forms on Gaussians, derived here a second time.

On N(0, c) with y = x + N(0, s^2) every one of these methods maps its noise to its answer by an affine map, so that the
answer is Gaussian and two recursions give its mean and variance exactly, discretisation included. The recursions below
are written from the papers' formulas in scalars, not from the code. Samples must agree with them within 5 Monte-Carlo
standard errors, and the recursions must show the bias that the cards tabulate.
"""

import math
from pathlib import Path

import pytest
import torch
from members import HELD

from scoreatlas.bench.catalogue import solvers
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.inpainting import Inpainting
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.gaussian_field import GaussianField
from scoreatlas.priors.mixture import gaussian
from scoreatlas.rng import Rng
from scoreatlas.schedules import VP
from scoreatlas.solvers.base import Solver
from scoreatlas.solvers.classical.pseudo_inverse import PseudoInverse
from scoreatlas.solvers.classical.wiener import Wiener
from scoreatlas.solvers.guidance.dps import DPS
from scoreatlas.solvers.guidance.pigdm import PiGDM
from scoreatlas.solvers.projection.ddnm import DDNM
from scoreatlas.solvers.projection.ddrm import DDRM
from scoreatlas.solvers.projection.repaint import RePaint
from scoreatlas.solvers.splitting.diffpir import DiffPIR

ROOT = Path(__file__).parents[2]
C, S, Y, STEPS, N = 0.25, 0.2, 0.6, 40, 20_000  # prior variance, noise, datum, steps, samples
SHAPE = (1, 1, 2)  # the first pixel is seen, the second is not
EXACT = (C * Y / (C + S**2), C * S**2 / (C + S**2))


def problem(n: int) -> tuple[Measurement, DiffusionPrior]:
    prior = gaussian(torch.zeros(SHAPE, dtype=torch.float64), torch.tensor(C, dtype=torch.float64))
    A = Inpainting(torch.tensor([True, False]).reshape(SHAPE), torch.float64)
    m = Measurement(torch.full((1, 1), Y, dtype=torch.float64), A, Gaussian(S)).repeat(n)
    return m, DiffusionPrior(prior, VP(), SHAPE)


def moments(solver: Solver) -> tuple[tuple[float, float], tuple[float, float]]:
    """Mean and variance of the seen and of the unseen pixel."""
    m, prior = problem(N)
    x = solver(m, prior, Rng([0], N, dtype=torch.float64)).reshape(N, 2)
    return tuple((float(x[:, i].mean()), float(x[:, i].var())) for i in (0, 1))


class Walk:
    """x = mean + Gaussian of this variance; an affine step keeps that form."""

    def __init__(self, mean: float, variance: float) -> None:
        self.mean, self.variance = mean, variance

    def step(self, a: float, b: float, noise: float) -> None:
        """x <- a x + b + noise z."""
        self.mean, self.variance = a * self.mean + b, a * a * self.variance + noise**2


def gain(t) -> float:
    """E[x_0 | x_t] = gain x_t."""
    return t.alpha * C / (t.alpha**2 * C + t.sigma**2)


def ddim(t, s, eta: float) -> tuple[float, float, float]:
    """x_s = p x_0 + q x_t + std z, from DDIM's equations 12 and 16."""
    std = eta * s.sigma / t.sigma * math.sqrt(max(0.0, t.sigma**2 - (t.alpha / s.alpha) ** 2 * s.sigma**2))
    q = math.sqrt(max(0.0, s.sigma**2 - std**2)) / t.sigma
    return s.alpha - q * t.alpha, q, std


def renewed(kind: str, eta: float, eta_b: float = 1.0, lambd: float = 1.0) -> tuple[Walk, Walk]:
    """DDRM's equation 8 (DDNM+ is the same for eta_b = 1) and DiffPIR with eta^2 = zeta: seen and unseen pixel."""
    keep, top = math.sqrt(1 - eta**2), VP().at(1.0)
    if kind == "ddrm":
        walk = Walk(top.alpha * Y, top.alpha**2 * (top.noise**2 - S**2))
    else:
        walk = Walk(0.0, top.sigma**2)
    hidden = Walk(0.0, top.sigma**2)
    for t, s in VP().pairs(STEPS):
        g = gain(t)
        e = (1 - t.alpha * g) / t.sigma  # predicted noise = e x
        hidden.step(s.alpha * g + s.sigma * keep * e, 0.0, eta * s.sigma)
        if kind == "diffpir":  # x_0 <- (y + rho x_0) / (1 + rho), noise recomputed from it
            rho = lambd * S**2 / t.noise**2
            a, b = rho * g / (1 + rho), Y / (1 + rho)
            walk.step(
                s.alpha * a + s.sigma * keep * (1 - t.alpha * a) / t.sigma,
                s.alpha * b - s.sigma * keep * t.alpha * b / t.sigma,
                s.sigma * eta,
            )
        elif s.noise >= S:  # datum cleaner than the iterate
            walk.step(s.alpha * (1 - eta_b) * g, s.alpha * eta_b * Y, s.alpha * math.sqrt(s.noise**2 - eta_b**2 * S**2))
        else:
            walk.step(s.alpha * g * (1 - keep * s.noise / S), s.alpha * keep * s.noise / S * Y, s.alpha * eta * s.noise)
    return walk, hidden


def repainted() -> tuple[Walk, Walk]:
    """RePaint without jumps: the seen pixel is q(x_t | y) before each ancestral step."""
    walk, hidden = Walk(0.0, VP().at(1.0).sigma ** 2), Walk(0.0, VP().at(1.0).sigma ** 2)
    for t, s in VP().pairs(STEPS):
        p, q, std = ddim(t, s, 1.0)
        walk.mean, walk.variance = t.alpha * Y, t.sigma**2
        for w in (walk, hidden):
            w.step(p * gain(t) + q, 0.0, std)
    return walk, hidden


def guided(prior_std: float) -> tuple[Walk, Walk]:
    """PiGDM: the Kalman gain with r^2 in the place of the variance of x_0 given x_t."""
    walk, hidden = (Walk(0.0, VP().at(1.0).sigma ** 2) for _ in range(2))
    for t, s in VP().pairs(STEPS):
        p, q, std = ddim(t, s, 1.0)
        g, r2 = gain(t), 1 / (1 / t.noise**2 + 1 / prior_std**2)
        k = t.sigma**2 / t.alpha * g / (r2 + S**2)
        walk.step(p * g * (1 - k) + q, p * k * Y, std)
        hidden.step(p * g + q, 0.0, std)
    return walk, hidden


CASES = [
    (DDRM(steps=STEPS), renewed("ddrm", 0.85)),
    (DDNM(steps=STEPS), None),  # DDRM's law from another start; compared at the level of the start's memory below
    (DiffPIR(steps=STEPS), renewed("diffpir", math.sqrt(0.1))),
    (DiffPIR(steps=STEPS, zeta=1.0), renewed("diffpir", 1.0)),
    (RePaint(steps=STEPS, jump=10, resample=1), repainted()),
    (PiGDM(steps=STEPS), guided(1.0)),
    (PiGDM(steps=STEPS, prior_std=0.5), guided(0.5)),
]


@pytest.mark.parametrize(("solver", "law"), CASES, ids=lambda v: repr(v) if isinstance(v, Solver) else "")
def test_the_law_of_the_answer_is_that_of_the_recursion(solver, law):
    law = law or renewed("ddrm", 0.85)
    for (mean, variance), walk in zip(moments(solver), law, strict=True):
        assert abs(mean - walk.mean) < 5 * math.sqrt(walk.variance / N) + 1e-3 * (solver.__class__ is DDNM)
        assert abs(variance / walk.variance - 1) < 5 * math.sqrt(2 / N)


def relative(walk: Walk, exact: tuple[float, float]) -> tuple[float, float]:
    """Bias in exact standard deviations, and spread ratio."""
    return (walk.mean - exact[0]) / math.sqrt(exact[1]), math.sqrt(walk.variance / exact[1])


PINNED = {  # bias and spread of the seen pixel, spread of the unseen one, at 40 steps
    "DDRM": (-0.1540, 0.7046, 0.8047),
    "DiffPIR": (0.1339, 0.7327, 0.9155),
    "DiffPIR, zeta = 1": (0.0587, 0.5753, 0.6494),
    "RePaint": (0.3363, 0.4869, 0.8673),
    "PiGDM": (-0.2831, 0.8405, 0.8673),
    "PiGDM, told": (0.0, 0.7523, 0.8673),  # told the prior's standard deviation: what is left is its steps
}


def test_the_pinned_biases():
    """The recursions themselves stay what they are, to the digits printed; with the law above, so do the methods."""
    found = {
        "DDRM": renewed("ddrm", 0.85), "DiffPIR": renewed("diffpir", math.sqrt(0.1)),
        "DiffPIR, zeta = 1": renewed("diffpir", 1.0), "RePaint": repainted(), "PiGDM": guided(1.0),
        "PiGDM, told": guided(0.5),
    }  # fmt: skip
    for name, (seen, unseen) in found.items():
        bias, spread = relative(seen, EXACT)
        assert unseen.mean == 0
        assert (bias, spread, relative(unseen, (0.0, C))[1]) == pytest.approx(PINNED[name], abs=6e-5), name


@pytest.mark.parametrize("eta", [math.sqrt(0.1), 0.85, 1.0])
def test_the_limit_of_renewed_noise(eta, monkeypatch):
    """Unseen variance tends to (1 + sqrt(1 - eta^2)) / 2 of the prior's, whatever that is.

    As fast as 1 / sqrt(steps) at least: sigma grows like sqrt(t) near 0, so the last step is never a small one.
    """
    limit = (1 + math.sqrt(1 - eta**2)) / 2
    errors = []
    for steps in (400, 4000):
        monkeypatch.setattr("test_exactness.STEPS", steps)
        errors.append(abs(renewed("ddrm", eta)[1].variance / C - limit))
    assert errors[1] < 0.01 and errors[1] < 10**-0.5 * errors[0]


def test_dps_jitters_by_zeta_whatever_the_noise():
    """Near the end its step is as long as zeta, however small the residual: a spread of zeta / (2 sqrt m) on m data."""
    m_data, zeta, n = 4, 0.3, 1000
    shape = (1, 1, m_data)
    prior = DiffusionPrior(gaussian(torch.zeros(shape, dtype=torch.float64), torch.tensor(C).double()), VP(), shape)
    A = Inpainting(torch.ones(shape, dtype=torch.bool), torch.float64)
    spreads = []
    for s in (1e-4, 1e-2):
        m = Measurement(torch.full((1, m_data), Y, dtype=torch.float64), A, Gaussian(s)).repeat(n)
        x = DPS(steps=1000, zeta=zeta)(m, prior, Rng([0], n, dtype=torch.float64)).reshape(n, m_data)
        spreads.append(float((x - Y).square().mean().sqrt()))
    assert spreads[0] == pytest.approx(spreads[1], rel=0.05)  # it does not know sigma_y
    # the length of the residual lies between 0 and zeta: its rms is zeta / 2 for a two-cycle, zeta / sqrt 3 if uniform
    assert zeta / (2 * math.sqrt(m_data)) * 0.9 < spreads[0] < zeta / math.sqrt(3 * m_data) * 1.1


def test_point_estimates_have_no_spread():
    m, _ = problem(3)
    assert float(PseudoInverse()(m, None, Rng([0], 3, dtype=torch.float64)).std(0).max()) == 0
    field = GaussianField(torch.zeros(SHAPE, dtype=torch.float64), torch.full(SHAPE[1:], C, dtype=torch.float64))
    x = Wiener()(m, field, Rng([0], 3, dtype=torch.float64))
    assert float(x.std(0).max()) < 1e-12 and float(x[0, 0, 0, 0]) == pytest.approx(EXACT[0], rel=1e-9)


def test_every_solver_is_pinned_or_proved():
    """A new solver gets a line in ``HELD``, and the file named there a test of its law."""
    assert set(HELD) == set(solvers())
    for name, (how, where) in HELD.items():
        assert how in ("pinned", "proved", "optimised")
        assert f"{name}(" in (ROOT / where).read_text(), f"{where} does not run {name}"
