"""Laws of every forward operator, in float64. Tolerances are rounding: 1e-12 times the sizes involved."""

import pytest
import torch
from members import operators, rng

from scoreatlas.linalg import dot, norm
from scoreatlas.operators.base import Diagonalised, Linear, Operator
from scoreatlas.operators.blur import Blur, gaussian_kernel, motion_kernel
from scoreatlas.operators.inpainting import Inpainting, box_mask
from scoreatlas.operators.mri import cartesian_mask
from scoreatlas.operators.superresolution import BlockAverage

OPERATORS = operators()
LINEAR = {k: v for k, v in OPERATORS.items() if isinstance(v, Linear)}
DIAGONALISED = {k: v for k, v in OPERATORS.items() if isinstance(v, Diagonalised)}
each = pytest.mark.parametrize


@each("A", LINEAR.values(), ids=LINEAR.keys())
def test_adjoint(A):
    x, y = rng(0, 1, 2).normal(*A.shape), rng(3, 4, 5).normal_like(A(rng(0, 1, 2).normal(*A.shape)))
    assert torch.allclose(dot(A(x), y), dot(x, A.adjoint(y)), atol=1e-12 * float(norm(x).max() * norm(y).max()))


@each("A", OPERATORS.values(), ids=OPERATORS.keys())
def test_vjp_is_autodiff(A):
    x = rng(0, 1, 2).normal(*A.shape)
    v = rng(3, 4, 5).normal_like(A(x))
    assert torch.allclose(A.vjp(x, v), Operator.vjp(A, x, v), atol=1e-12)


@each("A", LINEAR.values(), ids=LINEAR.keys())
def test_linear(A):
    x, z = rng(0, 1, 2).normal(*A.shape), rng(3, 4, 5).normal(*A.shape)
    assert torch.allclose(A(2 * x - 3 * z), 2 * A(x) - 3 * A(z), atol=1e-12)


@each("A", OPERATORS.values(), ids=OPERATORS.keys())
def test_rows_are_independent(A):
    x = rng(0, 1, 2).normal(*A.shape)
    y = A(x)
    assert torch.allclose(A(x[1:2]), y[1:2], atol=1e-14)
    assert torch.allclose(A.vjp(x[1:2], y[1:2]), A.vjp(x, y)[1:2], atol=1e-14)


@each("A", OPERATORS.values(), ids=OPERATORS.keys())
def test_dtype_follows_the_operator(A):
    x = rng(0).normal(*A.shape).float()
    y = A.to(dtype=torch.float32)(x)
    assert y.dtype in (torch.float32, torch.complex64)
    assert torch.allclose(y.to(torch.complex128), A(x.double()).to(torch.complex128), atol=1e-5)


@each("A", DIAGONALISED.values(), ids=DIAGONALISED.keys())
def test_singular_value_decomposition(A):
    x = rng(0, 1, 2).normal(*A.shape)
    z, y = A.vt(x), A(x)
    assert torch.allclose(norm(z), norm(x), rtol=1e-12)  # V is orthonormal ...
    assert torch.allclose(A.v(z), x, atol=1e-12)  # ... and complete
    assert torch.allclose(A.u(A.singular_values * z), y, atol=1e-12)
    assert torch.allclose(A.v(A.singular_values * A.ut(y)), A.adjoint(y), atol=1e-12)
    assert torch.allclose(A.ut(A.u(z)), torch.where(A.singular_values > 0, z, 0), atol=1e-12)  # U^T U = I on the range


@each("A", DIAGONALISED.values(), ids=DIAGONALISED.keys())
def test_singular_values_are_those_of_the_matrix(A):
    dense = torch.linalg.svdvals(A.matrix())
    size = A.vt(rng(0).normal(*A.shape))[0]
    ours = A.singular_values.expand(size.shape).flatten()
    ours = ours.repeat(2) if size.is_complex() and A.shape[0] == 2 else ours  # a complex coefficient is two real ones
    ours = ours.sort(descending=True).values[: len(dense)]
    assert torch.allclose(ours, dense[: len(ours)], atol=1e-10)


@each("A", DIAGONALISED.values(), ids=DIAGONALISED.keys())
def test_pseudo_inverse(A):
    y = A(rng(0, 1).normal(*A.shape))
    assert torch.allclose(A(A.pinv(y)), y, atol=1e-9)  # A A+ A = A
    dense = torch.linalg.pinv(A.matrix(), rtol=1e-6)
    real = torch.view_as_real(y).flatten(1) if y.is_complex() else y.flatten(1)
    assert torch.allclose(A.pinv(y).flatten(1), real @ dense.T, atol=1e-7)


def test_block_average_is_the_mean_of_blocks():
    x = torch.arange(16.0, dtype=torch.float64).reshape(1, 1, 4, 4)
    assert BlockAverage((1, 4, 4), 2, torch.float64)(x).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


def test_blur_is_circular_convolution():
    kernel = rng(5).normal(3, 5)[0]
    x = rng(6).normal(1, 8, 8)
    y = torch.zeros_like(x)
    for i in range(3):
        for j in range(5):
            y += kernel[i, j] * x.roll((i - 1, j - 2), (2, 3))
    assert torch.allclose(Blur(kernel, (1, 8, 8), torch.float64)(x), y, atol=1e-12)


def test_kernels_sum_to_one_and_keep_their_centre():
    for kernel in (gaussian_kernel(9, 2.0), motion_kernel(9, 7.0, 25.0)):
        i = torch.arange(9, dtype=torch.float64) - 4
        assert abs(float(kernel.sum()) - 1) < 1e-12
        assert abs(float((kernel.sum(1) * i).sum())) < 1e-9 and abs(float((kernel.sum(0) * i).sum())) < 1e-9
    variance = float((gaussian_kernel(41, 2.0).sum(0) * (torch.arange(41) - 20) ** 2).sum())
    assert abs(variance - 4) < 1e-3  # sampling a Gaussian of std 2 changes its variance by exp(-2 pi^2 4)


def test_cartesian_mask_keeps_budget_and_centre():
    mask = cartesian_mask((16, 32), 4, 0.125, rng(3))
    assert mask.sum(1).tolist() == [8] * 16
    assert mask[0, [0, 1, 31]].all()  # the four lowest frequencies are -2 or 2, -1, 0, 1


@each(
    ("make", "message"),
    [
        (lambda: Inpainting(torch.zeros(1, 4, 4, dtype=torch.bool)), "sees no pixel"),
        (lambda: Inpainting(torch.ones(1, 4, 4)), "boolean"),
        (lambda: box_mask((1, 8, 8), 5, 5, 4, 4), "leaves the 8x8 image"),
        (lambda: BlockAverage((1, 6, 6), 4), "does not divide"),
        (lambda: Blur(torch.ones(9, 9), (1, 8, 8)), "larger than the image"),
        (lambda: cartesian_mask((8, 8), 8, 0.5, rng(0)), "centre alone"),
    ],
)
def test_bad_input_is_one_clear_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
