"""Bicubic shrinking, colour, strokes, JPEG and clipping against other implementations and closed forms."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from scoreatlas import data
from scoreatlas.bench.tasks_sr import TASKS
from scoreatlas.linalg import dot, norm
from scoreatlas.operators.base import Operator
from scoreatlas.operators.bicubic import Bicubic, bicubic_matrix, cubic, enlargement_matrix
from scoreatlas.operators.clipping import Clip
from scoreatlas.operators.colourisation import Colourisation
from scoreatlas.operators.jpeg import JPEG, quantisation_table
from scoreatlas.operators.masks import free_form_mask
from scoreatlas.rng import Rng

F64 = torch.float64
interpolate = torch.nn.functional.interpolate


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return Rng([seed, seed + 1], dtype=F64).normal(*shape)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_bicubic_is_torchs_away_from_the_border(factor):
    """Same kernel, same centres; PyTorch cuts the kernel at the border, so two rows of blocks are left out there."""
    x = noise(3, 64, 48)
    ours, theirs = (
        Bicubic((3, 64, 48), factor, F64)(x),
        interpolate(x, scale_factor=1 / factor, mode="bicubic", antialias=True),
    )
    inner = (..., slice(2, -2), slice(2, -2))
    assert torch.allclose(ours[inner], theirs[inner], atol=1e-12)
    assert (ours - theirs).abs().max() > 1e-3  # at the border the two conventions differ


def test_bicubic_mirrors_at_the_border_like_ddrm():
    """Row i sums kernel taps over a mirrored copy of the image, taken literally."""
    n, f = 16, 4
    x = torch.arange(n, dtype=F64).square()
    padded = torch.cat([x.flip(0), x, x.flip(0)])
    taps = cubic((torch.arange(4 * f, dtype=F64) - 2 * f + 0.5) / f)
    taps = taps / taps.sum()
    expected = torch.stack([taps @ padded[n + f // 2 - 2 * f + i : n + f // 2 + 2 * f + i] for i in range(0, n, f)])
    assert torch.allclose(bicubic_matrix(n, f) @ x, expected, atol=1e-12)


def test_bicubic_keeps_lines_and_enlargement_keeps_parabolas():
    """Keys' kernel is of third order: it reproduces parabolas when it interpolates; shrunk, it keeps straight lines."""
    small, big = torch.arange(8, dtype=F64), (torch.arange(32, dtype=F64) + 0.5) / 4 - 0.5
    assert torch.allclose((enlargement_matrix(32, 4) @ small**2)[8:-8], big[8:-8] ** 2, atol=1e-12)
    assert torch.allclose((bicubic_matrix(32, 4) @ big)[2:-2], small[2:-2], atol=1e-12)
    assert not torch.allclose(cubic(torch.tensor(1.5, dtype=F64), -0.75), cubic(torch.tensor(1.5, dtype=F64)))


def test_the_adjoint_of_bicubic_shrinking_is_bicubic_enlargement_of_the_same_kernel():
    """A^T = enlargement / f^2, border included: kernel shifts sum to 1, so neither has to be rescaled.

    With PyTorch's default kernel (a = -3/4), and with repeated pixels, it is not.
    """
    y, A = noise(1, 16, 16), Bicubic((1, 64, 64), 4, F64)
    up = enlargement_matrix(64, 4)
    assert torch.allclose(up @ y @ up.T / 16, A.adjoint(y), atol=1e-14)
    theirs = interpolate(y, scale_factor=4, mode="bicubic", antialias=True)  # with antialias: a = -1/2
    assert torch.allclose((up @ y @ up.T)[..., 8:-8, 8:-8], theirs[..., 8:-8, 8:-8], atol=1e-12)
    for false in (interpolate(y, scale_factor=4, mode="bicubic"), interpolate(y, scale_factor=4, mode="nearest")):
        assert (norm(false / 16 - A.adjoint(y)) / norm(A.adjoint(y))).min() > 0.05


def test_bicubic_singular_values_fall_by_the_square_root_of_2_on_each_axis():
    """From f^-1/2 for the constant to f^-1/2 |K(1/2)| sqrt 2 at the Nyquist frequency of the small grid.

    K(1/2) = 1/2 is the kernel's Fourier transform there, and two frequencies fold onto it. A grid of n / f pixels stops
    a little short of it, and sampling the stretched kernel changes K by O(1 / f^2): 2 % in all.
    """
    for n, f in ((64, 4), (128, 4), (128, 8)):
        s = torch.linalg.svdvals(bicubic_matrix(n, f))
        assert s.max() == pytest.approx(f**-0.5, rel=1e-9)
        assert s.min() == pytest.approx((2 * f) ** -0.5, rel=0.02)


def test_colour_is_the_mean_and_its_basis_the_grey_axis():
    A, x = Colourisation((3, 4, 4), F64), noise(3, 4, 4)
    assert torch.allclose(A(x), x.mean(1, keepdim=True))
    assert torch.allclose(A.vt(x)[:, 0], x.sum(1) / 3**0.5)
    assert torch.allclose(A.pinv(A(x)), x.mean(1, keepdim=True).expand(-1, 3, -1, -1))


def test_strokes_cover_what_they_should_and_repeat():
    """At least the share asked for, less than one segment more: 0.33 of the side by the brush, with round ends."""
    width, segment = 0.1, 0.33 * 0.1 + np.pi * 0.05**2
    for seed in range(20):
        mask = free_form_mask((3, 64, 64), 0.35, Rng([seed]), width)
        share = 1 - float(mask.double().mean())
        assert 0.35 <= share < 0.35 + segment * 1.2  # 1.2: pixels at the edge of the brush
        assert torch.equal(mask[0], mask[2])
    assert torch.equal(mask, free_form_mask((3, 64, 64), 0.35, Rng([19]), width))
    assert not torch.equal(mask, free_form_mask((3, 64, 64), 0.35, Rng([18]), width))


