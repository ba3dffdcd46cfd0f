"""Laws of every solver, in float64, on exact priors."""

import inspect
import pkgutil
from importlib import import_module

import pytest
import torch
from members import BLIND, DETERMINISTIC, GRAY, SOLVERS, measurement, mixture, operators, prior, rng

import scoreatlas.solvers
from scoreatlas.bench.catalogue import hypotheses
from scoreatlas.blind import JointPrior
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.identity import Identity
from scoreatlas.operators.inpainting import Inpainting
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.mixture import autoregressive, gaussian
from scoreatlas.schedules import SCHEDULES, VP
from scoreatlas.solvers.base import Solver
from scoreatlas.solvers.guidance.dps import DPS
from scoreatlas.solvers.guidance.pigdm import PiGDM
from scoreatlas.solvers.projection.ddnm import DDNM
from scoreatlas.solvers.projection.ddrm import DDRM
from scoreatlas.solvers.projection.repaint import RePaint

PAIRS = [
    pytest.param(solver, A, id=f"{type(solver).__name__}-{name}")
    for solver in SOLVERS
    for name, A in operators().items()
    if isinstance(A, hypotheses(type(solver)).operator)
]


def diffusion_solvers() -> set[str]:
    """Names of all solvers of the package whose prior is a diffusion prior, or two: in blind problems."""
    found = set()
    for module in pkgutil.walk_packages(scoreatlas.solvers.__path__, "scoreatlas.solvers."):
        for name, cls in inspect.getmembers(import_module(module.name), inspect.isclass):
            base = str(getattr(cls, "__orig_bases__", ""))
            held = "DiffusionPrior" in base or "JointPrior" in base
            if cls.__module__ == module.name and issubclass(cls, Solver) and held:
                found.add(name)
    return found


def test_no_solver_escapes_the_laws():
    """Those of ``BLIND`` are in tests/laws/test_blind.py, and must be of a kind that only blind problems have."""
    assert diffusion_solvers() == {type(s).__name__ for s in [*SOLVERS, *BLIND]}
    assert all(hypotheses(type(s)).prior == (JointPrior,) for s in BLIND)


@pytest.mark.parametrize(("solver", "A"), PAIRS)
def test_rows_are_independent(solver, A):
    """A row alone equals the row in a batch of three: no norm, no random number crosses rows."""
    m, p = measurement(A), prior(A.shape)
    together = solver(m, p, rng(0, 1, 2))
    alone = solver(Measurement(m.y[1:2], A, m.noise), p, rng(1))
    assert torch.isfinite(together).all()
    assert (together[1] - alone[0]).abs().max() < 1e-10


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
def test_same_rng_same_bits(solver):
    m, p = measurement(operators()["box"]), prior()
    assert torch.equal(solver(m, p, rng(0, 1, 2)), solver(m, p, rng(0, 1, 2)))
    same = torch.equal(solver(m, p, rng(0, 1, 2)), solver(m, p, rng(3, 4, 5)))
    assert same == (type(solver) in DETERMINISTIC)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
def test_any_schedule_and_any_noise_give_numbers(solver, schedule):
    p = DiffusionPrior(mixture(), schedule, GRAY)
    for std in (0.0, 1e-4, 3.0):
        assert torch.isfinite(solver(measurement(operators()["box"], std), p, rng(0, 1, 2))).all()


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
def test_states_end_in_the_answer_without_history(solver):
    m, p = measurement(operators()["box"]), prior()
    states = list(solver.run(m, p, rng(0, 1, 2)))
    assert torch.equal(states[-1].x, solver(m, p, rng(0, 1, 2)))
    assert not any(s.x.requires_grad or s.x0.requires_grad for s in states)


def test_zero_residual_is_legal_for_dps():
    p = DiffusionPrior(gaussian(torch.zeros(1, 1, 1, dtype=torch.float64), torch.tensor(0.0)), VP(), (1, 1, 1))
    A = Identity((1, 1, 1), torch.float64)
    x = DPS(steps=3)(Measurement(torch.zeros(1, 1, 1, 1, dtype=torch.float64), A, Gaussian(0.1)), p, rng(0))
    assert x.item() == 0.0


