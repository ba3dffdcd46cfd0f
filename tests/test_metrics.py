"""Each metric against a closed form, an identity or another implementation."""

import math

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from skimage.metrics import peak_signal_noise_ratio

from scoreatlas.measurement import Gaussian, Measurement, simulate
from scoreatlas.metrics.distortion import psnr, residual, ssim
from scoreatlas.metrics.estimate import jackknife, mean_interval
from scoreatlas.metrics.posterior import (
    bias,
    coverage,
    diversity,
    gaussian_wasserstein,
    mode_weights_error,
    moments,
    sliced_wasserstein,
    split_directions,
    spread_ratio,
    unit_directions,
)
from scoreatlas.operators.base import Operator
from scoreatlas.operators.dense import Dense
from scoreatlas.priors.mixture import GaussianMixture, autoregressive
from scoreatlas.rng import Rng

F64 = torch.float64


def rng(seed=0, rows=1):
    return Rng([seed], rows, dtype=F64)


def test_psnr_against_scikit_image_and_row_by_row():
    x, truth = rng(0, 3).normal(1, 12, 12), rng(1, 3).normal(1, 12, 12)
    ours = psnr(x, truth)
    theirs = [peak_signal_noise_ratio(t.numpy(), a.numpy(), data_range=2) for a, t in zip(x, truth, strict=True)]
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-12)
    assert psnr(x[1:2], truth[1:2]).item() == ours[1].item()
    assert psnr(truth, truth).isposinf().all()


def test_ssim_of_constant_images_is_the_luminance_term():
    a, b = 0.3, -0.1  # no contrast and no structure: Wang et al. (2004), equation 6 is all that is left
    c1 = (0.01 * 2) ** 2
    x, y = torch.full((2, 1, 16, 16), a), torch.full((2, 1, 16, 16), b)
    expected = (2 * a * b + c1) / (a**2 + b**2 + c1)
    np.testing.assert_allclose(ssim(x, y).numpy(), expected, rtol=1e-6)
    assert torch.allclose(ssim(x, x), torch.ones(2, dtype=F64))


def test_residual_of_the_truth_is_one_and_counts_real_numbers():
    A = Dense(rng(3).normal(400, 20)[0], (20,))
    x = rng(4).normal(20)
    m = simulate(x, A, Gaussian(0.3), rng(5))
    assert abs(residual(m, x).item() - 1) < 4 / math.sqrt(2 * 400)  # chi distribution, four standard deviations
    off = Measurement(m.A(x) + 0.6, A, Gaussian(0.3))
    assert residual(off, x).item() == pytest.approx(2, rel=1e-12)


def test_residual_of_complex_data_counts_two_numbers_a_datum():
    class Doubled(Operator):
        shape = (4,)

        def __call__(self, x):
            return torch.complex(x, x)

    y = torch.full((1, 4), 0.5 + 0.5j, dtype=torch.complex128)
    assert residual(Measurement(y, Doubled(), Gaussian(0.5)), torch.zeros(1, 4, dtype=F64)).item() == pytest.approx(1)


def test_residual_refuses_noise_free_data():
    with pytest.raises(ValueError, match="sigma_y is 0"):
        residual(Measurement(torch.ones(1, 2), Dense(torch.eye(2), (2,)), Gaussian(0.0)), torch.ones(1, 2))


def test_sliced_wasserstein_of_a_shift_and_of_a_scaling():
    x, theta = rng(0, 50).normal(6), unit_directions(40, 6, rng(1))
    assert theta.norm(dim=1).sub(1).abs().max() < 1e-12
    shift = torch.arange(6, dtype=F64)
    moved = (theta @ shift).square().mean().sqrt()
    assert sliced_wasserstein(x, x + shift, theta).item() == pytest.approx(moved.item())
    scaled = (theta @ (1.5 * x).T).square().mean().sqrt() / 3  # W2(x, 1.5 x) = 0.5 |x| along each direction
    assert sliced_wasserstein(x, 1.5 * x, theta).item() == pytest.approx(scaled.item())
    assert sliced_wasserstein(x, x.flip(0), theta).item() < 1e-15  # order does not matter
    with pytest.raises(ValueError, match="equally many"):
        sliced_wasserstein(x, x[:-1], theta)


def test_gaussian_wasserstein_against_matrix_square_roots():
    a, b = (r.normal(5, 5)[0] for r in (rng(0), rng(1)))
    c1, c2, m1, m2 = a @ a.T, b @ b.T, a[0], b[0]
    root = linalg.sqrtm(c1.numpy())
    bures2 = np.trace(c1.numpy() + c2.numpy() - 2 * linalg.sqrtm(root @ c2.numpy() @ root).real)
    d = gaussian_wasserstein(m1, c1, m2, c2)
    assert d.covariance.item() == pytest.approx(math.sqrt(bures2), rel=1e-6)
    assert d.mean.item() == pytest.approx((m1 - m2).norm().item())
    assert d.total.item() == pytest.approx(math.hypot(d.mean, d.covariance))
    assert gaussian_wasserstein(m2, c2, m1, c1).total.item() == pytest.approx(d.total.item())


