"""The semi-discrete transport of DPM-OT, against its closed form on the line; float64."""

import torch
from scipy.stats import norm

from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.mixture import gaussian
from scoreatlas.rng import Rng
from scoreatlas.samplers.dpm_ot import DPMOT, Expressway
from scoreatlas.schedules import VE

TARGETS = torch.tensor([[-2.0], [-0.5], [0.1], [0.4], [3.0]], dtype=torch.float64)


def fitted() -> Expressway:
    return Expressway.fit(TARGETS, 0.1, Rng([0], 20_000, dtype=torch.float64), 1500)


def test_on_the_line_the_cells_end_at_the_quantiles():
    """Transport of N(0, 1) to M sorted points is monotone: cell i ends at the i / M quantile, so
    h_i - h_{i+1} = (p_{i+1} - p_i) q_i. The tolerance in mass is 5 standard errors of one Monte-Carlo batch."""
    way = fitted()
    ends = -way.heights.diff() / TARGETS[:, 0].diff()
    mass = torch.as_tensor(norm.cdf(ends.numpy()))
    assert float((mass - torch.tensor([0.2, 0.4, 0.6, 0.8])).abs().max()) < 5 * (0.25 / 20_000) ** 0.5


def test_without_steps_the_answer_is_a_denoised_target():
    """No noise is added: the last denoising of N(0, 1) shrinks a stored target, and nothing else comes out."""
    prior = DiffusionPrior(gaussian(torch.zeros(1).double(), torch.ones(()).double()), VE(), (1,))
    x = DPMOT(fitted(), steps=0)(None, prior, Rng([1], 500, dtype=torch.float64))
    stored = TARGETS / (1 + 0.01**2)
    assert float((x - stored.T).abs().amin(1).max()) < 1e-12
    assert len(x.round(decimals=9).unique()) == len(TARGETS)


def test_the_langevin_steps_are_those_of_ncsn():
    """x + step grad + sqrt(2 step) z with step = 0.062 sigma^2, at one level and on N(0, 1)."""
    prior = DiffusionPrior(gaussian(torch.zeros(1).double(), torch.ones(()).double()), VE(), (1,))
    way = fitted()
    rng = Rng([1], 50, dtype=torch.float64)
    x = TARGETS[way.cells(rng.normal(1))]
    step = 0.062 * 0.1**2
    x = x + step * (-x / (1 + 0.1**2)) + (2 * step) ** 0.5 * rng.normal(1)
    first = next(DPMOT(way).run(None, prior, Rng([1], 50, dtype=torch.float64)))
    assert float((first.x - x).abs().max()) < 1e-12
