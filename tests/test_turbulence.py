"""Tilt and turbulence, against rolls, polynomials, torch's own sampling, and the statistics that a family claims."""

import math

import pytest
import torch
from torch.autograd.functional import jacobian
from torch.nn.functional import grid_sample

from scoreatlas.operators.blur import Blur, gaussian_kernel
from scoreatlas.operators.turbulence import Burst, Tilt, Turbulence, long_exposure_kernel
from scoreatlas.operators.turbulence_family import TurbulenceFamily
from scoreatlas.rng import Rng

F64 = torch.float64
SHAPE = (2, 12, 10)


def rng(*seeds: int, rows: int = 1) -> Rng:
    return Rng(seeds, rows, dtype=F64)


def constant(down: float, right: float) -> torch.Tensor:
    return torch.tensor([down, right], dtype=F64)[:, None, None].expand(2, *SHAPE[1:]).clone()


@pytest.mark.parametrize("cubic", [False, True])
def test_whole_pixels_roll_the_image(cubic):
    x = rng(0).normal(*SHAPE)
    assert torch.equal(Tilt(constant(2.0, -3.0), SHAPE, cubic)(x), x.roll((-2, 3), (2, 3)))


@pytest.mark.parametrize(("cubic", "degree"), [(False, 1), (True, 2)])
def test_interpolation_reproduces_polynomials(cubic, degree):
    """Linear interpolation is exact for linear functions, Keys' for quadratic ones; away from the border."""
    i, j = torch.arange(12, dtype=F64)[:, None], torch.arange(10, dtype=F64)
    f = lambda i, j: (0.3 * i - 0.2 * j) ** degree + i - 2 * j  # noqa: E731
    d = 1.5 * rng(1).uniform(2, 12, 10)[0]
    y = Tilt(d, (1, 12, 10), cubic)(f(i, j)[None, None])
    assert torch.allclose(y[..., 2:8, 2:6], f(i + d[0], j + d[1])[2:8, 2:6], atol=1e-11)


def test_tilt_is_torch_grid_sample_away_from_the_border():
    x, d = rng(0).normal(*SHAPE), rng(2).normal(2, *SHAPE[1:])[0].clamp(-2, 2)
    i, j = torch.arange(12, dtype=F64)[:, None] + d[0], torch.arange(10, dtype=F64) + d[1]
    grid = torch.stack([2 * j / 9 - 1, 2 * i / 11 - 1], -1)[None]
    theirs = grid_sample(x, grid, align_corners=True)
    assert torch.allclose(Tilt(d, SHAPE)(x)[..., 3:-3, 3:-3], theirs[..., 3:-3, 3:-3], atol=1e-12)


def test_grey_stays_grey():
    one, d = torch.ones(1, *SHAPE, dtype=F64), 2 * rng(3).normal(2, *SHAPE[1:])[0]
    for A in (Tilt(d, SHAPE), Tilt(d, SHAPE, cubic=True), Turbulence(d, torch.tensor(1.2, dtype=F64), SHAPE)):
        assert torch.allclose(A(one), one, atol=1e-13)


def test_still_air_only_blurs():
    """A Gaussian of 1.5 pixels cut off at 7.5 pixels and one given by its transfer function differ by 1e-5."""
    shape, x = (1, 24, 20), rng(0).normal(1, 24, 20)
    blur = Turbulence(torch.zeros(2, 24, 20, dtype=F64), torch.tensor(1.5, dtype=F64), shape)
    assert torch.allclose(blur(x), Blur(gaussian_kernel(15, 1.5), shape, F64)(x), atol=1e-5)


def test_tilt_and_blur_commute_only_where_the_tilt_is_constant():
    """Whole pixels, so that interpolation plays no part; where the tilt varies, the order counts."""
    x, s = rng(0).normal(*SHAPE), torch.tensor(1.0, dtype=F64)
    order = lambda d: Turbulence(d, s, SHAPE)(x) - Turbulence(d, s, SHAPE, tilt_first=False)(x)  # noqa: E731
    assert order(constant(3.0, 1.0)).abs().max() < 1e-13
    assert order(rng(1).normal(2, *SHAPE[1:])[0]).abs().max() > 0.1


@pytest.mark.parametrize("tilt_first", [True, False])
def test_both_orders_have_their_adjoint(tilt_first):
    A = Turbulence(rng(1).normal(2, *SHAPE[1:])[0], torch.tensor(0.8, dtype=F64), SHAPE, True, tilt_first)
    x, y = rng(2).normal(*SHAPE), rng(3).normal(*SHAPE)
    assert abs(float((A(x) * y).sum() - (x * A.adjoint(y)).sum())) < 1e-11


def test_a_burst_is_its_frames():
    d, s, x = rng(1, 2, 3).normal(2, *SHAPE[1:]), torch.tensor(0.8, dtype=F64), rng(4, 5).normal(*SHAPE)
    y = Burst(d, s, SHAPE, cubic=True)(x)
    assert y.shape == (2, 3, *SHAPE)
    for f in range(3):
        assert torch.allclose(y[:, f], Turbulence(d[f], s, SHAPE, cubic=True)(x), atol=1e-13)


FAMILY = TurbulenceFamily((1, 12, 10), modes=3)


