"""k-space of real images: masks, symmetry, phase, and spokes off the grid."""

import math

import pytest
import torch

from scoreatlas import data
from scoreatlas.bench.tasks_mrict import TASKS
from scoreatlas.linalg import norm
from scoreatlas.operators.mri import CartesianMRI, MultiCoilMRI, cartesian_mask
from scoreatlas.operators.mri_masks import equispaced_mask, poisson_mask, spoke_mask
from scoreatlas.operators.mri_real import PhasedMRI, RealMRI, central_kspace
from scoreatlas.operators.radial import RadialMRI
from scoreatlas.operators.radon import Radon, even_angles
from scoreatlas.rng import Rng
from scoreatlas.solvers.projection.mccann import McCann

F64 = torch.float64


def rng(seed: int) -> Rng:
    return Rng([seed], dtype=F64)


def test_a_real_image_is_the_real_part_of_a_complex_one():
    mask = cartesian_mask((16, 12), 3, 0.2, rng(0))
    x = rng(1).normal(1, 16, 12)
    pair = torch.cat([x, torch.zeros_like(x)], 1)
    assert torch.allclose(RealMRI(mask, F64)(x), CartesianMRI(mask, F64)(pair), atol=1e-12)


def test_symmetry_fills_the_mirror_image():
    """Columns 0 ... n / 2 determine a real image wholly; the complex one they leave half unseen."""
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[:, :9] = True
    A = RealMRI(mask, F64)
    x = rng(2).normal(1, 16, 16)
    assert torch.allclose(A.pinv(A(x)), x, atol=1e-12)
    assert sorted(set(A.singular_values.flatten().tolist())) == pytest.approx([math.sqrt(0.5), 1.0])


def test_phased_is_the_affine_part_of_the_physics():
    """from_kspace(M F S rho) = A x for rho = exp(i phi) a (x + 1) / 2."""
    coils = torch.view_as_complex(rng(3).normal(3, 16, 16, 2)[0])
    phase, mask, a = rng(4).normal(16, 16)[0], cartesian_mask((16, 16), 2, 0.2, rng(5)), 0.7
    A = PhasedMRI(coils, phase, a, mask)
    x = rng(6).normal(1, 16, 16)
    rho = torch.polar(torch.ones_like(phase), phase) * a * (x[0, 0] + 1) / 2
    kspace = torch.fft.fft2(coils * rho, norm="ortho")[None]
    assert torch.allclose(A.from_kspace(kspace), A(x), atol=1e-12)
    whole = MultiCoilMRI(coils, mask)(torch.stack([rho.real, rho.imag])[None])
    assert torch.allclose(whole, A._gather(kspace), atol=1e-12)


def test_the_centre_of_kspace_is_the_same_image_with_larger_pixels():
    """A smooth image: sampled on 48 or on 32 points it is the same function, brighter by 48 / 32 in k-space units."""

    def wave(n: int) -> torch.Tensor:
        at = torch.arange(n, dtype=F64) / n
        return torch.cos(2 * math.pi * (3 * at[:, None] - 5 * at)) + 0.3 * torch.sin(2 * math.pi * 7 * at)

    small = torch.fft.ifft2(central_kspace(torch.fft.fft2(wave(48), norm="ortho"), 32), norm="ortho")
    assert torch.allclose(small.real, wave(32) * 48 / 32, atol=1e-12)
    with pytest.raises(ValueError, match="larger than k-space"):
        central_kspace(torch.zeros(8, 8), 9)


def test_the_real_coils_combine_to_one_image():
    """Stored k-space and sensitivities agree after both are cropped: S rho explains the coil images up to noise."""
    brain = data.brain()
    k = central_kspace(brain.kspace, 128)
    coils = torch.fft.ifft2(central_kspace(torch.fft.fft2(brain.coils), 128)) * (128 / 224) ** 2
    images = torch.fft.ifft2(k, norm="ortho")
    power = coils.abs().square().sum(0)
    rho = (coils.conj() * images).sum(0) / power.clamp_min(0.1)
    head = power > 0.9
    left = (images - coils * rho)[:, head]
    assert float(left.abs().square().mean().sqrt() / images[:, head].abs().square().mean().sqrt()) < 0.1


