"""Blind denoisers: homogeneity and Euler's identity, levels and Jacobians against closed forms."""

import pytest
import torch

from scoreatlas.linalg import norm
from scoreatlas.nn.bf_cnn import BiasFreeCNN, BlindLoss, windows
from scoreatlas.priors.blind_denoiser import corrected_level, homogeneity_error, jacobian, noise_level
from scoreatlas.priors.diffusion import Denoiser
from scoreatlas.priors.mixture import autoregressive
from scoreatlas.rng import Rng

F64 = torch.float64


def network(bias: bool = False) -> BiasFreeCNN:
    """Random weights, all layers of them, constants included."""
    torch.manual_seed(0)
    net = BiasFreeCNN(3, 8, 4, bias=bias).double()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return net


@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
def test_without_constants_the_network_scales_and_is_its_jacobian(size):
    """D(a x) = a D(x), and J(x) x = D(x) by Euler's identity; both to rounding."""
    net, x = network(), Rng([0, 1], dtype=F64).normal(3, *size)
    assert isinstance(net, Denoiser)
    assert net(x).shape == x.shape and torch.equal(net(x, torch.tensor(0.7)), net(x))
    assert homogeneity_error(net, x, 17.0).max() < 1e-12
    pushed = torch.func.jvp(net, (x,), (x,))[1]
    assert (pushed - net(x)).abs().max() < 1e-12
    assert homogeneity_error(network(bias=True), x, 17.0).min() > 1e-3


def test_the_receptive_field_is_what_the_docstring_says():
    """patch * (2 layers + 1) pixels wide: nothing beyond it moves, and something at its edge does."""
    net, x = network(), Rng([0], dtype=F64).normal(3, 40, 40).requires_grad_()
    moved = torch.autograd.grad(net(x)[0, :, 20, 20].sum(), x)[0].abs().sum((0, 1, 2)).nonzero().flatten()
    assert int(moved.max() - moved.min()) + 1 == 2 * (2 * 4 + 1)


def test_levels_of_a_gaussian():
    """|f|^2 / N = sigma^2 (1 - tr J / N) on average, tr J = sum c / (c + sigma^2); corrected, sigma. 5 std. errors."""
    g, n, rows = autoregressive(64, 0.95), 64, 4000
    eigenvalues = torch.linalg.eigvalsh(g.covariance())
    x = g.sample(Rng([0], rows, dtype=F64))
    for sigma in (1.0, 0.1):
        noisy = x + sigma * Rng([1], rows, dtype=F64).normal(64)
        denoise = lambda v, s=sigma: g(v, torch.tensor(s, dtype=F64))  # noqa: E731
        squares = noise_level(noisy - denoise(noisy)).square()
        want = sigma**2 * (1 - (eigenvalues / (eigenvalues + sigma**2)).mean())
        assert abs(float(squares.mean() - want)) < 5 * float(squares.std()) / rows**0.5
        exact = corrected_level(denoise, noisy[:1], torch.zeros(1, n, dtype=F64))  # tr J taken as 0: the plain level
        assert torch.allclose(exact, noise_level(noisy - denoise(noisy))[:1])
        unused = n - float((eigenvalues / (eigenvalues + sigma**2)).sum())
        probes = Rng([2], rows, dtype=F64).uniform(n).round() * 2 - 1
        corrected = corrected_level(denoise, noisy, probes).square()
        assert float(corrected.mean()) == pytest.approx(
            sigma**2, rel=20 / unused
        )  # Hutchinson's variance, second order
    assert (want / 0.01) ** 0.5 == pytest.approx(0.39, abs=0.005)  # the level is far too low where the signal is rich


def test_the_pull_of_a_linear_map_is_its_transpose():
    matrix, x = Rng([3], dtype=F64).normal(12, 12)[0], Rng([4], dtype=F64).normal(12)
    x0, pull = jacobian(lambda x: x @ matrix.T, x)
    assert torch.equal(x0, x @ matrix.T) and torch.allclose(pull(x), x @ matrix)
    assert torch.allclose(pull(2 * x), 2 * pull(x))


def test_windows_are_windows_of_the_images_and_the_loss_is_that_of_sigma():
    x = torch.arange(2 * 3 * 10 * 12, dtype=F64).reshape(2, 3, 10, 12)
    cut = windows(x, 4, torch.tensor([[0.0, 0.0, 0.9], [0.999, 0.999, 0.1]]))
    assert torch.equal(cut[0], x[0, :, :4, :4]) and torch.equal(cut[1], x[1, :, 6:, 8:].flip(-1))
    net = network()
    for p in net.parameters():
        torch.nn.init.zeros_(p)  # D(x) = x: the error is sigma^2, the loss sigma, uniform from 1 % of the largest to it
    net.requires_grad_(False)
    loss = BlindLoss(net, 0.8, 8).loss({"image": torch.zeros(2000, 3, 9, 9, dtype=F64)}, Rng([6], 2000, dtype=F64))
    assert float(loss.mean()) == pytest.approx(0.8 * 0.505, rel=0.065)  # 5 standard errors
    assert norm(loss[None]).isfinite().all()
