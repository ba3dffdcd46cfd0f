"""Denoising Langevin-Gibbs: its level update and the law it leaves in place; float64."""

import math

import torch

from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.mixture import gaussian
from scoreatlas.rng import Rng
from scoreatlas.samplers.dlg import DLG
from scoreatlas.schedules import VE

ONE = gaussian(torch.zeros(2, dtype=torch.float64), torch.ones((), dtype=torch.float64))
N = 20_000


def rng(seed: int) -> Rng:
    return Rng([seed], N, dtype=torch.float64)


def test_levels_are_drawn_from_their_law_given_the_image():
    """For z = 0 and N(0, I) in the plane, p(n | z) is proportional to 1 / (1 + n^2) on the levels."""
    chain = DLG(ONE, low=0.5, high=2.0, levels=3)
    levels = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    want = 1 / (1 + levels**2)
    want = want / want.sum()
    drawn = chain._level(torch.zeros(N, 2, dtype=torch.float64), rng(0))
    share = torch.stack([(drawn - level).abs().lt(1e-9).double().mean() for level in levels])
    assert float((share - want).abs().max()) < 5 * math.sqrt(0.25 / N)  # 5 standard errors
    most = DLG(ONE, low=0.5, high=2.0, levels=3, draw="argmax")._level(torch.zeros(N, 2, dtype=torch.float64), rng(0))
    assert bool((most - 0.5).abs().lt(1e-9).all())


def test_the_walk_leaves_the_joint_law_in_place():
    """Started from p(n) p_n(z), n log-uniform: after 40 steps z^2 / (1 + n^2) still has mean 1, log n its mean.

    A Langevin step of variance eta on N(0, v) has the stationary variance v / (1 - eta / 4 v), at most 1 % more.
    """
    chain = DLG(ONE, low=0.5, high=2.0, levels=30, eta=0.05)
    prior = DiffusionPrior(ONE, VE(), (2,))
    source = rng(1)
    grid = torch.logspace(math.log10(0.5), math.log10(2), 30, dtype=torch.float64)
    n = grid[source.choice(torch.ones(30, dtype=torch.float64))]
    z = (1 + n**2).sqrt()[:, None] * source.normal(2)
    for _ in range(40):
        z, n = chain._walk(prior, z, n, source)
    scaled = z.square().mean(1) / (1 + n**2)
    assert abs(float(scaled.mean()) - 1) < 0.01 + 5 * math.sqrt(1 / N)
    assert abs(float(n.log().mean())) < 0.01 + 5 * float(grid.log().std()) / math.sqrt(N)
    assert abs(float(n.log().std() / grid.log().std()) - 1) < 0.03


def test_the_way_down_is_heun_s_on_karras_levels():
    """With all rows at one level it is the scalar recursion of Heun's method on N(0, 1), then the denoiser."""
    chain, top, low = DLG(ONE, steps=4, low=0.05), 3.0, 0.05
    levels = [(top ** (1 / 7) + i / 3 * (low ** (1 / 7) - top ** (1 / 7))) ** 7 for i in range(4)]
    gain = 1.0
    for n, below in zip(levels[:-1], levels[1:], strict=True):
        first = n / (1 + n**2)
        ahead = 1 + (below - n) * first
        gain *= 1 + (below - n) / 2 * (first + ahead * below / (1 + below**2))
    gain /= 1 + low**2
    z = torch.ones(5, 2, dtype=torch.float64)
    down = chain._down(DiffusionPrior(ONE, VE(), (2,)), z, torch.full((5,), top, dtype=torch.float64))
    assert float((down - gain).abs().max()) < 1e-12