def pillow(levels: np.ndarray, quality: int, **options) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "JPEG", quality=quality, **options)
    return np.asarray(Image.open(buffer), dtype=float)


@pytest.mark.parametrize("quality", [5, 10, 50, 75])
def test_jpeg_is_pillows(quality):
    """Luminance, to 0.6 grey levels: half a level because Pillow rounds pixels, and 0.1 for its fixed-point inverse.

    Its forward transform keeps coefficients to 1/8 of a level, so that one within 0.15 of the edge between two steps
    may be rounded to the other side; blocks with such a coefficient are left out (under 10 % of them at quality 10).
    """
    levels = ((data.chest("test")[0][:40] + 1) * 127.5).round().clamp(16, 240)
    A = JPEG((1, 64, 64), quality, F64)
    x = levels.double() / 127.5 - 1
    z, ours = A.coefficients(x), (A(x) + 1) * 127.5
    theirs = torch.from_numpy(np.stack([pillow(image[0].numpy().astype(np.uint8), quality) for image in levels]))[
        :, None
    ]
    off = (ours.clamp(0, 255) - theirs).abs().reshape(40, 8, 8, 8, 8).amax((2, 4))  # of each block
    steps = quantisation_table(quality)[:, None, :]
    clear = ((z - z.floor() - 0.5).abs()[:, 0] * steps).amin((2, 4)) > 0.15
    assert clear.double().mean() > (0.9 if quality <= 10 else 0.3)
    assert off[clear].max() < 0.6


def test_jpeg_tables_are_pillows():
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG", quality=30)
    tables = Image.open(buffer).quantization
    for k, chroma in ((0, False), (1, True)):
        assert quantisation_table(30, chroma).flatten().tolist() == list(map(float, tables[k]))


def test_jpeg_in_colour_is_near_pillows():
    """Pillow rounds Y, C_b, C_r to whole levels as well, and its inverse too: two levels on average is ample."""
    levels = ((data.patches("test")[:4, :, :64, :64] + 1) * 127.5).round()
    ours = ((JPEG((3, 64, 64), 75, F64)(levels.double() / 127.5 - 1) + 1) * 127.5).clamp(0, 255)
    rgb = levels.permute(0, 2, 3, 1).numpy().astype(np.uint8)
    theirs = np.stack([pillow(x, 75, subsampling=0) for x in rgb])
    assert np.abs(ours.permute(0, 2, 3, 1).numpy() - theirs).mean() < 1


def test_jpeg_twice_is_jpeg_once():
    A = JPEG((3, 16, 24), 10, F64)
    x = noise(3, 16, 24) / 3
    assert torch.allclose(A(A(x)), A(x), atol=1e-12) and (A(x) - x).abs().max() > 0.1


def test_jpegs_derivative_is_that_of_the_average_over_dither():
    """The mean over uniform shifts of the grid is the identity; over 64 equally spaced ones, up to 1/128 of a step.

    So is its derivative, which is what ``vjp`` and automatic differentiation return.
    """
    A = JPEG((3, 16, 16), 30, F64)
    x, v = noise(3, 16, 16) / 3, noise(3, 16, 16, seed=7)
    z = A.coefficients(x)
    shifts = (torch.arange(64, dtype=F64) + 0.5) / 64 - 0.5
    average = torch.stack([(z + u).round() - u for u in shifts]).mean(0)
    assert (average - z).abs().max() < 1 / 128 + 1e-9
    assert torch.allclose(Operator.vjp(A, x, v), v, atol=1e-12) and torch.equal(A.vjp(x, v), v)


def test_clips_derivative_is_a_finite_difference():
    A, x, v = Clip((3, 8, 8)), noise(3, 8, 8), noise(3, 8, 8, seed=3)
    x = torch.where((2 * x.abs() - 1).abs() < 0.05, x + 0.2, x)  # not at the kink
    d = noise(3, 8, 8, seed=9)
    slope = dot(A(x + 1e-6 * d) - A(x - 1e-6 * d), v) / 2e-6
    assert torch.allclose(dot(A.vjp(x, v), d), slope, rtol=1e-7)
    assert A(torch.tensor([[0.3, 0.6, -9.0]])).tolist() == [pytest.approx([0.6, 1.0, -1.0])]


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.name)
def test_tasks_make_operators_that_keep_rows_apart(task):
    A, model = task.draw((3, 64, 64), np.random.default_rng(0))
    x = noise(3, 64, 64) / 3
    assert torch.allclose(A(x[1:]), A(x)[1:], atol=1e-12) and model.std > 0
    assert A.to(dtype=torch.float32)(x.float()).dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bicubic((1, 6, 6), 4), "does not divide an image of 6x6"),
        (lambda: Colourisation((1, 8, 8)), "at least 2 channels"),
        (lambda: JPEG((1, 12, 8), 10), "multiples of 8"),
        (lambda: JPEG((1, 8, 8), 0), "1 ... 100"),
        (lambda: Clip((1, 8, 8), 0.0), "positive"),
        (lambda: free_form_mask((1, 8, 8), 0.95, Rng([0])), "missing pixels"),
        (lambda: free_form_mask((1, 8, 8), 0.5, Rng([0]), 0.0), "brush width"),
    ],
)
def test_bad_input_is_one_clear_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
