"""Tomography: against the analytic sinogram of an ellipse, scikit-image, and the inversion formula."""

import math

import pytest
import torch
from skimage.transform import radon

from scoreatlas import data
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.metrics.distortion import psnr
from scoreatlas.operators.radon import Radon, even_angles
from scoreatlas.rng import Rng
from scoreatlas.solvers.classical.fbp import FilteredBackProjection, filtered, view_weights

F64 = torch.float64
ELLIPSE = (0.30, 0.15, 0.10, -0.05, 0.4)  # half axes, centre, tilt, in sides of the image


def ellipse(n: int, fine: int = 8) -> torch.Tensor:
    """The ellipse on n x n pixels, (1, 1, n, n): the share of each pixel that it covers, from fine^2 points."""
    a, b, x0, y0, tilt = ELLIPSE
    at = (torch.arange(n * fine, dtype=F64) + 0.5) / (n * fine) - 0.5
    y, x = torch.meshgrid(-at, at, indexing="ij")
    c, s = math.cos(tilt), math.sin(tilt)
    inside = ((x - x0) * c + (y - y0) * s) ** 2 / a**2 + ((y - y0) * c - (x - x0) * s) ** 2 / b**2 <= 1
    return inside.double().reshape(n, fine, n, fine).mean((1, 3))[None, None]


def chords(angles: tuple[float, ...], positions: torch.Tensor) -> torch.Tensor:
    """Line integrals through the ellipse (views, bins): 2 a b sqrt(r^2 - s^2) / r^2, Kak and Slaney, equation 3.7."""
    a, b, x0, y0, tilt = ELLIPSE
    theta = torch.tensor(angles, dtype=F64)[:, None] * math.pi / 180
    s = positions - x0 * theta.cos() - y0 * theta.sin()
    r2 = (a * (theta - tilt).cos()) ** 2 + (b * (theta - tilt).sin()) ** 2
    return 2 * a * b * (r2 - s**2).clamp_min(0).sqrt() / r2


def test_line_integrals_of_an_ellipse():
    """The error is that of an edge of a pixel's width: its mean square falls like the square of the pixel.

    A chord that touches the edge errs by up to sqrt(pixel); a share of bins near pixel does, which makes rms ~ pixel. A
    wrong angle, sign or scale would be of the order of the data, whose rms is 0.13.
    """
    errors = []
    for n in (32, 64, 128):
        A = Radon((1, n, n), even_angles(30), dtype=F64)
        errors.append(float((A(ellipse(n))[0] - chords(A.angles, A.positions)).square().mean().sqrt()) * n)
    assert max(errors) < 0.3 and max(errors) / min(errors) < 1.3


def test_every_view_holds_the_mass():
    A = Radon((1, 64, 64), even_angles(45), dtype=F64)
    mass = A(ellipse(64)).sum(2)[0] * A.pixel
    assert (mass / (math.pi * ELLIPSE[0] * ELLIPSE[1]) - 1).abs().max() < 2e-3  # interpolation of a sampled edge


def test_agrees_with_scikit_image():
    """Odd sizes, where both have the same centre. scikit-image rotates the image with linear interpolation, which
    blurs: the two differ by less than its own error against the chords, twice over, and ours is the nearer to them."""
    A = Radon((1, 61, 61), even_angles(20), dtype=F64)
    x = ellipse(61)
    theirs = torch.from_numpy(radon(x[0, 0].numpy(), theta=list(A.angles), circle=False).T) * A.pixel
    assert theirs.shape == (20, A.bins)
    ours = A(x)[0]
    distance, error = ((a - chords(A.angles, A.positions)).square().mean().sqrt() for a in (ours, theirs))
    assert (ours - theirs).square().mean().sqrt() < 2 * error < 0.01
    assert distance < error


def test_a_constant_image_measures_its_side():
    y = Radon((1, 16, 16), (0.0, 90.0), bins=16, dtype=F64)(torch.ones(1, 1, 16, 16, dtype=F64))
    assert torch.allclose(y, torch.ones_like(y), atol=1e-12)