def test_ddnm_plus_without_travel_is_ddrm():
    """Equations 17 and 51 of DDNM+ are equation 8 of DDRM with eta_b = 1; only the first iterate differs.

    On a diagonal operator with noise, run long enough to forget the start: same noise, same sample.
    """
    m, p = measurement(operators()["random"]), prior((3, 8, 8))
    a = DDRM(steps=100, eta=0.85, eta_b=1.0)(m, p, rng(0, 1, 2))
    b = DDNM(steps=100, eta=0.85)(m, p, rng(0, 1, 2))
    assert (a - b).abs().max() < 1e-3  # the starts differ by alpha_1 = 0.007 and are contracted from there


def test_repaint_calls():
    """250 levels, jumps of 10: 250, 1210, 2410, 4810 network calls for r = 1, 5, 10, 20 (official schedule)."""
    for r, calls in ((1, 250), (5, 1210), (10, 2410), (20, 4810)):
        assert sum(s.t < t.t for t, s in VP().travel(250, 10, r)) == calls


def standard_normal(shape: tuple[int, ...]) -> DiffusionPrior:
    one = torch.tensor(1.0, dtype=torch.float64)
    return DiffusionPrior(gaussian(torch.zeros(shape, dtype=torch.float64), one), VP(), shape)


def scalar_problem(n: int):
    """x ~ N(0, 1), y = x + N(0, 0.5^2), repeated n times; exact posterior N(0.8 y, 0.2)."""
    A = Identity((1, 1, 1), torch.float64)
    m = Measurement(torch.full((1, 1, 1, 1), 1.0, dtype=torch.float64), A, Gaussian(0.5)).repeat(n)
    return m, standard_normal((1, 1, 1))


def test_pigdm_is_exact_on_a_standard_normal_prior():
    """With prior_std = 1 its Gaussian for p(x_0 | x_t) is the true one, so only time stepping errs.

    The error is first order in 1 / steps; tolerances are 5 Monte-Carlo standard errors plus 3 / steps.
    """
    n, steps = 20_000, 400
    m, p = scalar_problem(n)
    x = PiGDM(steps=steps)(m, p, rng(0, rows=n)).flatten()
    assert abs(float(x.mean()) - 0.8) < 5 * (0.2 / n) ** 0.5 + 3 / steps
    assert abs(float(x.var()) / 0.2 - 1) < 5 * (2 / n) ** 0.5 + 3 / steps


def test_ddrm_keeps_too_little_variance():
    """Renewing eta of the total noise each step leaves eta^2 / (2 (1 - sqrt(1 - eta^2))) of the prior variance.

    0.763 at eta = 0.85 in the limit of many steps, on coordinates that the data do not see.
    """
    n, eta = 20_000, 0.85
    mask = torch.tensor([True, False]).reshape(1, 1, 2)
    p = standard_normal((1, 1, 2))
    m = Measurement(torch.zeros(1, 1, dtype=torch.float64), Inpainting(mask, torch.float64), Gaussian(0.1)).repeat(n)
    x = DDRM(steps=1000, eta=eta)(m, p, rng(0, rows=n))[:, 0, 0, 1]
    limit = eta**2 / (2 * (1 - (1 - eta**2) ** 0.5))
    assert abs(float(x.var()) / limit - 1) < 5 * (2 / n) ** 0.5 + 0.01  # 0.01: what 1000 steps lack of infinity


def test_repaint_with_resampling_moves_towards_the_posterior():
    """AR(1), 10 of 16 seen: the error of the mean falls several-fold from r = 1 to r = 10."""
    g, n = autoregressive(16, 0.9), 400
    g.shape = (1, 4, 4)
    mask = (torch.arange(16) < 10).reshape(1, 4, 4)
    A = Inpainting(mask, torch.float64)
    m = Measurement(A(g.sample(rng(5))), A, Gaussian(1e-2))
    exact, p = g.posterior(m).mean(), DiffusionPrior(g, VP(), (1, 4, 4))

    def error(r: int) -> float:
        x = RePaint(steps=100, jump=10, resample=r)(m.repeat(n), p, rng(0, rows=n))
        return float((x.mean(0) - exact).square().sum())

    assert error(10) < 0.3 * error(1)


def test_mixture_posterior_is_reached_only_by_what_claims_it():
    """A solver that ignored the data would have a residual of prior size: all must fit within 3 sigma_y.

    DPS is excused: its step does not know sigma_y.
    """
    A = operators()["random"]
    m = measurement(A, 0.2)
    for solver in SOLVERS:
        if isinstance(solver, DPS):
            continue
        big = type(solver)(steps=60)
        x = big(m, prior(A.shape), rng(0, 1, 2))
        residual = (m.y - A(x)).square().mean(1).sqrt() / 0.2
        assert (residual < 3).all(), (type(solver).__name__, residual)
