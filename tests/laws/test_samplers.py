"""Laws of the samplers, float64: order of convergence, exact recursions, convergence to the truth, published formulas.

On N(m, diag c) the probability flow has a closed form: with z = x_t / alpha_t and n = sigma_t / alpha_t,
z(n) - m is proportional to sqrt(c + n^2).
"""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from scoreatlas.gaussian_flow import GaussianFlow
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.mixture import GaussianMixture, gaussian
from scoreatlas.rng import Rng
from scoreatlas.samplers.ancestral import DDIM, DDPM
from scoreatlas.samplers.dlg import DLG
from scoreatlas.samplers.dpm_ot import DPMOT, Expressway
from scoreatlas.samplers.dpm_solver import DPMSolver, LogSNR
from scoreatlas.samplers.dpm_solver_pp import DPMSolverPP
from scoreatlas.samplers.ode import Euler, Heun, Karras, Uniform
from scoreatlas.samplers.outline import Outline
from scoreatlas.samplers.predictor_corrector import PredictorCorrector
from scoreatlas.samplers.reverse_sde import ReverseSDE
from scoreatlas.schedules import SCHEDULES, VP, Flow, Schedule, Time
from scoreatlas.solvers.base import Solver

MEAN = torch.tensor([0.5, -1.0, 0.0], dtype=torch.float64)
VARIANCE = torch.tensor([0.05, 0.4, 2.0], dtype=torch.float64)
MIXTURE = GaussianMixture(
    torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
    torch.tensor([[-0.7, -0.3], [0.6, 0.5], [0.4, -0.8]], dtype=torch.float64),
    torch.tensor(
        [[[0.04, 0.03], [0.03, 0.05]], [[0.02, 0.0], [0.0, 0.09]], [[0.01, 0.0], [0.0, 0.01]]], dtype=torch.float64
    ),
)

_VALUES, _VECTORS = torch.linalg.eigh(MIXTURE.covariance())
OUTLINE = GaussianFlow(MIXTURE.mean(), _VECTORS, _VALUES)  # the Gaussian with the mixture's mean and covariance
TARGETS = MIXTURE.sample(Rng([9], 50, dtype=torch.float64))
SAMPLERS = (
    DDPM(20), DDPM(20, "fixedlarge"), DDIM(20), DDIM(20, eta=0.5), Euler(20), Heun(10), Heun(10, Uniform()),
    DPMSolver(20, 1), DPMSolver(10, 2), DPMSolver(7, 3), DPMSolver(10, 2, Uniform()),
    DPMSolverPP(20), DPMSolverPP(10, "2S"), DPMSolverPP(20, "3M"), DPMSolverPP(20, grid=Karras()),
    PredictorCorrector(10), PredictorCorrector(10, step="level"), PredictorCorrector(10, 0),
    DLG(MIXTURE, samples=2, skip=2, steps=3, burn=2, levels=20), DLG(MIXTURE, skip=2, burn=2, levels=20, draw="argmax"),
    DPMOT(Expressway.fit(TARGETS, 0.2, Rng([1], 200, dtype=torch.float64), 20)),
    ReverseSDE(20), ReverseSDE(20, 0.5, Karras()), Outline(OUTLINE, steps=10),
)  # fmt: skip
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)


def rng(rows: int = 1, seed: int = 0) -> Rng:
    return Rng([seed], rows, dtype=torch.float64)


def on_gaussian(schedule: Schedule) -> DiffusionPrior:
    return DiffusionPrior(gaussian(MEAN, VARIANCE), schedule, (3,))


def standard(schedule: Schedule) -> DiffusionPrior:
    one = torch.ones((), dtype=torch.float64)
    return DiffusionPrior(gaussian(one[None] * 0, one), schedule, (1,))


def flow_error(sampler: Solver, schedule: Schedule) -> float:
    """Root mean square distance of the sampler's end point from that of the exact flow."""
    prior, top = on_gaussian(schedule), schedule.at(1.0)
    z = prior.initial(rng(8)) / top.alpha  # the very noise the sampler starts from
    exact = MEAN + (z - MEAN) * (VARIANCE / (VARIANCE + top.noise**2)).sqrt()
    return float((sampler(None, prior, rng(8)) - exact).square().mean().sqrt())


