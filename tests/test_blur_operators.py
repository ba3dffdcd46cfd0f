"""Kernels, blur that varies and blur with borders, against moments, other implementations and the circular operator."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import pad

from scoreatlas.bench.tasks_blur import TASKS
from scoreatlas.operators.blur import Blur, gaussian_kernel, motion_kernel
from scoreatlas.operators.kernels import anisotropic_kernel, disk_kernel, shake_kernel
from scoreatlas.operators.open_blur import OpenBlur
from scoreatlas.operators.varying_blur import VaryingBlur, radial_weights
from scoreatlas.rng import Rng

F64 = torch.float64


def rng(*seeds: int) -> Rng:
    return Rng(seeds, dtype=F64)


def moments(kernel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (right, up) and covariance of a kernel, pixels."""
    n = len(kernel)
    i = torch.arange(n, dtype=F64) - n // 2
    at = torch.stack([i.expand(n, n), -i[:, None].expand(n, n)])
    mean = (at * kernel).sum((1, 2))
    return mean, torch.einsum("aij,bij,ij->ab", at, at, kernel) - torch.outer(mean, mean)


def test_anisotropic_kernel_has_its_covariance():
    """A sampled Gaussian of std 2 has its moments up to exp(-2 pi^2 4) and what the border cuts off."""
    mean, covariance = moments(anisotropic_kernel(41, 4.0, 2.0, 30.0))
    a = math.radians(30.0)
    turn = torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]], dtype=F64)
    assert mean.abs().max() < 1e-12
    assert torch.allclose(covariance, turn @ torch.diag(torch.tensor([16.0, 4.0], dtype=F64)) @ turn.T, atol=2e-3)
    assert torch.allclose(anisotropic_kernel(9, 1.5, 1.5, 77.0), gaussian_kernel(9, 1.5), atol=1e-14)


def test_disk_kernel_is_flat_inside_and_has_its_area():
    """Whole pixels weigh 1 / (pi r^2) up to counting points on the rim: a few parts in a thousand."""
    kernel = disk_kernel(11, 4.2)
    assert abs(float(kernel.sum()) - 1) < 1e-12
    assert abs(float(kernel[5, 5]) * math.pi * 4.2**2 - 1) < 5e-3
    assert kernel[0].sum() == 0 and torch.equal(kernel, kernel.T) and torch.allclose(kernel, kernel.flip(0))


def test_a_shake_without_wobble_is_a_straight_line():
    """The two paths are sampled at 32 and 64 points per pixel: they differ by 1/32 pixel at the ends."""
    angle = math.degrees(2 * math.pi * float(rng(3).uniform(1)))
    assert torch.allclose(shake_kernel(11, 9.0, 0.0, rng(3)), motion_kernel(11, 9.0, angle), atol=2e-3)


def test_a_shake_is_as_large_as_a_worm_like_chain():
    """Mean squared radius of 400 kernels against the closed form, plus 1/6 per axis for the bilinear splat."""
    length, wobble = 12.0, 0.6
    covariances = [moments(shake_kernel(15, length, wobble, rng(seed))) for seed in range(400)]
    assert max(float(mean.abs().max()) for mean, _ in covariances) < 1e-9
    squares = torch.stack([c.trace() for _, c in covariances])
    p = 2 / wobble**2
    want = length * p / 3 - p**2 + 2 * p**3 / length - 2 * p**4 / length**2 * (1 - math.exp(-length / p)) + 1 / 3
    assert abs(float(squares.mean()) - want) < 4 * float(squares.std()) / 20 + 0.02  # 4 standard errors; the splat


