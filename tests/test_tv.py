"""Total variation against its dual, closed forms, scikit-image and an independent solver."""

import numpy as np
import pytest
import torch
from skimage.restoration import denoise_tv_chambolle
from torch.utils._python_dispatch import TorchDispatchMode

from scoreatlas.measurement import Gaussian, Measurement, simulate
from scoreatlas.operators.base import Linear
from scoreatlas.operators.blur import Blur, gaussian_kernel
from scoreatlas.operators.dense import Dense
from scoreatlas.operators.identity import Identity
from scoreatlas.operators.inpainting import Inpainting
from scoreatlas.operators.mri import MultiCoilMRI, as_complex
from scoreatlas.priors.tv import TotalVariation
from scoreatlas.rng import Rng
from scoreatlas.solvers.classical.tv import PrimalDualTV

F64 = torch.float64
BOTH = pytest.mark.parametrize("isotropic", [True, False])


def rng(*seeds: int) -> Rng:
    return Rng(seeds, dtype=F64)


def row(values: list[float]) -> torch.Tensor:
    """A one-dimensional signal as an image (1, 1, 1, n)."""
    return torch.tensor(values, dtype=F64)[None, None, None]


def multi_coil() -> Linear:
    """Three coils with unit sum of squares, every point of k-space sampled: an isometry."""
    c = rng(5).normal(3, 6, 5, 2)[0]
    c = torch.view_as_complex(c)
    return MultiCoilMRI(c / c.abs().square().sum(0).sqrt(), torch.ones(6, 5, dtype=torch.bool))


@pytest.mark.parametrize("shape", [(1, 7, 5), (2, 4, 6), (1, 1, 9), (3, 8, 1)])
def test_divergence_is_minus_the_adjoint_of_the_gradient(shape: tuple[int, int, int]) -> None:
    x, p = rng(0, 1).normal(*shape), rng(2, 3).normal(2, *shape)
    forward = (TotalVariation.gradient(x) * p).sum()
    backward = -(x * TotalVariation.divergence(p)).sum()
    assert forward.item() == pytest.approx(backward.item(), rel=1e-12, abs=1e-12)


def test_value_of_a_square_is_its_perimeter() -> None:
    x = torch.zeros(1, 1, 9, 9, dtype=F64)
    x[..., 2:6, 3:8] = 0.5  # 4 x 5 pixels, height 1/2; the isotropic length cuts one corner
    assert TotalVariation(2.0, isotropic=False).value(x).item() == pytest.approx(2 * 0.5 * 18, rel=1e-14)
    assert TotalVariation(2.0).value(x).item() == pytest.approx(2 * 0.5 * (18 - 2 + 2**0.5), rel=1e-14)


@BOTH
def test_value_of_a_complex_image_does_not_depend_on_its_phase(isotropic: bool) -> None:
    x = rng(0).normal(2, 6, 7)
    z = as_complex(x) * torch.exp(torch.tensor(0.7j, dtype=torch.complex128))
    turned = torch.stack([z.real, z.imag], 1)
    tv = TotalVariation(1.3, isotropic)
    assert tv.value(turned).item() == pytest.approx(tv.value(x).item(), rel=1e-12)


@BOTH
def test_prox_is_optimal_by_the_duality_gap(isotropic: bool) -> None:
    tv, step = TotalVariation(3.0, isotropic), 0.05
    y = rng(0, 1).normal(2, 12, 10)
    gaps = [tv.gap(y, tv.dual(y, step, k), step) for k in (0, 10, 100, 1000)]
    for before, after in zip(gaps, gaps[1:], strict=False):
        assert (after < before).all()
    assert (gaps[-1] < 1e-7).all()  # measured; the theory, 16 |p*|^2 / k^2, allows 1e-4
    assert (gaps[-1] > -1e-12).all()