def error_before_the_image(sampler: Solver, schedule: Schedule) -> float:
    """The same at the last positive level of a LogSNR grid: the step from there to the image is always of order 1."""
    prior, top, low = on_gaussian(schedule), schedule.at(1.0), sampler.grid.noise_min
    z = prior.initial(rng(8)) / top.alpha
    exact = MEAN + (z - MEAN) * ((VARIANCE + low**2) / (VARIANCE + top.noise**2)).sqrt()
    return float((list(sampler.run(None, prior, rng(8)))[-2].x - exact).square().mean().sqrt())


def order(make, schedule: Schedule, steps=(64, 128, 256, 512), error=flow_error) -> float:
    """Slope of log error against log step, by least squares."""
    x = torch.tensor([-math.log(n) for n in steps])
    y = torch.tensor([math.log(error(make(n), schedule)) for n in steps])
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_ddim_is_euler_on_the_probability_flow(schedule):
    a, b = DDIM(17)(None, on_gaussian(schedule), rng(8)), Euler(17)(None, on_gaussian(schedule), rng(8))
    assert float((a - b).abs().max()) < 1e-11  # rounding at noise levels of up to 1000


def test_order_of_convergence():
    flow = Flow(end=0.99)
    assert abs(order(Euler, flow) - 1) < 0.2
    assert abs(order(DDIM, flow) - 1) < 0.2
    assert abs(order(lambda n: Heun(n, Uniform()), flow) - 2) < 0.15
    # the last step of the Karras grid leaves noise_min^2 / 2c: kept below the error that is measured
    assert abs(order(lambda n: Heun(n, Karras(noise_min=1e-5)), VP(), steps=(32, 64, 128, 256)) - 2) < 0.15


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_dpm_solver_1_is_ddim(schedule):
    a, b = (f(None, on_gaussian(schedule), rng(8)) for f in (DDIM(17), DPMSolver(17, 1, Uniform())))
    assert float((a - b).abs().max()) < 1e-11  # rounding at noise levels of up to 1000


@pytest.mark.parametrize("k", [1, 2, 3])
def test_order_of_dpm_solver(k):
    slope = order(lambda n: DPMSolver(n, k), VP(), steps=(128, 256, 512), error=error_before_the_image)
    assert abs(slope - k) < 0.2


@pytest.mark.parametrize(("variant", "k"), [("2S", 2), ("2M", 2), ("3M", 3)])
def test_order_of_dpm_solver_pp(variant, k):
    """Down to 0.3 only: integrated down to the image, the leading error of 3M cancels on any Gaussian (chapter 2.2)."""
    slope = order(lambda n: DPMSolverPP(n, variant, LogSNR(0.3)), VP(), (128, 256, 512), error_before_the_image)
    assert abs(slope - k) < 0.2


def test_heun_on_a_grid_uniform_in_time_of_a_vp_schedule_is_first_order():
    """sigma ~ sqrt(t) near 0, so the last Euler step has an error of order 1 / steps: see the header of ode.py."""
    slope = order(lambda n: Heun(n, Uniform()), VP(), steps=(256, 512, 1024))
    assert abs(slope - 1) < 0.2


def test_heun_is_algorithm_1_of_edm():
    """Line by line as printed, with sigma(t) = t and s(t) = 1."""
    prior, levels = DiffusionPrior(MIXTURE, VP(), (2,)), Karras()(VP(), 6)
    x = prior.initial(rng(4)) / VP().at(1.0).alpha
    for t, following in pairwise(levels):
        d = (x - MIXTURE(x, torch.tensor(t, dtype=torch.float64))) / t
        new = x + (following - t) * d
        if following != 0:
            d2 = (new - MIXTURE(new, torch.tensor(following, dtype=torch.float64))) / following
            new = x + (following - t) * (d / 2 + d2 / 2)
        x = new
    assert float((Heun(6)(None, prior, rng(4)) - x).abs().max()) < 1e-12 * float(levels[0])


def test_karras_grid_is_equation_5_of_edm():
    grid, top = Karras(rho=7, noise_min=0.01)(VP(), 5), VP().at(1.0).noise
    want = [(top ** (1 / 7) + i / 4 * (0.01 ** (1 / 7) - top ** (1 / 7))) ** 7 for i in range(5)] + [0.0]
    assert grid == pytest.approx(want, rel=1e-12) and len(grid) == 6
    assert grid[-2] == pytest.approx(0.01, rel=1e-9)


