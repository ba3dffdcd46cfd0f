"""Plug-and-play: fixed points in closed form, schedules against the official codes, and what the words promise."""

import math

import numpy as np
import pytest
import torch

from scoreatlas.linalg import norm
from scoreatlas.measurement import Gaussian, Measurement, simulate
from scoreatlas.metrics.lipschitz import jacobian_norm
from scoreatlas.operators.dense import Dense
from scoreatlas.operators.identity import Identity
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.mixture import GaussianMixture, autoregressive
from scoreatlas.rng import Rng
from scoreatlas.schedules import VE, VP
from scoreatlas.solvers.splitting.dpir import DPIR
from scoreatlas.solvers.splitting.pnp_admm import PnPADMM
from scoreatlas.solvers.variational.graikos import Graikos
from scoreatlas.solvers.variational.red import RED
from scoreatlas.tweedie import jacobian

F64 = torch.float64
N = 16
ROUNDING = 1e-9  # fixed points are reached to rounding; condition numbers stay below 1e5


def rng(*seeds: int, rows: int = 1) -> Rng:
    return Rng(seeds, rows, dtype=F64)


GAUSS = autoregressive(N, 0.9)
A = Dense(rng(1, rows=8).normal(N) / 4, (N,))
M = simulate(GAUSS.sample(rng(2)), A, Gaussian(0.1), rng(3))
PRIOR = DiffusionPrior(GAUSS, VP(), (N,))

C, EYE = GAUSS.covariance(), torch.eye(N, dtype=F64)
H = A.matrix().T @ A.matrix() / 0.1**2  # Hessian of the negative log likelihood
B = A.matrix().T @ M.y[0] / 0.1**2
MAP = torch.linalg.solve(H + torch.linalg.inv(C), B)


def admm_point(lambd: float) -> torch.Tensor:
    """MAP under the prior to the power lambda."""
    return torch.linalg.solve(H + lambd * torch.linalg.inv(C), B)


def red_point(sigma: float, lambd: float) -> torch.Tensor:
    """MAP under the prior, blurred by sigma, to the power lambda."""
    return torch.linalg.solve(H + lambd * torch.linalg.inv(C + sigma**2 * EYE), B)


def toy(std: float = 0.5) -> tuple[GaussianMixture, Measurement]:
    """Two modes in one dimension and a reading between them."""
    f = lambda *v: torch.tensor(v, dtype=F64)  # noqa: E731
    mixture = GaussianMixture(f(0.7, 0.3), f([-0.6], [0.7]), f(0.04, 0.09))
    return mixture, Measurement(f([0.1]), Identity((1,), F64), Gaussian(std))


def two_modes() -> DiffusionPrior:
    """A mixture in N dimensions, so that the denoiser is not linear."""
    means = torch.stack([torch.full((N,), -0.5, dtype=F64), torch.linspace(-1, 1, N, dtype=F64)])
    return DiffusionPrior(GaussianMixture(torch.tensor([0.4, 0.6], dtype=F64), means, 0.2 * C[None]), VP(), (N,))