@BOTH
def test_prox_is_nearer_than_the_gap_says_and_minimal(isotropic: bool) -> None:
    tv, step = TotalVariation(2.0, isotropic), 0.1
    y = rng(0).normal(1, 8, 8)
    best = tv.prox(y, step, 4000)
    rough = tv.dual(y, step, 20)
    error = (y + tv.divergence(rough) - best).square().sum()
    assert error <= 2 * tv.gap(y, rough, step).item()

    def objective(x: torch.Tensor) -> torch.Tensor:
        return 0.5 * (x - y).square().flatten(1).sum(1) + step * tv.value(x)

    for seed in range(5):
        assert objective(best + 1e-3 * rng(seed).normal(1, 8, 8)) > objective(best)


def test_prox_equals_scikit_image_with_weight_step_lambda() -> None:
    y = rng(3).normal(1, 16, 16)
    ours = TotalVariation(4.0).prox(y, 0.05, 3000)
    theirs = denoise_tv_chambolle(y[0, 0].numpy(), weight=4.0 * 0.05, eps=1e-14, max_num_iter=20000)
    assert np.abs(ours[0, 0].numpy() - theirs).max() < 2e-4  # their first-order iteration stops there


@pytest.mark.parametrize("isotropic", [True, False])
def test_two_plateaus_move_by_lambda_over_their_length(isotropic: bool) -> None:
    a, b, w = 4, 6, 0.3
    x = TotalVariation(w, isotropic).prox(row([-1.0] * a + [1.0] * b), 1.0, 2000)
    assert torch.allclose(x, row([-1 + w / a] * a + [1 - w / b] * b), atol=1e-9)


def test_two_plateaus_merge_at_their_mean() -> None:
    a, b = 4, 6  # merge when lambda reaches height * a b / (a + b) = 4.8
    x = TotalVariation(5.0).prox(row([-1.0] * a + [1.0] * b), 1.0, 4000)
    assert torch.allclose(x, torch.full_like(x, (b - a) / (a + b)), atol=1e-9)


def test_one_dimensional_prox_is_the_taut_string() -> None:
    """The string: cumulative residuals stay in a tube of radius lambda and touch its wall wherever x jumps."""
    w, y = 0.8, rng(4).normal(1, 1, 40)
    x = TotalVariation(w).prox(y, 1.0, 20000)
    string = (y - x).flatten().cumsum(0)
    jump = torch.diff(x.flatten())
    assert string.abs().max() <= w + 1e-9
    assert abs(string[-1]) < 1e-9
    moving = jump.abs() > 1e-5
    assert 3 < int(moving.sum()) < 35
    assert torch.allclose(string[:-1][moving], -w * jump[moving].sign(), atol=1e-6)


def dense_minimum(a: np.ndarray, y: np.ndarray, std: float, weight: float, shape: tuple[int, int]) -> np.ndarray:
    """Isotropic TV by accelerated projected ascent on a dense dual; asserts its own duality gap."""
    h, w = shape
    image = np.arange(h * w).reshape(shape)
    d = np.zeros((2, h * w, h * w))
    for axis, (i, j) in enumerate([(image[:-1], image[1:]), (image[:, :-1], image[:, 1:])]):
        d[axis, i.ravel(), i.ravel()], d[axis, i.ravel(), j.ravel()] = -1, 1
    inverse, b = np.linalg.inv(a.T @ a / std**2), a.T @ y / std**2
    k = d.reshape(-1, h * w)
    size = np.linalg.norm(k @ inverse @ k.T, 2)
    p = r = np.zeros(2 * h * w)
    t = 1.0
    for _ in range(20000):
        s = (r + k @ (inverse @ (b - k.T @ r)) / size).reshape(2, -1)
        new = (s / np.maximum(np.linalg.norm(s, axis=0) / weight, 1)).ravel()
        t, last = (1 + np.sqrt(1 + 4 * t * t)) / 2, t
        p, r = new, new + (last - 1) / t * (new - p)
    x = inverse @ (b - k.T @ p)
    assert weight * np.linalg.norm((k @ x).reshape(2, -1), axis=0).sum() - (k @ x) @ p < 1e-9
    return x


