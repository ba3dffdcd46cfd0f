"""The Gaussian field against the dense Gaussian with the same covariance."""

import numpy as np
import pytest
import torch

from scoreatlas.measurement import Gaussian, Measurement, simulate
from scoreatlas.operators.base import Linear, real_rows
from scoreatlas.operators.blur import Blur, gaussian_kernel
from scoreatlas.operators.identity import Identity
from scoreatlas.operators.inpainting import Inpainting, box_mask
from scoreatlas.operators.mri import CartesianMRI, MultiCoilMRI
from scoreatlas.operators.superresolution import BlockAverage
from scoreatlas.priors.diffusion import Denoiser
from scoreatlas.priors.gaussian_field import GaussianField
from scoreatlas.priors.mixture import GaussianMixture, gaussian
from scoreatlas.rng import Rng
from scoreatlas.solvers.classical.pseudo_inverse import PseudoInverse
from scoreatlas.solvers.classical.wiener import Wiener

F64 = torch.float64
SHAPE = (1, 6, 8)


def rng(*seeds: int, rows: int = 1) -> Rng:
    return Rng(seeds, rows, dtype=F64)


def field(shape: tuple[int, int, int] = SHAPE) -> GaussianField:
    mean = 0.3 * rng(10).normal(*shape)[0]
    return GaussianField(mean, GaussianField.power_law(shape, 2.0, 0.5, F64).spectrum)


def dense(f: GaussianField) -> GaussianMixture:
    """The same law with its covariance as a matrix, one channel after the other."""
    c, h, w = f.shape
    dft = np.kron(np.fft.fft(np.eye(h), norm="ortho"), np.fft.fft(np.eye(w), norm="ortho"))
    one = (dft.conj().T * f.spectrum.numpy().ravel()) @ dft
    return gaussian(f.mean, torch.from_numpy(np.kron(np.eye(c), one.real)))


def operators() -> dict[str, Linear]:
    coils = torch.view_as_complex(rng(1).normal(3, 6, 8, 2)[0])
    lines = (torch.arange(8) % 3 == 0).expand(6, 8)
    return {
        "identity": Identity(SHAPE, F64),
        "blur": Blur(gaussian_kernel(5, 1.2), SHAPE, F64),
        "box": Inpainting(box_mask(SHAPE, 1, 2, 3, 4), F64),
        "blocks": BlockAverage(SHAPE, 2, F64),
        "one coil": CartesianMRI(lines, F64),
        "coils": MultiCoilMRI(coils, lines),
    }


@pytest.fixture(params=operators().items(), ids=lambda item: item[0])
def problem(request: pytest.FixtureRequest) -> tuple[GaussianField, Measurement]:
    a = request.param[1]
    f = field(a.shape)
    return f, simulate(f.sample(rng(2, 3)), a, Gaussian(0.1), rng(4, 5))


def test_posterior_mean_is_that_of_the_dense_gaussian(problem: tuple[GaussianField, Measurement]) -> None:
    f, m = problem
    mean = f.posterior(m).mean
    for row in range(2):
        want = dense(f).posterior(m, row).mean()
        assert (mean[row] - want).abs().max() < 1e-9  # CG in double precision, condition number below 1e4


def test_posterior_samples_have_the_exact_mean_and_covariance(problem: tuple[GaussianField, Measurement]) -> None:
    f, m = problem
    one = Measurement(m.y[:1], m.A, m.noise)
    n = 1000
    x = f.posterior(one.repeat(n), 60).sample(rng(6, rows=n)).flatten(1)
    exact = dense(f).posterior(one)
    value, vector = torch.linalg.eigh(exact.covariance())
    white = (x - exact.mean().flatten()) @ vector / value.sqrt()
    d = x.shape[1]
    assert white.mean(0).square().sum() * n < d + 5 * (2 * d) ** 0.5  # chi-square with d degrees, five deviations
    spread = torch.linalg.eigvalsh(white.T @ white / n)
    edge = (d / n) ** 0.5 + 4 / n**0.5  # Davidson & Szarek: beyond this with probability below 2 exp(-8)
    assert spread[0] > (1 - edge) ** 2
    assert spread[-1] < (1 + edge) ** 2


