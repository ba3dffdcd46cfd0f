"""Splits of vector fields against closed forms."""

import math

import numpy as np
import pytest
import torch

from scoreatlas.gauge import Scaled, Stirred, edges, split_grid, split_linear
from scoreatlas.likelihood import Exact
from scoreatlas.priors.mixture import GaussianMixture
from scoreatlas.rng import Rng
from scoreatlas.tweedie import jacobian

double = torch.float64
C = torch.tensor([[1.0, 0.3], [0.3, 0.25]], dtype=double)
TURN = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=double)
MIXTURE = GaussianMixture(
    torch.tensor([0.6, 0.4], dtype=double),
    torch.tensor([[-0.8, 0.0], [0.7, 0.4]], dtype=double),
    torch.stack([0.2 * C, 0.1 * torch.eye(2, dtype=double)]),
)


def test_linear_split_is_orthogonal_gauge_and_a_gradient():
    m = torch.tensor([[0.2, 1.0], [-0.7, 0.5]], dtype=double)
    s, r = split_linear(m, C)
    assert torch.equal(s + r, m) or float((s + r - m).abs().max()) < 1e-14
    assert float((s - s.T).abs().max()) < 1e-14  # a gradient
    # div(p r) = p (tr R - x^T C^{-1} R x) vanishes for all x
    k = torch.linalg.inv(C) @ r
    assert abs(float(r.trace())) < 1e-13 and float((k + k.T).abs().max()) < 1e-12
    assert abs(float((s @ C @ r.T).trace())) < 1e-14  # E[<S x, R x>] = tr(S C R^T)


def test_gradient_part_is_not_the_symmetric_part():
    """A rotation about an anisotropic Gaussian moves it: its gradient part has entries (c2 - c1) / (c1 + c2)."""
    c1, c2 = 4.0, 1.0
    s, _ = split_linear(-TURN, torch.diag(torch.tensor([c1, c2], dtype=double)))
    assert float(s[0, 1]) == pytest.approx((c2 - c1) / (c1 + c2), rel=1e-12)
    # and where C is a multiple of the identity nothing is left of it
    assert float(split_linear(TURN, 3 * torch.eye(2, dtype=double)).gradient.abs().max()) < 1e-14


def fields(h: float, turn: float) -> tuple[np.ndarray, ...]:
    """score + turn * (rotated score) of the mixture on the edges of a grid, with the density there."""
    xs = np.arange(-4.0, 4.0 + h / 2, h)
    out = []
    for axis, at in enumerate(edges(xs, xs)):
        x = torch.tensor(at.reshape(-1, 2))
        score = MIXTURE.score(x, 0.3)
        f = score + turn * score @ TURN.T
        out += [f[:, axis].numpy().reshape(at.shape[:2]), MIXTURE.log_prob(x, 0.3).exp().numpy().reshape(at.shape[:2])]
    fx, px, fy, py = out
    return fx, fy, px, py


def test_grid_split_recovers_score_and_rotated_score():
    """The rotated score is as large as the score, so with turn = 0.5 the shares are 0.8 and 0.2, up to order h^2."""
    wrong = []
    for h in (0.16, 0.08):
        found = split_grid(*fields(h, 0.5), h)
        assert found.gradient + found.gauge == pytest.approx(1, abs=1e-9)  # orthogonal to rounding
        wrong.append(abs(found.gauge - 0.2))
    assert wrong[1] < 2e-3 and math.log2(wrong[0] / wrong[1]) > 1.7


def test_grid_split_of_a_pure_gradient_has_no_gauge_part():
    found = split_grid(*fields(0.08, 0.0), 0.08)
    assert found.gauge < 1e-5  # order h^4: squares of errors of order h^2
    _, _, _, rest = fields(0.08, 0.0)[0], found.x, found.y, found.potential
    assert np.isfinite(rest).all()


def test_stirring_adds_a_field_without_flux_and_keeps_the_trace():
    """div(p r) = 0 by automatic differentiation, and tr of the Jacobian is that of the denoiser."""
    x = MIXTURE.sample(Rng([0], 8, dtype=double)).requires_grad_()
    stirred = Stirred(MIXTURE, 0.7 * TURN)
    sigma = torch.tensor(0.4, dtype=double)
    r = (stirred(x, sigma) - MIXTURE(x, sigma)) / sigma**2
    flux = r * MIXTURE.log_prob(x, 0.4).exp()[:, None]
    divergence = sum(torch.autograd.grad(flux[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(2))
    assert float(divergence.abs().max()) < 1e-12
    assert torch.allclose(Exact()(stirred, x, sigma)[1], Exact()(MIXTURE, x, sigma)[1], atol=1e-12, rtol=0)
    j = jacobian(stirred, x.detach(), 0.4)
    assert float((j - j.mT).abs().max()) > 0.1


def test_scaled_scales_the_score():
    x = MIXTURE.sample(Rng([0], 4, dtype=double))
    sigma = torch.tensor(0.4, dtype=double)
    score = (Scaled(MIXTURE, 0.2)(x, sigma) - x) / sigma**2
    assert torch.allclose(score, 1.2 * MIXTURE.score(x, 0.4), atol=1e-12, rtol=0)


def test_stir_must_be_antisymmetric():
    with pytest.raises(ValueError, match="antisymmetric"):
        Stirred(MIXTURE, torch.eye(2, dtype=double))