def variance_by_recursion(schedule: Schedule, steps: int, eta: float, large: bool = False) -> float:
    """Terminal variance on N(0, 1), where every update is x <- a x + std z, from the textbook forms of a and std."""
    v = schedule.at(1.0).sigma ** 2
    for t, s in schedule.pairs(steps):
        total = t.alpha**2 + t.sigma**2
        gain = t.alpha / total  # E[x_0 | x_t] = gain x_t
        eps = (1 - t.alpha * gain) / t.sigma
        small = s.sigma**2 / t.sigma**2 * (t.sigma**2 - (t.alpha / s.alpha) ** 2 * s.sigma**2)
        std2 = eta**2 * small
        a = s.alpha * gain + math.sqrt(max(0.0, s.sigma**2 - std2)) * eps
        if large:
            std2 = (t.sigma**2 - (t.alpha / s.alpha) ** 2 * s.sigma**2) if s.sigma > 0 else 0.0
        v = a**2 * v + std2
    return v


@pytest.mark.parametrize(
    ("sampler", "eta", "large"),
    [(DDPM(10), 1.0, False), (DDPM(10, "fixedlarge"), 1.0, True), (DDIM(10), 0.0, False), (DDIM(10, 0.5), 0.5, False)],
    ids=str,
)
def test_terminal_variance_is_that_of_the_exact_recursion(sampler, eta, large):
    n = 40_000
    x = sampler(None, standard(VP()), rng(n))
    want = variance_by_recursion(VP(), 10, eta, large)
    error = 5 * math.sqrt(2 / n)  # 5 standard errors of a variance
    assert abs(float(x.var()) / want - 1) < error
    assert abs(want - 1) > error  # far enough from 1 that the recursion is what is tested


def test_ddim_with_eta_zero_is_a_linear_map_with_the_gain_of_the_recursion():
    start = standard(VP()).initial(rng(5))
    gain = math.sqrt(variance_by_recursion(VP(), 50, 0.0)) / VP().at(1.0).sigma
    assert float((DDIM(50)(None, standard(VP()), rng(5)) - gain * start).abs().max()) < 1e-12


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_recursion_tends_to_the_truth(eta):
    """Bias of the terminal variance is of order 1 / steps: ten times the steps, a tenth of it (within 15 %)."""
    bias = [abs(1 - variance_by_recursion(VP(), n, eta)) for n in (400, 4000)]
    assert bias[1] < 0.005 and abs(bias[0] / bias[1] / 10 - 1) < 0.15


def sliced_w2(a: Tensor, b: Tensor, directions: Tensor) -> float:
    """Sliced 2-Wasserstein distance of two samples of the same size."""
    return float(((a @ directions).sort(0).values - (b @ directions).sort(0).values).square().mean().sqrt())


@pytest.mark.parametrize(
    "sampler",
    [
        DDPM(500), DDPM(500, "fixedlarge"), DDIM(200), Euler(200, Karras()), Heun(40), DPMSolver(30), DPMSolver(20, 3),
        DPMSolverPP(60), DPMSolverPP(30, "2S"), DPMSolverPP(60, "3M"), PredictorCorrector(500, 0),
        PredictorCorrector(200, 1, step="level"), ReverseSDE(500, 2.0),
    ],
    ids=repr,
)  # fmt: skip
def test_samples_of_a_mixture_are_as_close_to_it_as_exact_samples(sampler):
    n, angles = 4000, torch.arange(32, dtype=torch.float64) * math.pi / 32
    directions = torch.stack([angles.cos(), angles.sin()])
    exact = [MIXTURE.sample(rng(n, seed)) for seed in range(1, 9)]
    floor = torch.tensor([sliced_w2(a, b, directions) for a, b in pairwise(exact)])
    x = sampler(None, DiffusionPrior(MIXTURE, VP(), (2,)), rng(n))
    distance = sum(sliced_w2(x, e, directions) for e in exact) / len(exact)
    assert distance < float(floor.mean() + 3 * floor.std())


@every_sampler
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_same_rng_same_bits_and_finite(sampler, schedule):
    prior = DiffusionPrior(MIXTURE, schedule, (2,))
    x = sampler(None, prior, rng(3))
    assert bool(x.isfinite().all()) and torch.equal(x, sampler(None, prior, rng(3)))
    assert not torch.equal(x, sampler(None, prior, rng(3, seed=1)))


@every_sampler
def test_a_row_alone_is_the_row_in_a_batch(sampler):
    prior = DiffusionPrior(MIXTURE, VP(), (2,))
    together = sampler(None, prior, Rng([4, 5, 6], dtype=torch.float64))
    for i, seed in enumerate([4, 5, 6]):
        alone = sampler(None, prior, Rng([seed], dtype=torch.float64))
        assert float((alone - together[i : i + 1]).abs().max()) < 1e-10