def test_the_field_has_the_variance_and_the_correlation_that_are_claimed():
    """The field is linear in its coefficients, so its covariance is J J^T: no sampling, rounding only."""
    strength, correlation = 1.3, 2.5
    c = rng(0).normal(FAMILY.size - 3)[0]
    J = jacobian(lambda c: FAMILY.displacement(FAMILY.phi(strength, correlation, 1.0, c)), c).reshape(2, 120, -1)
    k = FAMILY._periods() / torch.tensor([12.0, 10.0])
    S = (-0.5 * (2 * math.pi * correlation) ** 2 * k.square().sum(1)).exp()
    u = torch.cartesian_prod(torch.arange(12.0, dtype=F64), torch.arange(10.0, dtype=F64))
    want = strength**2 * torch.einsum("k,kuv->uv", S / S.sum(), torch.cos(2 * math.pi * torch.einsum(
        "kd,uvd->kuv", k, u[:, None] - u)))  # fmt: skip
    assert torch.allclose(J[0] @ J[0].T, want, atol=1e-12)
    assert torch.allclose(J[1] @ J[1].T, want, atol=1e-12)
    assert (J[0] @ J[1].T).abs().max() < 1e-12
    assert torch.allclose(want.diagonal(), torch.full((120,), strength**2, dtype=F64))
    assert FAMILY.displacement(FAMILY.draw(1.0, 2.0, 1.0, rng(4))).mean((-1, -2)).abs().max() < 1e-12  # gauge: no shift


def test_an_operator_for_each_row():
    phi = FAMILY.draw(1.0, 2.0, 0.9, rng(1, 2, 3))
    phi[:, 2] += torch.tensor([0.0, 0.3, -0.5])
    x, together = rng(4, 5, 6).normal(1, 12, 10), FAMILY.at(phi)
    for i in range(3):
        alone = FAMILY.at(phi[i])
        assert torch.allclose(together(x)[i], alone(x[i : i + 1])[0], atol=1e-13)
        assert torch.allclose(together.adjoint(x)[i], alone.adjoint(x[i : i + 1])[0], atol=1e-13)


def test_absurd_lengths_are_held():
    """A search may send phi anywhere: the operator stays finite, and where it no longer changes its slope is 0."""
    phi, x = FAMILY.draw(1.0, 2.0, 0.9, rng(7)), rng(8).normal(1, 12, 10)
    for head in (200.0, -200.0):
        far = torch.cat([torch.full((1, 3), head, dtype=F64), phi[:, 3:]], 1).requires_grad_()
        y = FAMILY.at(far)(x)
        slope = torch.autograd.grad(y.square().sum(), far)[0]
        assert torch.isfinite(y).all() and torch.isfinite(slope).all() and (slope[:, :3] == 0).all()


@pytest.mark.parametrize("cubic", [False, True])
def test_gradient_in_phi_against_finite_differences(cubic):
    """Central differences of step h err by h^2; bilinear has kinks, which a step of 1e-6 hardly ever meets."""
    family = TurbulenceFamily((1, 12, 10), 2, cubic)
    phi, x, v = family.draw(1.0, 2.0, 0.9, rng(7))[0], rng(8).normal(1, 12, 10), rng(9).normal(1, 12, 10)
    value = lambda p: (family.at(p)(x) * v).sum()  # noqa: E731
    slope = torch.autograd.grad(value(phi.requires_grad_()), phi)[0]
    phi = phi.detach()
    for i in range(family.size):
        h = torch.zeros_like(phi)
        h[i] = 1e-6
        assert abs(float(value(phi + h) - value(phi - h)) / 2e-6 - float(slope[i])) < 1e-6 * (1 + slope.abs().max())


def test_the_mean_of_many_frames_is_a_blur_whatever_the_correlation():
    """Bilinear frames against the closed form of their mean; 5 standard errors of each pixel."""
    family, x, frames = TurbulenceFamily((1, 12, 10), 3, cubic=False), rng(0).normal(1, 12, 10), 4000
    d = family.displacement(family.draw(0.9, 2.5, 1.0, rng(1, rows=frames)))
    y = Tilt(d, (1, 12, 10))(x.expand(frames, -1, -1, -1))
    want = Blur(long_exposure_kernel(9, 0.9), (1, 12, 10), F64)(x)[0]
    error = (y.mean(0) - want) / (y.std(0) / math.sqrt(frames))
    assert error.abs().max() < 5
    assert 0.7 < float(error.square().mean()) < 1.4  # neighbours share their errors: no tighter


def test_long_exposure_kernel_adds_one_sixth_to_the_variance():
    """The mean of f (1 - f) over a Gaussian wider than a pixel is 1/6 up to exp(-2 pi^2 std^2)."""
    k = long_exposure_kernel(31, 1.5).sum(0)
    i = torch.arange(31, dtype=F64) - 15
    assert abs(float((k * i**2).sum()) - 1.5**2 - 1 / 6) < 1e-9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tilt(torch.zeros(2, 8, 8), (1, 8, 9)), "displacements must be"),
        (lambda: Turbulence(torch.zeros(2, 8, 8), torch.zeros(2, 2), (1, 8, 8)), "one for each row"),
        (lambda: Burst(torch.zeros(2, 8, 8), torch.tensor(1.0), (1, 8, 8)), "a burst needs"),
        (lambda: TurbulenceFamily((1, 8, 8), 4), "modes must lie"),
        (lambda: long_exposure_kernel(5, 0.0), "must be > 0"),
    ],
)
def test_bad_input_is_one_clear_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
