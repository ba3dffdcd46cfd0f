"""Photon noise against scipy, and what is said of its Gaussian stand-ins. Float64."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from scoreatlas.measurement import Measurement
from scoreatlas.operators.phase import FourierIntensity
from scoreatlas.poisson import Poisson, anscombe, counts, stabilised
from scoreatlas.rng import Rng

F64 = torch.float64


@pytest.mark.parametrize("mean", [0.0, 1e-3, 0.3, 1.0, 4.0, 37.5, 1e3, 1e6])
def test_counts_invert_the_distribution_function(mean):
    u = torch.tensor([1e-9, 0.01, 0.2, 0.5, 0.77, 0.99, 1 - 1e-9], dtype=F64)
    found = counts(u, torch.full_like(u, mean)).numpy()
    assert np.array_equal(found, stats.poisson.ppf(u.numpy(), mean))


def test_samples_have_the_moments_of_photon_noise():
    """Mean and variance within 5 standard errors; the fourth central moment of a Poisson is k (1 + 3 k)."""
    n, peak = 20_000, 30.0
    clean = torch.tensor([0.0, 0.02, 0.5, 3.0], dtype=F64)
    y = Poisson(peak).sample(clean.expand(n, 4), Rng([0], n, dtype=F64))
    k = peak * clean
    assert torch.equal((peak * y).round(), (peak * y)) or torch.allclose((peak * y).round(), peak * y, atol=1e-9)
    assert ((y.mean(0) - clean).abs() <= 5 * (k / n).sqrt() / peak).all()
    spread = (y.var(0) * peak**2 - k).abs()
    assert (spread <= 5 * ((k * (1 + 3 * k) - k**2) / n).sqrt() + 1e-12).all()


def test_rows_are_drawn_on_their_own():
    clean = Rng([9], 3, dtype=F64).uniform(5)
    together = Poisson(10.0).sample(clean, Rng([0, 1, 2], dtype=F64))
    assert torch.equal(together[1:2], Poisson(10.0).sample(clean[1:2], Rng([1], dtype=F64)))
    single = Poisson(10.0).sample(clean.float(), Rng([0, 1, 2]))
    assert single.dtype == torch.float32


def test_log_prob_is_that_of_scipy():
    peak, clean = 7.0, torch.tensor([[0.0, 0.3, 2.0], [1.0, 0.01, 40.0]], dtype=F64)
    k = torch.tensor([[0.0, 4.0, 11.0], [9.0, 0.0, 300.0]], dtype=F64)
    found = Poisson(peak).log_prob(k / peak, clean)
    expected = stats.poisson.logpmf(k.numpy(), peak * clean.numpy()).sum(1)
    assert np.allclose(found.numpy(), expected, rtol=1e-12)
    assert Poisson(peak).log_prob(torch.full((1, 1), 1 / peak, dtype=F64), torch.zeros(1, 1, dtype=F64)) == -math.inf


def test_the_likelihood_of_a_measurement():
    A = FourierIntensity((1, 4, 4))
    x = 2 * Rng([0, 1], dtype=F64).uniform(1, 4, 4) - 1
    m = Measurement(Poisson(50.0).sample(A(x), Rng([2, 3], dtype=F64)), A, Poisson(50.0))
    expected = stats.poisson.logpmf((50 * m.y).round().numpy(), 50 * A(x).numpy()).sum((1, 2, 3))
    assert np.allclose(m.log_likelihood(x).numpy(), expected, rtol=1e-10)


def test_the_gaussian_of_dps_is_right_for_many_photons_only():
    """Mean difference of the two log probabilities of one datum, exactly, under the Poisson law: O(1 / mean).

    And finite for no photons, where a variance of y would divide by 0.
    """

    def gap(mean: float) -> float:
        k = torch.arange(0, int(mean + 40 * math.sqrt(mean) + 40), dtype=F64)[:, None]
        p = torch.from_numpy(stats.poisson.pmf(k.numpy(), mean))[:, 0]
        expected = torch.full_like(k, mean)
        noise = Poisson(1.0)
        return float((p * (noise.log_prob(k, expected) - noise.surrogate_log_prob(k, expected))).sum())

    gaps = [gap(mean) for mean in (10.0, 100.0, 1000.0)]
    assert all(g > 0 for g in gaps)
    assert 0.05 < gaps[1] / gaps[0] < 0.15 and 0.08 < gaps[2] / gaps[1] < 0.12
    assert torch.isfinite(Poisson(1.0).surrogate_log_prob(torch.zeros(1, 1, dtype=F64), torch.ones(1, 1, dtype=F64)))


def test_anscombe_stabilises_the_variance():
    """Anscombe: variance 1 + 1 / (16 mean^2) + O(mean^-3), from the exact probabilities."""
    for mean in (20.0, 50.0, 200.0):
        k = np.arange(0, int(mean + 40 * math.sqrt(mean)))
        p = stats.poisson.pmf(k, mean)
        t = anscombe(torch.from_numpy(k.astype(float))).numpy()
        variance = (p * t**2).sum() - (p * t).sum() ** 2
        assert abs(variance - 1 - 1 / (16 * mean**2)) < 2 / mean**3


def test_stabilised_amplitudes():
    """Std 1 / (2 sqrt(peak)) and mean sqrt(clean + 1 / (8 peak)), to 5 standard errors and 1 / mean^2."""
    n, noise, clean = 40_000, Poisson(100.0), 0.4
    y = noise.sample(torch.full((n, 1), clean, dtype=F64), Rng([0], n, dtype=F64))
    amplitude, gaussian = stabilised(y, noise)
    assert gaussian.std == 0.05
    assert abs(float(amplitude.std()) / gaussian.std - 1) < 5 / math.sqrt(2 * n) + 1 / 40**2
    assert abs(float(amplitude.mean()) - math.sqrt(clean + 1 / 800)) < 5 * 0.05 / math.sqrt(n) + 0.05 / 40**1.5


def test_illegal_noise_is_refused():
    for peak in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="positive and finite"):
            Poisson(peak)
    with pytest.raises(ValueError, match="negative"):
        Poisson(1.0).sample(torch.tensor([[-0.1]]), Rng([0]))
