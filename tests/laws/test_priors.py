"""Laws of the exact priors, float64: Tweedie against autodiff, Bayes' rule, moments of the posterior."""

import math

import pytest
import torch
from torch import Tensor

from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Linear
from scoreatlas.priors.diffusion import Denoiser
from scoreatlas.priors.gaussian_field import GaussianField
from scoreatlas.priors.mixture import GaussianMixture, autoregressive, gaussian, grid_mixture
from scoreatlas.rng import Rng
from scoreatlas.tweedie import jacobian

N, K, B = 4, 3, 5
SIGMAS = (0.05, 0.7, 20.0)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return Rng([seed], rows=shape[0], dtype=torch.float64).normal(*shape[1:])


def mixture(form: str) -> GaussianMixture:
    weights, means = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64), 2 * normal(K, 2, 2)
    root = normal(K, N, N, seed=1)
    covariances = {
        "full": 0.3 * root @ root.mT + 0.05 * torch.eye(N, dtype=torch.float64),
        "low rank": root[..., :2] @ root[..., :2].mT,
        "diagonal": normal(K, N, seed=2).square() + 0.05,
        "isotropic": normal(K, 1, seed=3)[:, 0].square() + 0.05,
        "points": torch.zeros(K, dtype=torch.float64),
    }[form]
    return GaussianMixture(weights, means, covariances)


MIXTURES = {form: mixture(form) for form in ("full", "low rank", "diagonal", "isotropic", "points")}
PRIORS = MIXTURES | {
    "gaussian": gaussian(normal(1, N)[0], torch.tensor(0.3, dtype=torch.float64)),
    "autoregressive": autoregressive(N, 0.9),
    "grid": grid_mixture((-16.0, -8.0, 0.0, 8.0, 16.0), N, 1.0, Rng([0], rows=25, dtype=torch.float64).uniform()),
}
DENSITIES = {name: p for name, p in PRIORS.items() if name not in ("low rank", "points")}  # the others have none

every_prior = pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS.keys())
every_density = pytest.mark.parametrize("prior", DENSITIES.values(), ids=DENSITIES.keys())
every_sigma = pytest.mark.parametrize("sigma", SIGMAS)