def test_wiener_is_the_posterior_mean_and_beats_the_pseudo_inverse() -> None:
    f = field()
    a = Blur(gaussian_kernel(5, 0.7), SHAPE, F64)
    x = f.sample(rng(*range(50)))
    m = simulate(x, a, Gaussian(0.1), rng(*range(50, 100)))
    wiener = Wiener()(m, f, rng(*range(50)))
    assert (wiener[3] - dense(f).posterior(m, 3).mean()).abs().max() < 1e-9
    error = (wiener - x).square().mean()
    expected = dense(f).posterior(m).covariance().diagonal().mean()  # the Bayes risk
    assert error.item() == pytest.approx(expected.item(), rel=0.12)  # 50 x 48 correlated pixels
    assert error < (PseudoInverse()(m, None, rng(*range(50))) - x).square().mean()


def test_pseudo_inverse_is_numpys() -> None:
    for a in operators().values():
        if isinstance(a, MultiCoilMRI):
            continue
        m = Measurement(a(rng(1, 2).normal(*a.shape)), a, Gaussian(0.1))
        want = np.linalg.pinv(a.matrix().numpy(), rcond=1e-6) @ real_rows(m.y).numpy().T
        got = PseudoInverse()(m, None, rng(0, 1)).flatten(1).numpy().T
        assert np.abs(got - want).max() < 1e-9 * max(1, np.abs(want).max()), type(a).__name__


def test_density_and_denoiser_are_those_of_the_dense_gaussian() -> None:
    f = field((2, 6, 5))
    x, sigma = rng(1, 2).normal(2, 6, 5), torch.tensor([0.3, 2.0], dtype=F64)
    g = dense(f)
    assert isinstance(f, Denoiser)
    assert torch.allclose(f.log_prob(x, sigma), g.log_prob(x, sigma), rtol=1e-11)
    assert torch.allclose(f.log_prob(x), g.log_prob(x), rtol=1e-11)
    assert torch.allclose(f(x, sigma), g(x, sigma), atol=1e-11)


def test_tweedie_by_autodiff() -> None:
    """First order: D(x) = x + sigma^2 grad log p_sigma(x). Second: its Jacobian, against autodiff of D."""
    f = field((2, 6, 5))
    x, sigma = rng(1, 2).normal(2, 6, 5).requires_grad_(), torch.tensor([0.3, 2.0], dtype=F64)
    score = torch.autograd.grad(f.log_prob(x, sigma).sum(), x)[0]
    assert torch.allclose(f.score(x, sigma), score, atol=1e-11)
    assert torch.allclose(f(x, sigma), x + sigma.square()[:, None, None, None] * score, atol=1e-11)
    v = rng(3, 4).normal(2, 6, 5)
    pulled = torch.autograd.grad(f(x, sigma), x, v)[0]
    assert torch.allclose(f.jacobian(v, sigma), pulled, atol=1e-12)


def test_spectrum_is_recovered_from_images() -> None:
    f, n = field((2, 6, 8)), 3000
    fit = GaussianField.from_images(f.sample(rng(0, rows=n)))
    # a power has relative variance 2 where the mode is real, 1 elsewhere; two channels; 5 deviations of 48 modes
    assert (fit.spectrum / f.spectrum - 1).abs().max() < 5 * (2 / (2 * n)) ** 0.5
    pixel = f.spectrum.mean().sqrt()
    assert (fit.mean - f.mean).abs().max() < 5 * pixel / n**0.5


def test_power_law_has_its_exponent_and_variance() -> None:
    s = GaussianField.power_law((1, 32, 32), 3.0, 0.5, F64).spectrum
    assert s.mean().item() == pytest.approx(0.25, rel=1e-12)
    assert (s[0, 2] / s[0, 4]).item() == pytest.approx(2.0**3, rel=1e-12)
    x = GaussianField.power_law((1, 32, 32), 0.0, 0.5, F64).sample(rng(*range(20)))
    assert x.std().item() == pytest.approx(0.5, rel=5 / (2 * x.numel()) ** 0.5)


@pytest.mark.parametrize(
    ("spectrum", "message"),
    [
        (torch.ones(4, 5), "need mean"),
        (-torch.ones(4, 4), ">= 0"),
        (torch.arange(16.0).reshape(4, 4) + 1, "symmetric"),
    ],
)
def test_an_impossible_spectrum_is_refused(spectrum: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianField(torch.zeros(1, 4, 4), spectrum)


def test_noise_free_data_and_other_shapes_are_refused() -> None:
    f, y = field(), torch.zeros(1, *SHAPE, dtype=F64)
    with pytest.raises(ValueError, match="needs noise"):
        f.posterior(Measurement(y, Identity(SHAPE), Gaussian(0.0)))
    with pytest.raises(ValueError, match="acts on images"):
        f.posterior(Measurement(y, Identity((1, 4, 4)), Gaussian(0.1)))