@pytest.mark.parametrize("lambd", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("sigma", [0.1, 1.0])
def test_fixed_points_on_a_gaussian_prior(sigma, lambd):
    """x = D(x + u) with D = C (C + sigma^2)^-1 gives u = sigma^2 C^-1 x; x = z in HQS does not hold, z = D(x) does."""
    point = red_point(sigma, lambd)
    admm = PnPADMM(2000, sigma, lambd)(M, PRIOR, rng(0))[0]
    hqs = DPIR(2000, lambd, sigma, sigma)(M, PRIOR, rng(0))[0]
    red = RED(2000, sigma, lambd)(M, PRIOR, rng(0))[0]
    assert (admm - admm_point(lambd)).abs().max() < ROUNDING
    assert (red - point).abs().max() < ROUNDING
    assert (hqs - C @ torch.linalg.solve(C + sigma**2 * EYE, point)).abs().max() < ROUNDING
    assert norm((admm - hqs)[None]) > 0.03  # the same denoiser, the same rho, another point


def test_admm_is_the_map_at_lambda_one_whatever_sigma_and_at_no_other():
    """For a Gaussian prior the posterior mean is the proximal map of sigma^2 times the negative log prior."""
    exact = GAUSS.posterior(M).mean()
    assert (MAP - exact).abs().max() < ROUNDING
    for sigma in (0.1, 0.3, 1.0):
        assert (PnPADMM(2000, sigma)(M, PRIOR, rng(0))[0] - exact).abs().max() < ROUNDING
    for lambd in (0.5, 2.0):
        off = PnPADMM(2000, 0.3, lambd)(M, PRIOR, rng(0))[0] - exact
        assert norm(off[None]) > 0.05
    for solver in (RED(2000, 0.3), DPIR(2000, 1.0, 0.3, 0.3)):
        assert norm((solver(M, PRIOR, rng(0))[0] - exact)[None]) > 0.2  # biased although lambda is 1


def test_the_point_of_hqs_depends_on_rho_and_tends_to_the_map_with_sigma():
    """Error of first order in sigma^2 at lambda = 1, so a tenth of sigma is about a hundredth of the error."""
    points = [C @ torch.linalg.solve(C + s**2 * EYE, red_point(s, 1.0)) for s in (0.1, 0.01)]  # see the test above
    error = [float(norm((x - MAP)[None])) for x in points]
    assert 50 < error[0] / error[1] < 150
    two = [DPIR(2000, lambd, 0.3, 0.3)(M, PRIOR, rng(0)) for lambd in (1.0, 2.0)]
    assert norm(two[0] - two[1]) > 0.05


def test_reds_fixed_point_strategy_is_hqs_at_one_level():
    """The same numbers to rounding, on a prior whose denoiser is not linear: HQS's data step is RED's iterate."""
    p = two_modes()
    hqs = [s.x0 for s in DPIR(9, 0.7, 0.4, 0.4).run(M, p, rng(0))]
    red = [s.x for s in RED(8, 0.4, 0.7).run(M, p, rng(0))]
    for a, b in zip(hqs[1:], red, strict=True):
        assert (a - b).abs().max() < 1e-12


@pytest.mark.parametrize("descent", [False, True])
def test_red_with_the_posterior_mean_finds_a_mode_under_the_blurred_prior(descent):
    """By Tweedie's formula; the score of the mixture comes from its own formula, not from the denoiser."""
    p, sigma = two_modes(), 0.3
    x = RED(4000, sigma, descent=descent)(M, p, rng(0))
    gradient = A.adjoint(A(x) - M.y) / 0.1**2 - p.denoiser.score(x, sigma)
    assert gradient.abs().max() < 1e-6 * A.adjoint(M.y / 0.1**2).abs().max()


def test_red_does_not_minimise_its_objective_if_the_jacobian_is_not_symmetric():
    """Reehorst & Schniter (2019): D = W x solves with W where the objective's minimiser has (W + W^T) / 2."""
    w = 0.5 * EYE + 0.3 * torch.diag(torch.ones(N - 1, dtype=F64), 1)
    p, rho = DiffusionPrior(lambda x, sigma: x @ w.T, VP(), (N,)), 1 / 0.3**2
    followed = torch.linalg.solve(H + rho * (EYE - w), B)
    written = torch.linalg.solve(H + rho * (EYE - (w + w.T) / 2), B)
    for solver in (RED(3000, 0.3), RED(20_000, 0.3, descent=True)):
        assert (solver(M, p, rng(0))[0] - followed).abs().max() < 1e-7
    assert norm((followed - written)[None]) > 0.1


def inverse(mixture: GaussianMixture, x: float, sigma: float) -> float:
    """D^-1 by bisection in one dimension, where D rises."""
    low, high = -1e4, 1e4
    for _ in range(200):
        middle = (low + high) / 2
        value = float(mixture(torch.tensor([[middle]], dtype=F64), torch.tensor(sigma, dtype=F64)))
        low, high = (middle, high) if value < x else (low, middle)
    return (low + high) / 2


@pytest.mark.parametrize("sigma", [0.2, 0.5, 2.0])
def test_admm_minimises_with_gribonvals_regulariser(sigma):
    """D is the proximal map of phi with phi'(x) = D^-1(x) - x, so f' + phi' / sigma^2 vanishes at the fixed point."""
    mixture, m = toy()
    x = PnPADMM(3000, sigma)(m, DiffusionPrior(mixture, VP(), (1,)), rng(0))
    data = float(x - m.y) / 0.5**2
    assert abs(data + (inverse(mixture, float(x), sigma) - float(x)) / sigma**2) < 1e-8


def entropic(mixture: GaussianMixture, m: Measurement) -> float:
    """argmin f + kappa*, kappa* the Legendre transform of kappa(s) = log E exp(s x): f'(x) = -s at x = kappa'(s)."""
    w, mean, v = mixture.weights, mixture.means[:, 0], mixture.variances[:, 0]
    low, high = -100.0, 100.0
    for _ in range(200):
        s = (low + high) / 2
        tilted = (w.log() + s * mean + s**2 * v / 2).softmax(0)
        x = float((tilted * (mean + s * v)).sum())
        low, high = (s, high) if x < float(m.y) - m.noise.std**2 * s else (low, s)
    return x


def test_admm_goes_from_the_map_to_maximum_entropy_on_the_mean_and_red_to_the_data():
    """sigma -> 0 and sigma -> infinity at lambda = 1; errors of order sigma^2 and 1 / sigma^2."""
    mixture, m = toy()
    p = DiffusionPrior(mixture, VP(), (1,))
    grid = torch.linspace(-2, 2, 400_001, dtype=F64)[:, None]
    mode = float(grid[(mixture.log_prob(grid) - (grid[:, 0] - m.y[0]) ** 2 / (2 * 0.5**2)).argmax()])
    assert abs(float(PnPADMM(5000, 0.05)(m, p, rng(0))) - mode) < 0.02
    assert abs(float(RED(5000, 0.05)(m, p, rng(0))) - mode) < 0.02
    assert abs(float(PnPADMM(8000, 12.0)(m, p, rng(0))) - entropic(mixture, m)) < 0.001
    assert abs(float(RED(300, 50.0)(m, p, rng(0))) - float(m.y)) < 1e-3


class Recorded:
    """A denoiser that keeps the levels it was told."""

    def __init__(self) -> None:
        self.levels: list[float] = []

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        self.levels.append(float(sigma))
        return x


def test_dpir_has_the_official_levels():
    """``get_rho_sigma`` of the official code: 49 to sigma_y grey levels, rho = 0.23 sigma_y^2 / sigma^2."""
    for grey in (2.55, 7.65):
        record = Recorded()
        m = Measurement(M.y, A, Gaussian(grey / 127.5))
        states = list(DPIR(8).run(m, DiffusionPrior(record, VP(), (N,)), rng(0)))
        official = np.logspace(np.log10(49), np.log10(grey), 8) / 255
        assert np.allclose(np.array(record.levels) / 2, official, rtol=1e-12)
        alpha = 0.23 * (grey / 255) ** 2 / official**2
        z = states[2].x  # the identity denoised nothing: z = x of the step before
        lhs = A.adjoint(A(states[3].x0)) + alpha[3] * states[3].x0
        assert (lhs - (A.adjoint(m.y) + alpha[3] * z)).abs().max() < ROUNDING


def test_admm_raises_rho_by_gamma():
    record = Recorded()
    PnPADMM(5, 0.4, gamma=1.21)(M, DiffusionPrior(record, VP(), (N,)), rng(0))
    assert np.allclose(record.levels, 0.4 / 1.1 ** np.arange(5), rtol=1e-12)  # sigma = sqrt(lambda / rho)


def test_graikos_has_the_official_levels():
    """``t = ((S - i) + (S - i) // 4 * cos(i / 50)) / S * T`` of the official notebook, clipped to 1 ... T = 1000."""
    official = [min(max(int((1000 - i) + (1000 - i) // 4 * math.cos(i / 50)), 1), 1000) for i in range(1000)]
    ours = [1000 * Graikos(1000).time(i) for i in range(1000)]
    assert max(abs(a - b) for a, b in zip(official, ours, strict=True)) < 2.01  # both round down, to 1 and to 1 / 4


def graikos_point(prior: DiffusionPrior, solver: Graikos, hessian: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Optimum of F for a centred Gaussian: E |eps - eps_hat|^2 = nu^2 |(C + nu^2)^-1 eta|^2 + constant."""
    c, eye = prior.denoiser.covariance(), torch.eye(len(b), dtype=F64)
    for nu in (prior.schedule.at(solver.time(i)).noise for i in range(solver.steps)):
        inverted = torch.linalg.inv(c + nu**2 * eye)
        hessian = hessian + 2 * solver.weight / solver.steps * nu**2 * inverted @ inverted
    return torch.linalg.solve(hessian, b)


@pytest.mark.parametrize("schedule", [VP(), VE()], ids=["VP", "VE"])
def test_graikos_finds_the_optimum_of_its_objective(schedule):
    """Mean of 400 runs from different starts; the tolerance is twice what a correct run of this length left, 0.004."""
    g = autoregressive(4, 0.5)
    m = simulate(g.sample(rng(5)), Identity((4,), F64), Gaussian(0.5), rng(6))
    p, solver = DiffusionPrior(g, schedule, (4,)), Graikos(2000, 1.5, 40.0, annealed=False)
    x = solver(m.repeat(400), p, rng(7, rows=400)).mean(0)
    point = graikos_point(p, solver, EYE[:4, :4] / 0.5**2, m.y[0] / 0.5**2)
    assert (x - point).abs().max() < 0.008
    assert (
        point - g.posterior(m).mean()
    ).abs().max() > 0.03  # not the MAP: the weights are not those of the likelihood


def test_levels_spread_evenly_in_log_sigma_make_graikos_objective_the_log_prior():
    """The integral of nu^2 (c + nu^2)^-2 over d log nu is 1 / (2 c); VE spans log 5000, evenly above sigma_min."""
    solver = Graikos(4000, math.log(5000), annealed=False)
    point = graikos_point(DiffusionPrior(GAUSS, VE(), (N,)), solver, H, B)
    flat = graikos_point(DiffusionPrior(GAUSS, VP(), (N,)), solver, H, B)
    assert norm((point - MAP)[None]) < 0.005 < 0.1 < norm((flat - MAP)[None])


@pytest.mark.parametrize("residual", [False, True])
def test_spectral_norm_of_the_jacobian(residual):
    p = two_modes()
    x = p.denoiser.sample(rng(8, 9, 10))
    j = jacobian(p.denoiser, x, 0.3)
    dense = torch.linalg.matrix_norm(EYE - j if residual else j, 2)
    found = jacobian_norm(p.denoiser, x, 0.3, rng(11, 12, 13), 200, residual)
    assert (found < dense * (1 + 1e-9)).all()  # always from below
    assert (found > dense * 0.99).all()  # eigenvalues of I - J crowd at its top: 200 products leave 0.3 %