class Dense(Linear):
    """A matrix as an operator on images of shape s."""

    def __init__(self, a: Tensor, shape: tuple[int, ...]) -> None:
        self.a, self.shape = a, shape

    def __call__(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.a.to(x).T

    def adjoint(self, y: Tensor) -> Tensor:
        return (y @ self.a.to(y)).reshape(-1, *self.shape)


def noisy(prior: GaussianMixture, sigma: float) -> Tensor:
    rng = Rng([4], rows=B, dtype=torch.float64)
    x = prior.sample(rng)
    return x + sigma * rng.normal_like(x)


def measured(prior: GaussianMixture, rows: int = B) -> Measurement[Linear, Gaussian]:
    operator = Dense(normal(2, N, seed=5), prior.shape)
    rng = Rng(range(rows), dtype=torch.float64)
    return Measurement(operator(prior.sample(rng)) + 0.3 * rng.normal(2), operator, Gaussian(0.3))


def gradient(prior: GaussianMixture, x: Tensor, sigma: float) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(prior.log_prob(x, sigma).sum(), x)[0]


@every_prior
@every_sigma
def test_first_order_tweedie(prior, sigma):
    """E[x_0 | x] - x = sigma^2 grad log p_sigma(x): two formulas of the code against autodiff of a third."""
    assert isinstance(prior, Denoiser)
    x = noisy(prior, sigma)
    want = sigma**2 * gradient(prior, x, sigma)
    scale = float(want.abs().max()) + sigma
    assert float((prior(x, torch.tensor(sigma, dtype=torch.float64)) - x - want).abs().max()) < 1e-10 * scale
    assert float((sigma**2 * prior.score(x, sigma) - want).abs().max()) < 1e-10 * scale


@every_prior
@every_sigma
def test_second_order_tweedie(prior, sigma):
    """Cov[x_0 | x] = sigma^2 J, the left side from the mixture, the right side by autodiff of the denoiser."""
    x = noisy(prior, sigma)
    covariance = prior.denoising_covariance(x, sigma)
    scale = float(covariance.abs().max()) + sigma**2 * 1e-6
    assert float((sigma**2 * jacobian(prior, x, sigma) - covariance).abs().max()) < 1e-9 * scale


@every_prior
def test_sigma_may_differ_between_rows(prior):
    sigma = torch.tensor([0.05, 0.3, 0.7, 2.0, 20.0], dtype=torch.float64)
    x = noisy(prior, 1.0)
    for i in range(B):
        alone = prior(x[i : i + 1], sigma[i])
        assert float((prior(x, sigma)[i : i + 1] - alone).abs().max()) < 1e-12 * (1 + float(alone.abs().max()))


@every_prior
def test_limits_of_the_denoiser(prior):
    x = prior.sample(Rng([4], rows=B, dtype=torch.float64))
    tiny = prior(x, torch.tensor(1e-6))
    assert float((tiny - x).abs().max()) < 1e-5  # order sigma
    huge = prior(x, torch.tensor(1e6))
    scale = float(x.abs().max() + prior.mean().abs().max()) ** 3
    assert float((huge - prior.mean()).abs().max()) < 1e-11 * scale  # order |x|^3 / sigma^2


@every_density
def test_posterior_times_evidence_is_prior_times_likelihood(prior):
    m = measured(prior)
    for row in range(B):
        one = Measurement(m.y[row : row + 1].expand(7, -1), m.A, m.noise)
        posterior, rng = prior.posterior(m, row), Rng([6], rows=7, dtype=torch.float64)
        x = posterior.sample(rng)
        x = x + rng.normal_like(x)  # not farther: a component of weight below 1e-300 is held at 1e-300
        left = posterior.log_prob(x) + prior.log_evidence(one)
        right = prior.log_prob(x) + one.log_likelihood(x)
        assert float(((left - right) / right.abs().clamp_min(1)).abs().max()) < 1e-9


@every_prior
def test_posterior_under_a_denoising_measurement_is_the_denoiser(prior):
    """A = I: the conditional mean and covariance, by Bayes' rule, are the denoiser's."""
    x, identity = noisy(prior, 0.7), Dense(torch.eye(N, dtype=torch.float64), prior.shape)
    denoised = prior(x, torch.tensor(0.7, dtype=torch.float64))
    for row in range(B):
        posterior = prior.posterior(Measurement(x.flatten(1), identity, Gaussian(0.7)), row)
        scale = 1 + float(x.abs().max()) ** 2
        assert float((posterior.mean() - denoised[row]).abs().max()) < 1e-10 * scale
        covariance = prior.denoising_covariance(x, 0.7)[row]
        assert float((posterior.covariance() - covariance).abs().max()) < 1e-10 * scale


@every_prior
def test_samples_of_the_posterior_have_its_moments(prior):
    posterior, n = prior.posterior(measured(prior)), 20_000
    x = posterior.sample(Rng([9], rows=n, dtype=torch.float64)).flatten(1)
    error = x.mean(0) - posterior.mean().flatten()
    standard = (posterior.covariance().diagonal() / n).sqrt()
    assert bool((error.abs() <= 5 * standard + 1e-12).all())  # 5 standard errors: one false alarm in 10^6
    d = x - posterior.mean().flatten()
    products = d[:, :, None] * d[:, None, :]
    standard = products.std(0) / math.sqrt(n)
    assert bool(((products.mean(0) - posterior.covariance()).abs() <= 5 * standard + 1e-12).all())


@every_density
def test_the_density_integrates_to_one(prior):
    """Importance sampling from a wider mixture of the same shape; 5 standard errors."""
    n, width = 20_000, 1.0
    rng = Rng([2], rows=n, dtype=torch.float64)
    x = prior.sample(rng)
    x = x + width * rng.normal_like(x)
    ratio = (prior.log_prob(x) - prior.log_prob(x, width)).exp()
    assert abs(float(ratio.mean()) - 1) < 5 * float(ratio.std()) / math.sqrt(n)


@every_density
def test_the_noisy_density_is_the_average_of_gaussians_around_samples(prior):
    n, sigma = 20_000, 2.0
    centres = prior.sample(Rng([3], rows=n, dtype=torch.float64)).flatten(1)
    x = noisy(prior, sigma)
    distance = torch.cdist(x.flatten(1), centres).square()
    kernel = (-distance / (2 * sigma**2)).exp() / (2 * math.pi * sigma**2) ** (N / 2)
    standard = kernel.std(1) / math.sqrt(n)
    assert bool(((kernel.mean(1) - prior.log_prob(x, sigma).exp()).abs() < 5 * standard).all())


@every_sigma
def test_a_gaussian_field_obeys_both_orders(sigma):
    field = GaussianField.power_law((2, 4, 3), exponent=2.0, std=0.6, dtype=torch.float64)
    rng = Rng([4], rows=B, dtype=torch.float64)
    x = (field.sample(rng) + sigma * rng.normal(2, 4, 3)).requires_grad_()
    score = torch.autograd.grad(field.log_prob(x, sigma).sum(), x)[0]
    assert isinstance(field, Denoiser)
    step = field(x.detach(), torch.tensor(sigma, dtype=torch.float64)) - x.detach()
    assert float((step - sigma**2 * score).abs().max()) < 1e-10 * (float(step.abs().max()) + sigma)
    # the covariance of the field as a matrix, column by column; then Gaussian conditioning by dense algebra
    eye = torch.eye(24, dtype=torch.float64)
    shifts = eye.reshape(24, 2, 4, 3)
    power = torch.fft.ifft2(field.spectrum * torch.fft.fft2(shifts)).real.reshape(24, 24)
    covariance = power - power @ torch.linalg.solve(power + sigma**2 * eye, power)
    got = sigma**2 * jacobian(field, x.detach(), sigma)
    assert float((got - covariance).abs().max()) < 1e-9 * float(covariance.abs().max())


def test_bad_mixtures_are_refused():
    w, m = torch.ones(2, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="2 positive numbers"):
        GaussianMixture(torch.tensor([1.0, 0.0]), m, torch.ones(2))
    with pytest.raises(ValueError, match=r"covariances must be \(2, 3, 3\), \(2, 3\) or \(2,\), got \(3,\)"):
        GaussianMixture(w, m, torch.ones(3))
    with pytest.raises(ValueError, match="positive semi-definite"):
        GaussianMixture(w, m, -torch.eye(3, dtype=torch.float64).expand(2, 3, 3))
    with pytest.raises(ValueError, match="sigma_y is 0"):
        PRIORS["full"].posterior(Measurement(torch.zeros(1, N), Dense(torch.eye(N), (2, 2)), Gaussian(0.0)))


def test_posterior_density_is_right_far_from_the_data():
    """25 separated modes, data that all but exclude most: Bayes' rule holds at every mode, in relative 1e-9."""
    weights = torch.linspace(1, 2, 25, dtype=torch.float64)
    prior = grid_mixture((-16, -8, 0, 8, 16), 4, 1.0, weights)
    A = Dense(torch.eye(4, dtype=torch.float64)[:1], (4,))
    x = prior.means
    m = Measurement(torch.full((1, 1), -16.0, dtype=torch.float64), A, Gaussian(0.1))
    left = prior.posterior(m).log_prob(x) + prior.log_evidence(m)
    right = prior.log_prob(x) + m.noise.log_prob(m.y.expand(25, 1), A(x))
    assert float(left.min()) < -1e4  # the far modes are far indeed
    assert torch.allclose(left, right, rtol=1e-9)
