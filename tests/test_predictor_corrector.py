"""The predictor-corrector sampler against exact recursions and the formulas of the official code; float64."""

import math

import pytest
import torch

from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.mixture import gaussian
from scoreatlas.rng import Rng
from scoreatlas.samplers.predictor_corrector import PredictorCorrector
from scoreatlas.schedules import VE, VP, Schedule

SHAPE = (3,)
ZERO = torch.zeros(3, dtype=torch.float64)


def prior(schedule: Schedule) -> DiffusionPrior:
    return DiffusionPrior(gaussian(ZERO, torch.ones((), dtype=torch.float64)), schedule, SHAPE)


def variance(schedule: Schedule, steps: int, corrections: int, snr: float) -> float:
    """Terminal variance on N(0, I): the score is -x / (alpha^2 + sigma^2), and every update is linear."""
    v = schedule.at(1.0).sigma ** 2
    for t, s in schedule.pairs(steps):
        total = t.alpha**2 + t.sigma**2
        if s.sigma == 0:
            return (t.alpha / total) ** 2 * v
        a = t.alpha / s.alpha
        g2 = t.sigma**2 - a**2 * s.sigma**2
        v = (2 - a - g2 / total) ** 2 * v + g2
        for _ in range(corrections):
            e = 2 * (snr * s.sigma) ** 2
            v = (1 - e / (s.alpha**2 + s.sigma**2)) ** 2 * v + 2 * e
    raise AssertionError


@pytest.mark.parametrize("schedule", [VP(), VE()], ids=repr)
@pytest.mark.parametrize("corrections", [0, 2])
def test_terminal_variance_is_that_of_the_exact_recursion(schedule, corrections):
    n = 20_000
    x = PredictorCorrector(20, corrections, 0.3, "level")(None, prior(schedule), Rng([0], n, dtype=torch.float64))
    want = variance(schedule, 20, corrections, 0.3)
    assert abs(float(x.var()) / want - 1) < 5 * math.sqrt(2 / (3 * n))  # 5 standard errors
    assert abs(want - variance(schedule, 20, 2 - corrections, 0.3)) > 0.05  # far enough that corrections are tested


def test_the_predictor_is_the_published_one_on_a_chain_of_betas():
    """x_mean = (2 - sqrt(1 - beta)) x + beta score, noise sqrt(beta): Algorithm 3, with beta = 1 - a^2 (VP)."""
    schedule = VP()
    steps = list(schedule.pairs(9))
    t, s = steps[0]
    beta = 1 - (t.alpha / s.alpha) ** 2
    x = prior(schedule).initial(Rng([2], 4, dtype=torch.float64))
    noise = Rng([2], 4, dtype=torch.float64)
    noise.normal(3)
    want = (2 - math.sqrt(1 - beta)) * x - beta * x + math.sqrt(beta) * noise.normal(3)  # the score is -x
    first = next(PredictorCorrector(9, 0).run(None, prior(schedule), Rng([2], 4, dtype=torch.float64)))
    assert float((first.x - want).abs().max()) < 1e-12


def test_a_correction_has_the_signal_to_noise_ratio_asked_for():
    """By definition |e grad| / |sqrt(2 e) z| = r, for each row, which is how the official code sets e."""
    schedule = VE()
    t, s = next(schedule.pairs(9))
    rows = Rng([2], 4, dtype=torch.float64)
    before = next(PredictorCorrector(9, 0).run(None, prior(schedule), rows)).x
    z = rows.normal(3)
    after = next(PredictorCorrector(9, 1, snr=0.2).run(None, prior(schedule), Rng([2], 4, dtype=torch.float64))).x
    score = -before / (1 + s.sigma**2)
    e = 2 * (0.2 * z.norm(dim=1) / score.norm(dim=1)) ** 2
    assert torch.allclose(e * score.norm(dim=1) / ((2 * e).sqrt() * z.norm(dim=1)), torch.full((4,), 0.2).double())
    assert torch.allclose(after, before + e[:, None] * score + (2 * e).sqrt()[:, None] * z, rtol=1e-11)