def length(sampler: Solver) -> int:
    """How many states a sampler shows: DLG one for each sample of the chain, DPM-OT one more for the last denoising."""
    match sampler:
        case DLG():
            return sampler.samples
        case DPMOT():
            return sampler.steps + 1
        case _:
            return sampler.steps


@every_sampler
def test_one_state_a_step_and_the_last_is_the_answer(sampler):
    prior = DiffusionPrior(MIXTURE, VP(), (2,))
    states = list(sampler.run(None, prior, rng(3)))
    assert len(states) == length(sampler) and torch.equal(states[-1].x, sampler(None, prior, rng(3)))
    # the last step ends on the estimate, without noise
    assert float((states[-1].x - states[-1].x0).abs().max()) < 1e-12


def discrete() -> tuple[Tensor, Tensor]:
    """The published chain: betas 1e-4 ... 0.02 over 1000 steps, and alpha-bar."""
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    return beta, (1 - beta).cumprod(0)


def moment(abar: Tensor, i: int) -> Time:
    """Moment i of the published chain; -1 is the image itself."""
    a = 1.0 if i < 0 else float(abar[i])
    return Time((i + 1) / 1000, math.sqrt(a), math.sqrt(1 - a))


@pytest.mark.parametrize("i", [0, 1, 10, 500, 999])
def test_the_bridge_is_ddpm_s_posterior_on_its_own_betas(i):
    """Ho et al., equations 6 and 7, the form that diffusers' DDPMScheduler.step computes."""
    beta, abar = discrete()
    x, x0 = rng(4).normal(3), rng(4, seed=1).normal(3)
    previous = abar[i - 1] if i > 0 else torch.ones((), dtype=torch.float64)
    mean = previous.sqrt() * beta[i] / (1 - abar[i]) * x0 + (1 - beta[i]).sqrt() * (1 - previous) / (1 - abar[i]) * x
    variance = (1 - previous) / (1 - abar[i]) * beta[i]
    got, std = Schedule.bridge(x, x0, moment(abar, i), moment(abar, i - 1))
    assert float((got - mean).abs().max()) < 1e-11  # 1 - abar loses up to 4 digits at i = 0
    assert math.isclose(std**2, float(variance), rel_tol=1e-9, abs_tol=1e-15)
    if i > 0:  # "fixedlarge"
        t, s = moment(abar, i), moment(abar, i - 1)
        assert math.isclose((std * t.sigma / s.sigma) ** 2, float(beta[i]), rel_tol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_the_bridge_is_ddim_s_step_on_a_subsequence(eta):
    """Song et al., equations 12 and 16, the form that diffusers' DDIMScheduler.step computes."""
    _, abar = discrete()
    x, noise = rng(4).normal(3), rng(4, seed=1).normal(3)
    for i, j in pairwise([999, 700, 300, 20, 0]):
        at, before = abar[i], abar[j]
        x0 = (x - (1 - at).sqrt() * noise) / at.sqrt()
        std = eta * ((1 - before) / (1 - at) * (1 - at / before)).sqrt()
        mean = before.sqrt() * x0 + (1 - before - std**2).sqrt() * noise
        got, got_std = Schedule.bridge(x, x0, moment(abar, i), moment(abar, j), eta)
        assert float((got - mean).abs().max()) < 1e-11 * float(x0.abs().max())
        assert math.isclose(got_std, float(std), rel_tol=1e-10)


def test_bad_input_is_one_clear_line():
    with pytest.raises(ValueError, match="variance must be 'fixedsmall' or 'fixedlarge', got 'learned'"):
        DDPM(variance="learned")
    with pytest.raises(ValueError, match=r"eta must lie in \[0, 1\], got 1.5"):
        DDIM(eta=1.5)
    with pytest.raises(ValueError, match="order must be 1, 2 or 3, got 4"):
        DPMSolver(order=4)
    with pytest.raises(ValueError, match="variant must be '2M', '2S' or '3M', got '4M'"):
        DPMSolverPP(variant="4M")
    with pytest.raises(ValueError, match="step must be 'norm' or 'level', got 'batch'"):
        PredictorCorrector(step="batch")
    with pytest.raises(ValueError, match="draw must be 'gibbs' or 'argmax', got 'mean'"):
        DLG(MIXTURE, draw="mean")
    for sampler in (DDPM(0), DDIM(0), Euler(0), Heun(0), DPMSolver(0), DPMSolverPP(0), PredictorCorrector(0)):
        with pytest.raises(ValueError, match="at least one step, got 0"):
            sampler(None, on_gaussian(VP()), rng(2))