def test_primal_dual_reaches_the_minimum_of_an_independent_solver() -> None:
    matrix = torch.eye(30, dtype=F64) + 0.3 * rng(7).normal(30, 30)[0] / 30**0.5 * 2
    a, std, weight = Dense(matrix, (1, 6, 5)), 0.3, 2.0
    m = simulate(rng(8).normal(1, 6, 5), a, Gaussian(std), rng(9))
    want = dense_minimum(matrix.numpy(), m.y[0].numpy(), std, weight, (6, 5))
    x = PrimalDualTV(8000)(m, TotalVariation(weight), rng(0))
    assert np.abs(x.flatten().numpy() - want).max() < 1e-6  # the dual's gap of 1e-9 allows 2e-5


@BOTH
def test_denoising_is_the_prox_at_sigma_squared(isotropic: bool) -> None:
    tv = TotalVariation(4.0, isotropic)
    m = simulate(rng(1, 2).normal(1, 8, 9), Identity((1, 8, 9), F64), Gaussian(0.3), rng(3, 4))
    x = PrimalDualTV(6000)(m, tv, rng(0, 1))
    assert torch.allclose(x, tv.prox(m.y, 0.3**2, 6000), atol=1e-6)


def test_isometric_coils_reduce_to_the_prox() -> None:
    """A^T A = I, so only A^T y matters; the power iteration and complex data are on the way."""
    a = multi_coil()
    m = simulate(rng(1).normal(2, 6, 5), a, Gaussian(0.3), rng(3))
    tv = TotalVariation(3.0)
    x = PrimalDualTV(6000)(m, tv, rng(0))
    assert torch.allclose(x, tv.prox(a.adjoint(m.y), 0.3**2, 6000), atol=1e-6)


def test_noise_free_data_are_a_constraint() -> None:
    """Between seen pixels of a line any monotone filling is optimal: TV is that of the seen ones."""
    mask = torch.tensor([1, 0, 0, 1, 1, 0, 1, 0, 0, 1], dtype=torch.bool)[None, None]
    y = torch.tensor([[0.0, 0.7, -0.4, 0.1, 0.9]], dtype=F64)
    m = Measurement(y, Inpainting(mask, F64), Gaussian(0.0))
    tv = TotalVariation(1.0)
    x = PrimalDualTV(5000)(m, tv, rng(0))
    assert torch.allclose(m.A(x), y, atol=1e-7)
    assert tv.value(x).item() == pytest.approx(torch.diff(y).abs().sum().item(), abs=1e-6)


@pytest.mark.parametrize("a", [Identity((2, 6, 5), F64), Blur(gaussian_kernel(3, 1.0), (2, 6, 5), F64), multi_coil()])
def test_rows_are_independent(a: Linear) -> None:
    m = simulate(rng(1, 2, 3).normal(2, 6, 5), a, Gaussian(0.2), rng(4, 5, 6))
    solver, tv = PrimalDualTV(50), TotalVariation(3.0)
    together = solver(m, tv, rng(7, 8, 9))
    alone = solver(Measurement(m.y[1:2], a, m.noise), tv, rng(8))
    assert torch.allclose(together[1:2], alone, rtol=0, atol=1e-10)


class NoSynchronisation(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert "_local_scalar_dense" not in str(func), "a tensor was read on the host"
        return func(*args, **(kwargs or {}))


def test_the_loop_never_waits_for_the_device() -> None:
    m = simulate(rng(1).normal(2, 6, 5), multi_coil(), Gaussian(0.2), rng(4))
    with NoSynchronisation():
        PrimalDualTV(3)(m, TotalVariation(3.0), rng(0))


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_no_prior_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="must be finite and > 0"):
        TotalVariation(weight)
