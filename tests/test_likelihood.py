"""log p by the flow against densities that are known."""

import math

import pytest
import torch

from scoreatlas.gauge import Scaled, Stirred
from scoreatlas.likelihood import (
    Exact,
    Hutchinson,
    bits_per_dimension,
    gaussian_terminal,
    log_likelihood,
    signs,
)
from scoreatlas.priors.mixture import GaussianMixture, autoregressive, gaussian
from scoreatlas.rng import Rng

MIXTURE = GaussianMixture(
    torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
    torch.tensor([[-0.7, -0.3], [0.6, 0.5], [0.4, -0.8]], dtype=torch.float64),
    torch.tensor(
        [[[0.04, 0.03], [0.03, 0.05]], [[0.02, 0.0], [0.0, 0.09]], [[0.01, 0.0], [0.0, 0.01]]], dtype=torch.float64
    ),
)
TURN = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)


def rng(rows: int, seed: int = 0) -> Rng:
    return Rng([seed], rows, dtype=torch.float64)


def error(denoiser, steps: int = 128, low: float = 0.0, **options) -> float:
    """Largest error in nats over samples of the mixture, with its exact density as terminal."""
    x = MIXTURE.sample(rng(32))
    x = x + low * rng(32, 1).normal_like(x)
    options = {"high": 40.0, "terminal": MIXTURE.log_prob} | options
    found = log_likelihood(denoiser, x, low=low, steps=steps, **options)
    return float((found.log_prob - MIXTURE.log_prob(x, low)).abs().max())


def test_mixture_exactly():
    """Runge-Kutta error at 256 steps: measured 2e-7 nats; the next test shows its order."""
    assert error(MIXTURE, 256) < 1e-6
    assert error(MIXTURE, 256, low=0.1) < 1e-6


def test_order_four():
    slope = math.log2(error(MIXTURE, 128) / error(MIXTURE, 256))
    assert abs(slope - 4) < 0.4


def test_default_terminals_are_wrong_by_the_order_they_should_be():
    """N(0, high^2 I) misses |mean| / high and tr C / high^2; with both moments what is left is anisotropy / high^2."""
    plain = {high: error(MIXTURE, 256, high=high, terminal=gaussian_terminal()) for high in (40.0, 160.0)}
    variance = float(MIXTURE.covariance().diagonal().mean())
    better = gaussian_terminal(MIXTURE.mean(), variance)
    good = {high: error(MIXTURE, 256, high=high, terminal=better) for high in (40.0, 160.0)}
    assert good[160.0] < 1e-4 and good[160.0] < plain[160.0]
    assert good[40.0] / good[160.0] > 8  # order 1 / high^2


def test_a_gauge_field_of_any_size_leaves_the_density_alone_and_a_gradient_error_does_not():
    assert error(Stirred(MIXTURE, 2.0 * TURN), 512) < 1e-6  # the paths are longer, so more steps for the same error
    assert error(Scaled(MIXTURE, 0.1), 128) > 0.1


def test_hutchinson_is_unbiased_with_the_variance_of_the_formula():
    """Linear denoiser J x of an AR(1) Gaussian: mean tr J, variance 2 sum of squares off the diagonal."""
    prior, n, probes = autoregressive(6, 0.8), 6, 20_000
    x = torch.zeros(probes, n, dtype=torch.float64)
    sigma = torch.tensor(0.5, dtype=torch.float64)
    c = prior.covariances[0]
    jacobian = c @ torch.linalg.inv(c + 0.25 * torch.eye(n, dtype=torch.float64))
    estimate = Hutchinson(signs(rng(probes), (n,)))(prior, x, sigma)[1]
    off = jacobian - torch.diag(jacobian.diagonal())
    variance = 2 * float(off.square().sum())
    standard = math.sqrt(variance / probes)
    assert abs(float(estimate.mean()) - float(jacobian.trace())) < 4 * standard
    assert float(estimate.var()) == pytest.approx(variance, rel=0.05)  # relative error sqrt(2 / n) times a kurtosis
    assert float((Exact()(prior, x[:3], sigma)[1] - jacobian.trace()).abs().max()) < 1e-12


def test_hutchinson_is_exact_for_a_diagonal_gaussian():
    variances = torch.tensor([0.1, 1.0, 4.0], dtype=torch.float64)
    prior = gaussian(torch.zeros(3, dtype=torch.float64), variances)
    x = prior.sample(rng(8))
    trace = Hutchinson(signs(rng(8, 1), (3,)))
    found = log_likelihood(prior, x, high=40.0, steps=128, trace=trace, terminal=prior.log_prob)
    assert float((found.log_prob - prior.log_prob(x)).abs().max()) < 1e-6


def test_latent_of_a_gaussian_is_the_closed_form():
    """z(n) = x sqrt((c + n^2) / c), and the volume is the logarithm of the determinant."""
    variances = torch.tensor([0.1, 1.0], dtype=torch.float64)
    prior = gaussian(torch.zeros(2, dtype=torch.float64), variances)
    x = prior.sample(rng(4))
    found = log_likelihood(prior, x, high=10.0, steps=128)
    stretch = ((variances + 100) / variances).sqrt()
    assert float((found.latent / (x * stretch) - 1).abs().max()) < 1e-7
    assert float((found.volume - stretch.log().sum()).abs().max()) < 1e-7


def test_rows_are_alone():
    x = MIXTURE.sample(rng(3))
    together = log_likelihood(MIXTURE, x, steps=16).log_prob
    alone = torch.cat([log_likelihood(MIXTURE, x[i : i + 1], steps=16).log_prob for i in range(3)])
    assert float((together - alone).abs().max()) < 1e-12


def test_bits_of_noise_are_zero():
    """White noise of the level itself: its entropy is log2(sigma sqrt(2 pi e)) per entry; s.e. of 64 x 4096 squares."""
    x = 0.1 * rng(64).normal(4096)
    log_p = (-0.5 * (x / 0.1).square() - math.log(0.1 * math.sqrt(2 * math.pi))).sum(1)
    assert abs(float(bits_per_dimension(log_p, 4096, 0.1).mean())) < 4 / math.log(2) * math.sqrt(0.5 / (64 * 4096))


def test_bad_levels():
    with pytest.raises(ValueError, match="low < high"):
        log_likelihood(MIXTURE, MIXTURE.sample(rng(1)), low=2.0, high=1.0)
