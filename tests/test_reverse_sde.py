"""The reverse SDE with any amount of noise: equal to published samplers, and exact in its variance; float64."""

import math

import pytest
import torch

from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.mixture import GaussianMixture, gaussian
from scoreatlas.rng import Rng
from scoreatlas.samplers.ancestral import DDIM, DDPM
from scoreatlas.samplers.ode import Euler, Karras
from scoreatlas.samplers.reverse_sde import ReverseSDE
from scoreatlas.schedules import SCHEDULES, VE, VP

MIXTURE = GaussianMixture(
    torch.tensor([0.6, 0.4], dtype=torch.float64),
    torch.tensor([[-1.0, 0.3], [0.8, -0.5]], dtype=torch.float64),
    torch.tensor([0.1, 0.2], dtype=torch.float64),
)


def rng(rows: int) -> Rng:
    return Rng([0], rows, dtype=torch.float64)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_without_noise_it_is_ddim_and_with_anderson_s_it_is_ddpm(schedule):
    prior = DiffusionPrior(MIXTURE, schedule, (2,))
    for kappa, other in ((0.0, DDIM(15)), (1.0, DDPM(15))):
        gap = (ReverseSDE(15, kappa)(None, prior, rng(7)) - other(None, prior, rng(7))).abs().max()
        assert float(gap) < 1e-10  # rounding at noise levels of up to 1000


def test_euler_and_maruyama_in_noise_squared_is_ddpm_with_the_large_variance():
    """Where alpha is 1, so that DDPM's forward step is n^2 - n'^2; elsewhere they differ by (alpha_t / alpha_s)^2."""
    prior, draws = DiffusionPrior(MIXTURE, VE(), (2,)), rng(5)
    levels = [t.noise for t in VE().grid(12)]
    z = prior.initial(draws)
    for n, low in zip(levels[:-1], levels[1:], strict=True):
        score = MIXTURE.score(z, n)
        noise = math.sqrt(n**2 - low**2) * draws.normal(2) if low > 0 else 0.0
        z = z + (n**2 - low**2) * score + noise
    assert float((z - DDPM(12, "fixedlarge")(None, prior, rng(5))).abs().max()) < 1e-10


def variance(kappa: float, c: float, levels: list[float]) -> float:
    """Terminal variance on N(0, c), by the recursion of its linear steps."""
    v = levels[0] ** 2
    for n, low in zip(levels[:-1], levels[1:], strict=True):
        gain, rho = c / (c + n**2), low / n
        a = gain + rho ** (1 + kappa**2) * (1 - gain)
        v = a**2 * v + low**2 * (1 - rho ** (2 * kappa**2))
    return v


@pytest.mark.parametrize("kappa", [0.0, 0.5, 1.0, 2.0])
def test_every_amount_of_noise_keeps_the_law_as_steps_grow(kappa):
    """On N(0, c) the recursion is exact: bias of order 1 / steps, and the sampler follows the recursion."""
    c, n = 0.3, 40_000
    prior = DiffusionPrior(gaussian(torch.zeros(1).double(), torch.tensor(c).double()), VP(), (1,))
    bias = [abs(variance(kappa, c, Karras()(VP(), k)) / c - 1) for k in (200, 400, 800)]
    assert bias[2] < 0.05 and bias[0] / bias[1] == pytest.approx(2, rel=0.25)
    assert bias[1] / bias[2] == pytest.approx(2, rel=0.15)
    x = ReverseSDE(20, kappa, Karras())(None, prior, rng(n))
    want = variance(kappa, c, Karras()(VP(), 20))
    assert abs(float(x.var()) / want - 1) < 5 * math.sqrt(2 / n)  # 5 standard errors of a variance


def test_without_noise_it_is_euler_on_the_flow():
    prior = DiffusionPrior(MIXTURE, VP(), (2,))
    gap = ReverseSDE(15, 0.0)(None, prior, rng(7)) - Euler(15)(None, prior, rng(7))
    assert float(gap.abs().max()) < 1e-11


def test_less_than_no_noise_is_refused():
    with pytest.raises(ValueError, match="kappa must be >= 0, got -1"):
        ReverseSDE(kappa=-1)
