"""Ranks against counting by hand, against the uniform law, and against samplers spoilt on purpose."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm

from scoreatlas.bench.calibrate import calibrate
from scoreatlas.bench.cell import Cell, instance
from scoreatlas.bench.tasks import TASKS
from scoreatlas.bench.worlds import world
from scoreatlas.measurement import Measurement
from scoreatlas.metrics.calibration import gap_bound, rank_gap, rank_histogram, ranks
from scoreatlas.metrics.coordinates import coordinate_bias, coordinate_spread, coordinates, seen
from scoreatlas.metrics.nearest import off_data
from scoreatlas.operators.blur import Blur, gaussian_kernel
from scoreatlas.operators.inpainting import Inpainting, box_mask
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver, State
from scoreatlas.solvers.projection.ddrm import DDRM


def test_ranks_count_and_break_ties_evenly():
    samples = torch.tensor([[3.0, 1.0, 2.0], [0.0, 0.0, 0.0], [5.0, 1.0, 1.0]])
    truth = torch.tensor([2.5, 0.0, 1.0])
    low, high = (ranks(samples, truth, torch.full((3,), u)) for u in (0.0, 0.999))
    assert low.tolist() == [2, 0, 0] and high.tolist() == [2, 3, 2]
    many = ranks(samples[1:2].expand(40_000, 3), truth[1:2].expand(40_000), Rng([0], 40_000).uniform(1)[:, 0])
    assert np.abs(np.bincount(many.numpy(), minlength=4) / 40_000 - 0.25).max() < 5 * math.sqrt(0.25 * 0.75 / 40_000)


def test_the_gap_is_the_kolmogorov_smirnov_distance_at_the_steps():
    """Against scipy's continuous statistic, which is at least as large."""
    r = torch.from_numpy(np.random.default_rng(0).binomial(7, 0.6, size=200))
    by_hand = max(abs(float((r <= k).double().mean()) - (k + 1) / 8) for k in range(8))
    assert float(rank_gap(r, 7)) == pytest.approx(by_hand, abs=1e-12)
    assert kstest((r.numpy() + 1) / 8, "uniform").statistic >= by_hand - 1e-12


def test_the_bound_holds_for_uniform_ranks():
    """In 95 % of 2000 sets, or a little more as ranks are discrete; five standard errors of that share."""
    draws = np.random.default_rng(1).integers(16, size=(2000, 100))
    inside = np.mean([float(rank_gap(torch.from_numpy(d), 15)) <= gap_bound(100) for d in draws])
    assert inside > 0.95 - 5 * math.sqrt(0.05 * 0.95 / 2000)
    assert inside < 0.995


def test_a_histogram_has_equal_bins_or_none():
    assert rank_histogram(torch.arange(16), 15, 8) == [2] * 8
    with pytest.raises(ValueError, match="15 samples give 16 ranks, which 5 equal bins do not divide"):
        rank_histogram(torch.arange(16), 15, 5)