@pytest.mark.parametrize("kernel", [gaussian_kernel(5, 1.2), motion_kernel(7, 5.0, 30.0), torch.rand(3, 5, dtype=F64)])
def test_valid_data_are_the_inside_of_circular_data(kernel):
    x, (kh, kw) = rng(0, 1).normal(2, 12, 10), kernel.shape
    whole = Blur(kernel, (2, 12, 10), F64)(x)
    inside = whole[..., kh // 2 : 12 - kh + kh // 2 + 1, kw // 2 : 10 - kw + kw // 2 + 1]
    assert torch.allclose(OpenBlur(kernel, (2, 12, 10), "valid", F64)(x), inside, atol=1e-12)


def test_zero_padding_is_a_circular_blur_in_a_larger_grey_frame():
    x, kernel = rng(0, 1).normal(1, 8, 9), motion_kernel(5, 4.0, 70.0)
    framed = Blur(kernel, (1, 14, 15), F64)(pad(x, (3, 3, 3, 3)))[..., 3:-3, 3:-3]
    assert torch.allclose(OpenBlur(kernel, (1, 8, 9), "zero", F64)(x), framed, atol=1e-12)


def test_varying_blur_draws_a_point_with_the_kernel_of_its_place():
    kernels = torch.stack([gaussian_kernel(5, 0.6), motion_kernel(5, 4.0, 45.0), disk_kernel(5, 2.0)])
    weights = radial_weights((16, 16), 3)
    A = VaryingBlur(kernels, weights, (1, 16, 16), F64)
    for i, j in ((7, 8), (4, 11), (12, 3)):
        x = torch.zeros(1, 1, 16, 16, dtype=F64)
        x[..., i, j] = 1
        y = torch.zeros_like(x)
        y[..., i - 2 : i + 3, j - 2 : j + 3] = torch.einsum("k,kab->ab", weights[:, i, j], kernels)
        assert torch.allclose(A(x), y, atol=1e-14)
    one = torch.ones(1, 1, 16, 16, dtype=F64)
    assert torch.allclose(A.adjoint(one), one, atol=1e-13)  # no light is lost
    assert (A(one) - one).abs().max() > 1e-3  # but grey is not kept


def test_equal_kernels_do_not_vary():
    kernel, weights = motion_kernel(7, 5.0, 20.0), radial_weights((8, 9), 4)
    assert torch.allclose(weights.sum(0), torch.ones(8, 9, dtype=F64), atol=1e-14)
    x = rng(0).normal(2, 8, 9)
    varying = VaryingBlur(kernel.expand(4, 7, 7), weights, (2, 8, 9), F64)
    assert torch.allclose(varying(x), Blur(kernel, (2, 8, 9), F64)(x), atol=1e-13)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: anisotropic_kernel(5, 1.0, 0.0, 0.0), "must be > 0"),
        (lambda: disk_kernel(5, 3.0), "does not fit"),
        (lambda: shake_kernel(5, 5.0, 0.1, rng(0)), "may not fit"),
        (lambda: shake_kernel(5, 3.0, -0.1, rng(0)), "wobble"),
        (lambda: OpenBlur(torch.ones(9, 9), (1, 8, 8)), "larger than the image"),
        (lambda: OpenBlur(torch.ones(4, 4), (1, 8, 8), "zero"), "odd size"),
        (lambda: VaryingBlur(torch.ones(2, 3, 3), torch.ones(3, 8, 8), (1, 8, 8)), "need weights"),
        (lambda: radial_weights((8, 8), 1), "at least 2"),
    ],
)
def test_bad_input_is_one_clear_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_tasks_draw_their_operators_from_the_generator():
    """Same generator, same data; another one, another path or field. Light is kept by every one of them."""
    for task in TASKS:
        for shape in ((1, 16, 16), (3, 64, 64)):
            x = rng(0).normal(*shape)
            draw = lambda seed, t=task, s=shape: t.operator(s, np.random.default_rng(seed))  # noqa: E731
            assert torch.equal(draw(1)(x), draw(1)(x))
            assert torch.equal(draw(1)(x), draw(2)(x)) == (task.name in ("anisotropic", "varying"))
            if task.name != "turbulence":
                assert torch.allclose(draw(1)(x).sum((2, 3)), x.sum((2, 3)), atol=1e-9)