def test_oblong_images():
    """A vertical line of ones is seen whole from the side and as one bin from below."""
    x = torch.zeros(1, 1, 9, 5, dtype=F64)
    x[..., 2] = 1
    y = Radon((1, 9, 5), (0.0, 90.0), dtype=F64)(x)[0]
    assert y[0].max() == pytest.approx(1.0) and (y[0] > 1e-9).sum() == 1  # nine pixels of a ninth
    assert torch.allclose(y[1, 1:10], torch.full((9,), 1 / 9, dtype=F64)) and y[1].sum() == pytest.approx(1)


def test_norm_is_that_of_the_views():
    """|A|^2 is near (views) / n, as the module says: the constant direction is seen alike from everywhere."""
    A = Radon((1, 32, 32), even_angles(24), dtype=F64)
    top = torch.linalg.matrix_norm(A.matrix(), 2) ** 2
    assert 0.9 < float(top) * 32 / 24 < 1.3


def test_filtered_back_projection_inverts():
    """An ellipse from its chords, averaged over each bin as a detector does, through a window that leaves no ringing.

    Grey values away from the edge to 1 %: what is left there is aliasing of the chords' square roots.
    """
    n, fine = 64, 9
    A = Radon((1, n, n), even_angles(180), dtype=F64)
    inner = (torch.arange(fine, dtype=F64) - fine // 2) / fine * A.pixel
    y = chords(A.angles, (A.positions[:, None] + inner).flatten()).reshape(180, A.bins, fine).mean(2)
    x = FilteredBackProjection("hann", 0.0)(Measurement(y[None], A, Gaussian(0.0)), None, Rng([0], dtype=F64))
    truth = torch.nn.functional.avg_pool2d(ellipse(n), 7, 1, 3)
    assert (x[truth > 0.999] - 1).abs().max() < 0.01 and x[truth < 1e-3].abs().max() < 0.01


def test_background_is_taken_off_and_put_back():
    """On an image of air nothing is left to filter; without it, the jump at the frame would show."""
    A = Radon((1, 32, 32), even_angles(20), dtype=F64)
    air = torch.full((1, 1, 32, 32), -1.0, dtype=F64)
    x = FilteredBackProjection()(Measurement(A(air), A, Gaussian(0.0)), None, Rng([0], dtype=F64))
    assert torch.allclose(x, air, atol=1e-12)


def test_the_ramp_is_sampled_in_space():
    """A constant view filters to the tail of the ramp: the sum over all k is 0, so what is left is cut off."""
    y = torch.ones(1, 1, 4001, dtype=F64)
    q = filtered(y, 1.0)[0, 0, 2000]
    assert float(q) == pytest.approx(2 * sum(1 / (math.pi * k) ** 2 for k in range(2001, 400_001, 2)), rel=0.02)


def test_views_weigh_what_they_stand_for():
    assert torch.allclose(view_weights(even_angles(18)), torch.full((18,), math.pi / 18, dtype=F64))
    assert torch.allclose(view_weights(even_angles(60, 30, 150)), torch.full((60,), math.pi / 90, dtype=F64))
    assert float(view_weights((0.0, 10.0, 30.0, 90.0)).sum()) <= math.pi


def test_more_views_are_better_on_a_trunk():
    x = data.ct("test")[0][:1].double()
    values = []
    for views in (15, 30, 60):
        A = Radon((1, 128, 128), even_angles(views), dtype=F64)
        r = FilteredBackProjection()(Measurement(A(x), A, Gaussian(0.0)), None, Rng([0], dtype=F64))
        values.append(float(psnr(r, x)))
    assert values[0] + 3 < values[1] < values[2] - 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Radon((3, 8, 8), (0.0,)), "one channel"),
        (lambda: Radon((1, 8, 8), ()), "at least one view"),
        (lambda: even_angles(0), "at least one view"),
        (lambda: FilteredBackProjection("cosine"), "'ramp' or 'hann'"),
    ],
)
def test_bad_input_is_one_clear_line(make, message):
    with pytest.raises(ValueError, match=message):
        make()
