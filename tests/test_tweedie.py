"""The dictionary and the second order, float64, against autodiff, exact mixtures and quadrature."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from scoreatlas.priors.mixture import GaussianMixture
from scoreatlas.rng import Rng
from scoreatlas.schedules import SCHEDULES, VP, Flow, Time
from scoreatlas.tweedie import (
    FROM_X0,
    TO_X0,
    asymmetry,
    convert,
    covariance_action,
    flow_from_x0,
    jacobian,
    jvp,
    mixture_noise_mean,
    noise_from_score,
    principal_directions,
    score_from_noise,
    second_order_residual,
    v_from_x0,
    vjp,
)

N, B, SIGMA = 6, 4, 0.6


def normal(*shape: int, seed: int = 0) -> Tensor:
    return Rng([seed], rows=shape[0], dtype=torch.float64).normal(*shape[1:])


ROOT = normal(3, N, N, seed=1)
PRIOR = GaussianMixture(torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64), normal(3, 2, 3), 0.1 * ROOT @ ROOT.mT)
X = normal(B, 2, 3, seed=2)
MOMENTS = [schedule.at(t) for schedule in SCHEDULES for t in (0.02, 0.5, 0.95)]
every_moment = pytest.mark.parametrize("t", MOMENTS, ids=str)


def close(a: Tensor, b: Tensor, tolerance: float) -> None:
    assert float((a - b).abs().max()) <= tolerance * float(b.abs().max())


@every_moment
def test_every_translation_and_back(t):
    """x0 enters x_t with weight alpha: reading it back from noise or score costs a factor sigma / alpha in rounding."""
    x0, noise = normal(B, N), normal(B, N, seed=1)
    x = t.alpha * x0 + t.sigma * noise
    loss = 1e-15 * 10 * max(1.0, t.noise)
    truth = {name: FROM_X0[name](x, x0, t) for name in FROM_X0}
    close(truth["noise"], noise, 1e-15 * 100 * max(1.0, 1 / t.noise))
    for source, target in product(TO_X0, FROM_X0):
        got = convert(truth[source], x, t, source, target)
        close(got, truth[target], 100 * loss * max(1.0, 1 / t.noise))


@every_moment
def test_the_score_is_the_gradient_of_the_density_of_x_t(t):
    """p_t(x) = alpha^-n p(x / alpha; sigma / alpha), differentiated by autodiff."""
    x = (t.alpha * PRIOR.sample(Rng([5], rows=B, dtype=torch.float64)) + t.sigma * X).requires_grad_()
    density = PRIOR.log_prob(x / t.alpha, t.noise) - N * math.log(t.alpha)
    want = torch.autograd.grad(density.sum(), x)[0]
    x = x.detach()
    x0 = PRIOR(x / t.alpha, torch.tensor(t.noise, dtype=torch.float64))
    close(convert(x0, x, t, "x0", "score"), want, 1e-9)
    close(convert(want, x, t, "score", "x0"), x0, 1e-9)
    close(score_from_noise(convert(x0, x, t, "x0", "noise"), t), want, 1e-9)
    close(noise_from_score(want, t), convert(x0, x, t, "x0", "noise"), 1e-9)


def test_v_is_the_velocity_along_the_circle():
    """VP: alpha = cos phi, sigma = sin phi, v = dx / dphi (Salimans & Ho, appendix D)."""
    x0, noise, phi = normal(B, N), normal(B, N, seed=1), torch.tensor(0.7, dtype=torch.float64)
    x, want = torch.func.jvp(lambda p: p.cos() * x0 + p.sin() * noise, (phi,), (torch.ones_like(phi),))
    close(v_from_x0(x, x0, Time(0.5, math.cos(0.7), math.sin(0.7))), want, 1e-14)


def test_flow_is_the_velocity_along_the_straight_line():
    """Flow: x = (1 - tau) x0 + tau noise, u = dx / dtau."""
    x0, noise, tau = normal(B, N), normal(B, N, seed=1), torch.tensor(0.7, dtype=torch.float64)
    x, want = torch.func.jvp(lambda p: (1 - p) * x0 + p * noise, (tau,), (torch.ones_like(tau),))
    close(flow_from_x0(x, x0, Time(0.7, 0.3, 0.7)), want, 1e-14)
    assert Flow(end=1.0).at(0.7)[1:] == pytest.approx((0.3, 0.7), rel=1e-15)


def test_an_unknown_quantity_is_refused():
    with pytest.raises(KeyError, match="velocity"):
        convert(X, X, VP().at(0.5), "velocity", "x0")


def test_jacobian_products_agree_with_the_matrix():
    j, v = jacobian(PRIOR, X, SIGMA), normal(B, 2, 3, seed=3)
    close(jvp(PRIOR, X, SIGMA, v).flatten(1), torch.einsum("bij,bj->bi", j, v.flatten(1)), 1e-12)
    close(vjp(PRIOR, X, SIGMA, v).flatten(1), torch.einsum("bji,bj->bi", j, v.flatten(1)), 1e-12)


def test_covariance_action_is_the_exact_covariance():
    sigma, v = torch.tensor([0.1, 0.5, 1.0, 3.0], dtype=torch.float64), normal(B, 2, 3, seed=3)
    want = torch.einsum("bij,bj->bi", PRIOR.denoising_covariance(X, sigma), v.flatten(1))
    close(covariance_action(PRIOR, X, sigma, v).flatten(1), want, 1e-9)


def test_the_jacobian_of_a_posterior_mean_is_symmetric():
    assert float(asymmetry(PRIOR, X, SIGMA, normal(5, B, 2, 3)).max()) < 1e-12


def test_asymmetry_of_a_known_matrix():
    """Orthonormal probes give the Frobenius norms exactly, not on average."""
    w = normal(N, N, seed=4)
    linear = lambda x, sigma: x @ w.T  # noqa: E731
    probes = torch.linalg.qr(normal(N, N, seed=5)).Q[:, None, :]
    want = (w - w.T).norm() / w.norm()
    close(asymmetry(linear, normal(1, N), SIGMA, probes), want[None], 1e-12)


def test_second_order_predicts_the_error_of_the_exact_denoiser():
    n = 20_000
    rng = Rng([6], rows=n, dtype=torch.float64)
    r = second_order_residual(PRIOR, PRIOR.sample(rng), SIGMA, rng, probes=2)
    for estimate in (r.predicted, r.sure):
        gap = r.error - estimate
        assert abs(float(gap.mean())) < 5 * float(gap.std()) / math.sqrt(n)  # 5 standard errors


def test_only_sure_predicts_the_error_of_a_wrong_denoiser():
    n = 20_000
    rng = Rng([6], rows=n, dtype=torch.float64)
    r = second_order_residual(lambda x, sigma: 0.9 * PRIOR(x, sigma), PRIOR.sample(rng), SIGMA, rng)
    gap = r.error - r.sure
    assert abs(float(gap.mean())) < 5 * float(gap.std()) / math.sqrt(n)
    gap = r.error - r.predicted
    assert abs(float(gap.mean())) > 20 * float(gap.std()) / math.sqrt(n)


def test_principal_directions_are_the_leading_eigenvectors():
    x = X[[0, 1, 3]]  # the second and third eigenvalue of row 2 are nearly equal
    exact = PRIOR.denoising_covariance(x, SIGMA)
    variances, vectors = torch.linalg.eigh(exact)
    # angles shrink by lambda_3 / lambda_2 a step and errors of eigenvalues are squares of angles
    steps, ratio = 100, float((variances[:, -3] / variances[:, -2]).max())
    found = principal_directions(PRIOR, x, SIGMA, 2, Rng([0, 1, 2], dtype=torch.float64), steps)
    close(found.variances, variances.flip(1)[:, :2], 1e-12 + 10 * ratio ** (2 * steps))
    overlap = (found.directions.flatten(2) @ vectors.flip(2)[:, :, :2]).abs()
    close(overlap, torch.eye(2, dtype=torch.float64).expand(3, 2, 2), 1e-12 + 10 * ratio**steps)
    assert ratio**steps < 1e-2  # so that the bound means something


def test_mixture_noise_against_quadrature():
    """One pixel: E[x | y] by integration over x of prior times the mixture of noise densities."""
    prior = GaussianMixture(*(torch.tensor(v, dtype=torch.float64) for v in ([0.3, 0.7], [[-2.0], [1.5]], [0.25, 0.5])))
    weights, stds = (0.8, 0.2), (0.3, 2.0)
    x = torch.linspace(-14, 14, 20_001, dtype=torch.float64)
    y = torch.linspace(-5, 5, 11, dtype=torch.float64)
    noise = sum(
        w / (s * math.sqrt(2 * math.pi)) * (-((y[:, None] - x) ** 2) / (2 * s**2)).exp()
        for w, s in zip(weights, stds, strict=True)
    )
    joint = noise * prior.log_prob(x[:, None]).exp()
    want = (joint * x).sum(1) / joint.sum(1)  # the trapezoidal rule is exact to rounding for such densities
    close(mixture_noise_mean(prior, y[:, None], weights, stds)[:, 0], want, 1e-9)


def test_mixture_noise_of_one_level_is_tweedie():
    close(mixture_noise_mean(PRIOR, X, [1.0], [SIGMA]), PRIOR(X, torch.tensor(SIGMA, dtype=torch.float64)), 1e-12)


def test_bad_noise_mixtures_are_refused():
    with pytest.raises(ValueError, match="as many positive weights as positive stds"):
        mixture_noise_mean(PRIOR, X, [0.5, 0.5], [1.0])
    with pytest.raises(ValueError, match="as many positive weights as positive stds"):
        mixture_noise_mean(PRIOR, X, [0.5, 0.5], [1.0, 0.0])
