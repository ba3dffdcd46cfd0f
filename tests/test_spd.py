"""Shortest-path diffusion: the geodesic, its length and its sampler, in closed form; float64."""

import math

import pytest
import torch

from scoreatlas.priors.gaussian_field import GaussianField
from scoreatlas.rng import Rng
from scoreatlas.samplers.spd import SPD, fisher_length, kl, signal

FIELD = GaussianField.power_law((1, 8, 8), 2.0, 0.6, torch.float64)
S = FIELD.spectrum


@pytest.mark.parametrize("tau", [0.0, 0.3, 0.9, 1.0])
def test_the_path_moves_log_spectra_along_a_line(tau):
    a2 = signal("shortest", S, tau)
    assert torch.allclose((a2 * S + 1 - a2).log(), tau * S.log(), rtol=1e-10, atol=1e-12)
    assert bool(((a2 >= 0) & (a2 <= 1)).all())
    assert float(signal("shortest", torch.ones(1).double(), tau)) == pytest.approx(tau)  # the limit S_0 = 1


def test_its_length_is_the_fisher_distance_and_no_other_is_shorter():
    """Between N(0, S_0) and N(0, 1) the distance is sqrt(sum (log S_0)^2 / 2); the polygon of a line is exact."""
    shortest = fisher_length("shortest", S)
    assert shortest == pytest.approx(math.sqrt(float(S.log().square().sum()) / 2), rel=1e-10)
    assert min(fisher_length(path, S) for path in ("linear", "cosine")) > 1.005 * shortest


@pytest.mark.parametrize("sampler", [SPD(6), SPD(6, warp=0.5), SPD(6, "linear"), SPD(6, "cosine")], ids=repr)
def test_samples_have_the_spectrum_of_the_recursion(sampler):
    n = 4000
    x = sampler(None, FIELD, Rng([0], n, dtype=torch.float64))
    power = torch.fft.fft2(x - FIELD.mean, norm="ortho").abs().square().mean((0, 1))
    want = sampler.spectrum(S)
    assert float((power / want - 1).abs().max()) < 5 * math.sqrt(2 / n)  # 5 standard errors at the real frequencies
    assert float((want / S - 1).abs().max()) > 0.3  # six steps leave an error, which is what is compared


@pytest.mark.parametrize("path", ["shortest", "linear", "cosine"])
def test_refinement_tends_to_the_field(path):
    """The divergence is quadratic in the error of the spectrum, which is of order 1 / n, or log n / n on the
    shortest path: near white noise, a^2 ~ tau, its first steps multiply a^2 by 2, 3/2, 4/3 ..."""
    found = [kl(S, SPD(n, path).spectrum(S)) for n in (400, 1600)]
    if path == "shortest":
        found = [value / math.log(n) ** 2 for value, n in zip(found, (400, 1600), strict=True)]
    assert abs(math.log(found[0] / found[1]) / math.log(4) - 2) < 0.2
    assert kl(S, S) == 0


def test_rows_do_not_mix_and_bad_input_is_refused():
    together = SPD(5)(None, FIELD, Rng([4, 5], dtype=torch.float64))
    assert torch.equal(together[1:], SPD(5)(None, FIELD, Rng([5], dtype=torch.float64)))
    with pytest.raises(ValueError, match="path must be 'shortest', 'linear' or 'cosine', got 'blur'"):
        SPD(path="blur")
    with pytest.raises(ValueError, match="at least one step, got 0"):
        SPD(0)