@pytest.mark.parametrize("n", [16, 17])
def test_spokes_along_an_axis_are_a_row_of_the_grid(n):
    """The first spoke lies on the horizontal axis; with n samples it is the grid's own row, up to the origin."""
    x = rng(7).normal(2, n, n)
    y = RadialMRI((n, n), 4, dtype=F64)(x)[0, :n]
    moved = x.roll((-(n // 2), -(n // 2)), (2, 3))
    row = torch.fft.fft2(torch.complex(moved[:, 0], moved[:, 1]), norm="ortho")[0, 0]
    want = row[torch.arange(n) - n // 2] if n % 2 == 0 else None
    if want is None:  # frequencies (k / n - 1 / 2) fall between the grid's when n is odd: sum by hand
        at = torch.arange(n, dtype=F64) - n // 2
        waves = torch.exp(-2j * math.pi * torch.outer(torch.arange(n, dtype=F64) / n - 0.5, at))
        want = waves @ torch.complex(x[0, 0], x[0, 1]).sum(0) / n
    assert torch.allclose(y, want, atol=1e-12)


def test_a_spoke_is_the_transform_of_a_view():
    """Projection-slice theorem: 1-D transform of the view at theta = spoke at theta. Exact for views along the axes; a
    sampled image has no other exact views, so the rest agrees as linear interpolation does, 2 % for this bump."""
    n = 33
    at = torch.arange(n, dtype=F64) - n // 2
    bump = torch.exp(-0.5 * ((at[:, None] - 2) ** 2 + (at + 3) ** 2) / 3**2)[None, None]
    y = RadialMRI((n, n), 4, dtype=F64)(torch.cat([bump, torch.zeros_like(bump)], 1)).reshape(4, n) * n
    A = Radon((1, n, n), even_angles(4), bins=47, dtype=F64)
    views = A(bump)[0] / A.pixel
    frequency = 2 * math.pi * (torch.arange(n, dtype=F64) / n - 0.5)
    waves = torch.exp(-1j * torch.outer(frequency, torch.arange(47, dtype=F64) - 23))
    for k, (spoke, view) in enumerate(zip(y, views, strict=True)):
        # rows count downwards: the spoke at +theta in rows is the view at -theta in y up
        there = waves @ views[(4 - k) % 4].to(torch.complex128)
        there = there.conj() if k else there  # theta - 180 degrees runs backwards
        assert (spoke - there).abs().max() < 0.02 * spoke.abs().max(), (k, view.shape)


def test_masks():
    equi = equispaced_mask((8, 32), 4, 0.125, offset=1)
    assert equi[0, [0, 1, 5, 31]].all() and not equi[0, [3, 4, 6]].any() and int(equi[0].sum()) == 8 + 3
    spokes = spoke_mask((33, 33), 2)  # two diameters: the axes
    assert torch.equal(spokes.nonzero()[:, 0] * spokes.nonzero()[:, 1], torch.zeros(65, dtype=torch.long))
    points = poisson_mask((32, 32), 6, 0.2, rng(8))
    assert int(points.sum()) == round(32 * 32 / 6)
    k = torch.fft.fftfreq(32)
    radius = 2 * torch.hypot(k[:, None], k)
    assert points[radius <= 0.2].all()
    assert points[(radius > 0.2) & (radius < 0.6)].float().mean() > 1.5 * points[radius > 0.9].float().mean()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: equispaced_mask((8, 8), 0, 0.1), "acceleration >= 1"),
        (lambda: spoke_mask((8, 8), 0), "at least one spoke"),
        (lambda: poisson_mask((8, 8), 8, 0.9, rng(0)), "disc alone"),
        (lambda: RadialMRI((8, 8), 0), "at least one spoke"),
        (lambda: PhasedMRI(torch.ones(2, 8, 8), torch.ones(8, 8), 1.0, torch.ones(8, 8) > 0), "must be complex"),
        (lambda: McCann("median"), "'sample', 'map' or 'mmse'"),
    ],
)
def test_bad_input_is_one_clear_line(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.name)
def test_tasks_make_operators_of_their_shape(task):
    """Data of order one and an operator whose largest singular value is no more than one and a half."""
    import numpy as np

    A = task.operator((1, 32, 32), np.random.default_rng(0))
    x = rng(9).normal(*A.shape)
    for _ in range(20):
        x = A.adjoint(A(x / norm(x)))
    assert 0.5 < float(norm(x).sqrt()) < 1.5