def test_directions_split_the_space_by_what_the_operator_sees():
    A = Dense(rng(2).normal(2, 5)[0], (5,))
    seen, unseen = split_directions(A)
    assert seen.shape == (5, 2) and unseen.shape == (5, 3)
    assert (A.matrix() @ unseen).abs().max() < 1e-12
    assert (torch.cat([seen, unseen], 1).T @ torch.cat([seen, unseen], 1) - torch.eye(5, dtype=F64)).abs().max() < 1e-12


def test_spread_and_bias_of_samples_with_known_moments():
    p = autoregressive(6, 0.9)
    z = rng(0, 200).normal(6)
    z = (z - z.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(moments(z)[1])).T  # sample moments exactly 0 and I
    root = torch.linalg.cholesky(p.covariance())
    x = 1.3 * z @ root.T
    basis = split_directions(Dense(rng(2).normal(2, 6)[0], (6,))).unobserved
    assert spread_ratio(x, p.covariance(), basis).item() == pytest.approx(1.3, rel=1e-9)
    turned = basis @ torch.linalg.qr(rng(5).normal(4, 4)[0]).Q
    shifted = x + root[:, 0]
    values = [bias(shifted, torch.zeros(6, dtype=F64), p.covariance(), v).item() for v in (basis, turned)]
    assert values[0] == pytest.approx(values[1], rel=1e-9)  # the basis of the group does not matter
    everything, zero = torch.eye(6, dtype=F64), torch.zeros(6, dtype=F64)
    whole = bias(shifted, zero, p.covariance(), everything)  # a column of the root has Mahalanobis length 1
    assert whole.item() == pytest.approx(1 / math.sqrt(6))
    assert spread_ratio(torch.ones(5, 6, dtype=F64), p.covariance(), basis).item() == 0


def test_singular_exact_covariance_is_refused():
    with pytest.raises(ValueError, match="singular"):
        spread_ratio(torch.ones(3, 2), torch.zeros(2, 2), torch.eye(2))


def test_mode_weights_error():
    means = torch.tensor([[-10.0, 0.0], [10.0, 0.0], [0.0, 10.0]], dtype=F64)
    p = GaussianMixture(torch.tensor([0.5, 0.3, 0.2], dtype=F64), means, torch.ones(3, dtype=F64))
    assert mode_weights_error(means[:1].expand(7, 2), p).item() == pytest.approx(0.5)  # 1 - w_0
    n = 4000
    error = mode_weights_error(p.sample(rng(3, n)), p).item()
    assert error < 0.5 * sum(4 * math.sqrt(w * (1 - w) / n) for w in (0.5, 0.3, 0.2))  # four standard errors each


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_coverage_of_gaussians_of_another_width(scale, level):
    n = 20000
    x, reference = scale * rng(0, n).normal(2), rng(1, n).normal(2)
    expected = 2 * stats.norm.cdf(scale * stats.norm.ppf(0.5 + level / 2)) - 1
    assert coverage(x, reference, level).item() == pytest.approx(expected, abs=4 / math.sqrt(n))


def test_diversity_is_the_pixel_standard_deviation_over_samples():
    x = torch.zeros(2, 2, 1, 3, 3, dtype=F64)
    x[1, 1] = 2.0  # values 0 and 2: unbiased standard deviation sqrt(2)
    np.testing.assert_allclose(diversity(x).numpy(), [0, math.sqrt(2)])
    with pytest.raises(ValueError, match="two samples"):
        diversity(x[:, :1])


def test_mean_interval_against_scipy():
    v = rng(0, 9).normal(1)[:, 0]
    e = mean_interval(v)
    low, high = stats.t.interval(0.95, 8, loc=v.mean().item(), scale=stats.sem(v.numpy()))
    assert (e.low, e.high) == (pytest.approx(low), pytest.approx(high))
    assert math.isnan(mean_interval([1.0]).low)


def test_jackknife_of_a_mean_difference_has_its_textbook_width():
    n = 4000
    x, y = rng(0, n).normal(1), rng(1, n).normal(1)
    e = jackknife(lambda a, b: float((a - b).mean()), x, y, groups=100)
    expected = stats.t.ppf(0.975, 99) * math.sqrt(2 / n)
    assert e.half_width == pytest.approx(expected, rel=4 / math.sqrt(2 * 99))  # chi distribution of a standard error
    assert e.value == pytest.approx((x - y).mean().item())
