"""The laws of the solvers of chapter 3.6, pinned as in ``test_exactness.py``: affine recursions in scalars.

On N(0, c) with one pixel seen, y = x + N(0, s^2), and one unseen, each method maps its noise to its answer affinely.
The recursions are written from the papers' formulas, not from the code; samples must agree within 5 Monte-Carlo
standard errors, and the recursions must show the digits pinned below.
"""

import math

import pytest
import torch
from test_exactness import EXACT, STEPS, C, N, S, Walk, Y, ddim, gain, problem, relative

from scoreatlas.rng import Rng
from scoreatlas.schedules import VP
from scoreatlas.solvers.base import Solver
from scoreatlas.solvers.projection.dds import DDS
from scoreatlas.solvers.projection.mccann import McCann
from scoreatlas.solvers.projection.score_ald import ScoreALD
from scoreatlas.solvers.projection.score_sde import ScoreSDE

INNER = 3


def dds(gamma: float, eta: float = 0.85) -> tuple[Walk, Walk]:
    """One unknown a pixel: conjugate gradients solve (1 + gamma) x = x_0 + gamma y at once."""
    seen, hidden = (Walk(0.0, VP().at(1.0).sigma ** 2) for _ in range(2))
    keep = math.sqrt(1 - eta**2)
    for t, s in VP().pairs(STEPS):
        g = gain(t)
        e = (1 - t.alpha * g) / t.sigma
        seen.step(s.alpha * g / (1 + gamma) + s.sigma * keep * e, s.alpha * gamma / (1 + gamma) * Y, s.sigma * eta)
        hidden.step(s.alpha * g + s.sigma * keep * e, 0.0, s.sigma * eta)
    return seen, hidden


def score_sde(lambd: float) -> tuple[Walk, Walk]:
    """A share lambda of the seen pixel is q(x_t | y) before each ancestral step, and y itself after the last."""
    seen, hidden = (Walk(0.0, VP().at(1.0).sigma ** 2) for _ in range(2))
    for t, s in VP().pairs(STEPS):
        p, q, std = ddim(t, s, 1.0)
        seen.step(1 - lambd, lambd * t.alpha * Y, lambd * t.sigma)
        for w in (seen, hidden):
            w.step(p * gain(t) + q, 0.0, std)
    seen.step(1 - lambd, lambd * Y, 0.0)
    return seen, hidden


def shrink(noise: float) -> float:
    """E[x_0 | x_0 + noise = u] = shrink u."""
    return C / (C + noise**2)


def score_ald(r: float, gamma: float) -> tuple[Walk, Walk]:
    seen, hidden = (Walk(0.0, VP().at(1.0).noise ** 2) for _ in range(2))
    for t, _ in VP().pairs(STEPS):
        h = (r * t.noise) ** 2
        w = h / (S**2 + (gamma * t.noise) ** 2)
        for _ in range(INNER):
            prior = 1 + r**2 * (shrink(t.noise) - 1)
            seen.step(prior - w, w * Y, math.sqrt(2 * h))
            hidden.step(prior, 0.0, math.sqrt(2 * h))
    for walk in (seen, hidden):
        walk.step(shrink(t.noise), 0.0, 0.0)
    return seen, hidden


def mccann(r: float, tau: float, chains: int = 1) -> tuple[Walk, Walk]:
    seen, hidden = (Walk(0.0, VP().at(1.0).noise ** 2) for _ in range(2))
    for t, _ in VP().pairs(STEPS):
        h = (r * t.noise) ** 2
        for _ in range(INNER):
            prior = 1 + r**2 * (shrink(t.noise) - 1)
            for walk in (seen, hidden):
                walk.step(prior, 0.0, tau * math.sqrt(2 * h))
            seen.step(S**2 / (S**2 + h), h / (S**2 + h) * Y, 0.0)
    for walk in (seen, hidden):
        walk.step(shrink(t.noise), 0.0, 0.0)
        walk.variance /= chains
    return seen, hidden


LAWS = {
    "DDS": (DDS(steps=STEPS), dds(1.0)),
    "DDS, gamma = 6": (DDS(steps=STEPS, gamma=6.25), dds(6.25)),
    "ScoreSDE": (ScoreSDE(steps=STEPS), score_sde(1.0)),
    "ScoreSDE, lambda = 0.5": (ScoreSDE(steps=STEPS, lambd=0.5), score_sde(0.5)),
    "ScoreALD": (ScoreALD(steps=STEPS, inner=INNER), score_ald(0.5, 1.0)),
    "McCann": (McCann(steps=STEPS, inner=INNER), mccann(0.5, 1.0)),
    "McCann, MAP": (McCann("map", steps=STEPS, inner=INNER), mccann(0.5, 0.0)),
    "McCann, MMSE": (McCann("mmse", steps=STEPS, inner=INNER, chains=4), mccann(0.5, 1.0, 4)),
}

PINNED = {  # at 40 levels, three Langevin steps each
    "DDS": (0.3106, 0.3192, 0.8047),
    "DDS, gamma = 6": (0.4419, 0.0595, 0.8047),  # gamma = c / s^2, which one proximal step would want
    "ScoreSDE": (0.4457, 0.0000, 0.8673),
    "ScoreSDE, lambda = 0.5": (0.2495, 0.2273, 0.8673),
    "ScoreALD": (-0.4155, 1.3478, 1.2392),
    "McCann": (-0.0337, 0.9353, 1.2392),
    "McCann, MAP": (-0.0337, 0.0000, 0.0000),
    "McCann, MMSE": (-0.0337, 0.4676, 0.6196),  # the noise of four chains
}


@pytest.mark.parametrize("name", LAWS)
def test_the_law_of_the_answer_is_that_of_the_recursion(name):
    solver, law = LAWS[name]
    n = N // 4 if "MMSE" in name else N
    m, prior = problem(n)
    x = solver(m, prior, Rng([0], n, dtype=torch.float64)).reshape(n, 2)
    for i, walk in enumerate(law):
        mean, variance = float(x[:, i].mean()), float(x[:, i].var())
        assert abs(mean - walk.mean) < 5 * math.sqrt(walk.variance / n) + 1e-12
        assert abs(variance - walk.variance) < 5 * math.sqrt(2 / n) * walk.variance + 1e-12


def test_the_pinned_biases():
    """Bias in exact standard deviations, spread over the exact one, and the unseen spread over the prior's."""
    for name, (solver, (seen, unseen)) in LAWS.items():
        assert isinstance(solver, Solver)
        found = (*relative(seen, EXACT), relative(unseen, (0.0, C))[1])
        assert found == pytest.approx(PINNED[name], abs=6e-5), (name, found)


def test_the_likelihood_of_a_noisy_image_needs_small_last_steps():
    """McCann's dynamics tend to the posterior as levels and steps shrink: both errors fall, and below 1 %."""
    errors = []
    for steps, inner, r in ((100, 10, 0.3), (2000, 40, 0.1)):
        walk = Walk(0.0, VP().at(1.0).noise ** 2)
        for t, _ in VP().pairs(steps):
            h = (r * t.noise) ** 2
            for _ in range(inner):
                walk.step(1 + r**2 * (shrink(t.noise) - 1), 0.0, math.sqrt(2 * h))
                walk.step(S**2 / (S**2 + h), h / (S**2 + h) * Y, 0.0)
        walk.step(shrink(t.noise), 0.0, 0.0)
        bias, spread = relative(walk, EXACT)
        errors.append((abs(bias), abs(spread - 1)))
    assert errors[1][0] < errors[0][0] and errors[1][1] < errors[0][1]
    assert max(errors[1]) < 0.01