class Wrong(Solver):
    """Exact samples of a Gaussian posterior with their deviations from the mean scaled."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def iterate(self, m, prior, rng):
        home, rows = world("gaussian16"), []
        n = rng.batch // len(rng.seeds)
        for i, seed in enumerate(rng.seeds):
            exact = home.posterior(Measurement(m.y[i * n : i * n + 1], m.A, m.noise))
            rows.append(exact.mean() + self.scale * (exact.sample(Rng([seed], n, dtype=rng.dtype)) - exact.mean()))
        yield State(torch.cat(rows), torch.cat(rows))


@pytest.fixture
def cell(monkeypatch):
    monkeypatch.setattr("scoreatlas.bench.calibrate.fitting_prior", lambda solver, world: None)
    return lambda scale: Cell(world("gaussian16"), TASKS["half"], Wrong(scale), 0)


def test_exact_samples_are_calibrated_and_overconfident_ones_are_not(cell):
    problems = instance(world("gaussian16"), TASKS["half"], 0, 400)
    right = calibrate(cell(1.0), problems, 15, "cpu", 10_000)
    assert set(right.metrics) == set(right.floor) == {"sbc_observed", "sbc_unobserved", "sbc_likelihood"}
    assert all(e.value < gap_bound(400) for e in right.metrics.values())
    wrong = calibrate(cell(0.4), problems, 15, "cpu", 10_000)
    # of N(0, 1) with samples N(0, 0.4^2) the truth falls below all but a few: sup |Phi(z) - Phi(z / 0.4)| = 0.22
    z = np.linspace(-3, 3, 2001)
    expected = np.abs(norm.cdf(z) - norm.cdf(z / 0.4)).max()
    for name in ("sbc_observed", "sbc_unobserved"):
        # 15 samples stand for the law with an error of about 1 / (2 * 15) at the ends
        assert abs(wrong.metrics[name].value - expected) < gap_bound(400) + 1 / 30
        assert wrong.counts[name][0] + wrong.counts[name][-1] > 2 * sum(wrong.counts[name]) / 8
    assert wrong.floor == right.floor


def test_chunks_do_not_change_ranks(monkeypatch):
    c = Cell(world("mixture2"), TASKS["row"], DDRM(steps=4), 1)
    problems = instance(c.world, c.task, 1, 12)
    one, many = (calibrate(c, problems, 7, "cpu", rows) for rows in (7, 1000))
    assert one.counts == many.counts and one.metrics == many.metrics


@pytest.mark.parametrize(
    "A",
    [
        Inpainting(box_mask((1, 6, 6), 1, 2, 3, 3), torch.float64),
        Blur(gaussian_kernel(5, 1.5), (1, 6, 6), torch.float64),
    ],
)
def test_coordinates_keep_lengths_and_know_what_is_seen(A):
    x = Rng([0], 50, dtype=torch.float64).normal(1, 6, 6)
    z = coordinates(A, x)
    assert torch.allclose(z.square().sum(1), x.flatten(1).square().sum(1), rtol=1e-10)  # V is orthonormal
    hidden = z.clone()
    hidden[:, seen(A)] = 0
    back = torch.view_as_complex(hidden.reshape(50, -1, 2)).reshape(50, 1, 6, 6) if A.vt(x).is_complex() else hidden
    image = A.v(back.reshape(50, 1, 6, 6))
    # what is not seen leaves less than the tolerance of the data
    assert float(A(image).abs().max()) <= 1e-3 * float(A.singular_values.max()) * float(x.abs().max()) * 36


def test_coordinate_bias_and_spread_of_a_shift_and_a_scaling():
    """With exact = samples, shifted by k standard deviations and scaled: k, and the scale, exactly."""
    e = Rng([3], 400, dtype=torch.float64).normal(5) * torch.tensor([1.0, 2.0, 0.1, 5.0, 0.5], dtype=torch.float64)
    x = e.mean(0) + 0.7 * (e - e.mean(0)) + 3 * e.std(0)
    assert float(coordinate_bias(x, e.mean(0), e)) == pytest.approx(3, rel=1e-10)
    assert float(coordinate_spread(x, e)) == pytest.approx(0.7, rel=1e-10)
    still = torch.cat([e, e.new_zeros(400, 1)], 1)  # a coordinate that does not vary is left out
    assert float(coordinate_spread(torch.cat([x, x.new_ones(400, 1)], 1), still)) == pytest.approx(0.7, rel=1e-10)


def test_off_data_is_zero_on_the_data_and_the_distance_elsewhere():
    data = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    assert off_data(data, data) == 0
    assert off_data(torch.tensor([[0.0, 3.0], [10.0, 4.0]]), data) == pytest.approx(math.sqrt((9 + 16) / 2))


def test_the_posterior_of_points_reweights_them():
    """Bayes' rule on atoms: w_i proportional to N(y; A x_i, sigma^2), and nothing moves."""
    home = world("points4")
    p = home.priors[1]
    cell = instance(home, TASKS["row"], 0, 1)
    exact = home.posterior(Measurement(cell.m.y, cell.m.A, cell.m.noise))
    r = cell.m.y[0] - p.means @ cell.m.A.matrix().T
    w = (-0.5 * (r / cell.m.noise.std).square().sum(1)).softmax(0)
    assert torch.allclose(exact.weights, w, atol=1e-12) and torch.equal(exact.means, p.means)
    assert float(exact.variances.abs().max()) == 0


def test_the_field_posterior_has_the_moments_of_linear_algebra():
    """At 64 x 64 the exact mean fulfils its normal equation, and samples have the exact residual on average."""
    home, t = world("field64"), TASKS["inpaint"]
    cell = instance(home, t, 0, 1)
    m = Measurement(cell.m.y, cell.m.A, cell.m.noise)
    exact, field = home.posterior(m), home.priors[1]
    # C^-1 (mean - m) = A^T (y - A mean) / sigma^2, both sides multiplied by C
    pull = m.A.adjoint(m.y - m.A(exact.mean)) / m.noise.std**2
    back = torch.fft.ifft2(field.spectrum * torch.fft.fft2(pull)).real
    assert float((back - (exact.mean - field.mean)).abs().max()) < 1e-6
