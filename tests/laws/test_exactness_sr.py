"""The law of ILVR's answer, pinned by recursions of its own on Gaussians, and what its filter does to the data."""

import math

import pytest
import torch
from test_exactness import EXACT, STEPS, C, N, Walk, Y, ddim, gain, problem, relative

from scoreatlas.linalg import norm
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.bicubic import Bicubic, bicubic_matrix, enlargement_matrix
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.mixture import gaussian
from scoreatlas.rng import Rng
from scoreatlas.schedules import VP
from scoreatlas.solvers.projection.ilvr import ILVR


def refined(free: int) -> tuple[Walk, Walk]:
    """The seen pixel is q(x_s | y) after each step but the last ``free``; the other never hears of it."""
    walk, hidden = (Walk(0.0, VP().at(1.0).sigma ** 2) for _ in range(2))
    for i, (t, s) in enumerate(VP().pairs(STEPS)):
        p, q, std = ddim(t, s, 1.0)
        for w in (walk, hidden):
            w.step(p * gain(t) + q, 0.0, std)
        if i < STEPS - free:
            walk.mean, walk.variance = s.alpha * Y, s.sigma**2
    return walk, hidden


@pytest.mark.parametrize("free", [0, 1, 2, 8])
def test_the_law_of_the_answer_is_that_of_the_recursion(free):
    """Mean and variance within 5 Monte-Carlo standard errors; with no free step the datum itself."""
    m, prior = problem(N)
    x = ILVR(steps=STEPS, stop=free / STEPS)(m, prior, Rng([0], N, dtype=torch.float64)).reshape(N, 2)
    for i, walk in enumerate(refined(free)):
        assert abs(float(x[:, i].mean()) - walk.mean) <= 5 * math.sqrt(walk.variance / N) + 1e-12
        assert abs(float(x[:, i].var()) - walk.variance) <= 5 * walk.variance * math.sqrt(2 / N) + 1e-24


PINNED = {  # free steps: bias and spread of the seen pixel, in exact standard deviations, at 40 steps
    0: (0.4457, 0.0),  # the datum itself
    1: (0.3363, 0.4869),  # RePaint's, which replaces before the step
    2: (0.0961, 0.9317),  # from noise level 0.17, near that of the datum, 0.2
    8: (-1.7349, 2.1881),  # from noise level 0.7: hardly more than the prior
}


def test_the_pinned_biases():
    """The recursion stays what it is, to the digits printed; with the law above, so does the method."""
    for free, pinned in PINNED.items():
        seen, unseen = refined(free)
        assert relative(seen, EXACT) == pytest.approx(pinned, abs=6e-5), free
        assert relative(unseen, (0.0, C)) == pytest.approx((0.0, 0.8673), abs=6e-5)


def bicubic_law(factor: int, y: torch.Tensor, A: Bicubic) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (64,) and covariance (64, 64) of x for the paper's filter on white N(0, C), by matrices."""
    one = enlargement_matrix(8, factor) @ bicubic_matrix(8, factor)
    phi, r = torch.kron(one, one), torch.linalg.pinv(A.matrix()) @ y.flatten()
    mean, covariance = (
        torch.zeros(64, dtype=torch.float64),
        VP().at(1.0).sigma ** 2 * torch.eye(64, dtype=torch.float64),
    )
    rest = torch.eye(64, dtype=torch.float64) - phi
    for t, s in VP().pairs(STEPS):
        p, q, std = ddim(t, s, 1.0)
        a = p * gain(t) + q
        mean, covariance = a * mean, a * a * covariance + std**2 * torch.eye(64, dtype=torch.float64)
        mean, covariance = rest @ mean + s.alpha * phi @ r, rest @ covariance @ rest.T + s.sigma**2 * phi @ phi.T
    return mean, covariance


def test_the_law_with_the_filter_of_the_paper():
    """Largest of 64 deviations of the mean in standard errors below 5, total variance within 5 of its own."""
    n, A = 4000, Bicubic((1, 8, 8), 2, torch.float64)
    y = Rng([3], dtype=torch.float64).normal(1, 4, 4)
    prior = DiffusionPrior(
        gaussian(torch.zeros(1, 8, 8, dtype=torch.float64), torch.tensor(C).double()), VP(), (1, 8, 8)
    )
    m = Measurement(y, A, Gaussian(0.1)).repeat(n)
    x = ILVR(steps=STEPS, factor=2)(m, prior, Rng([0], n, dtype=torch.float64)).flatten(1)
    mean, covariance = bicubic_law(2, y, A)
    assert ((x.mean(0) - mean).abs() / (covariance.diagonal() / n).sqrt()).max() < 5
    spread = math.sqrt(2 * float(covariance.square().sum()) / n)  # of the trace of a sample covariance
    assert abs(float(x.var(0).sum() - covariance.trace())) < 5 * spread


def test_only_the_projection_fits_the_data():
    """A x = y to rounding with A+ A. The paper's filter is N^2 A^T A, a gradient step, and leaves some misfit."""
    A = Bicubic((1, 8, 8), 2, torch.float64)
    y = Rng([3], dtype=torch.float64).normal(1, 4, 4)
    prior = DiffusionPrior(
        gaussian(torch.zeros(1, 8, 8, dtype=torch.float64), torch.tensor(C).double()), VP(), (1, 8, 8)
    )
    m, rng = Measurement(y, A, Gaussian(0.1)), Rng([1], dtype=torch.float64)
    x = rng.normal(1, 8, 8)
    assert torch.allclose(ILVR(factor=2).lowpass(A, x)(x), 4 * A.adjoint(A(x)), atol=1e-12)
    assert norm(A(ILVR(steps=6)(m, prior, rng)) - y) < 1e-12 * norm(y)
    assert norm(A(ILVR(steps=6, factor=2)(m, prior, rng)) - y) > 0.01 * norm(y)


def test_a_factor_that_does_not_fit_is_refused():
    m, prior = problem(1)
    with pytest.raises(ValueError, match="factor 3 does not divide"):
        ILVR(steps=2, factor=3)(m, prior, Rng([0], dtype=torch.float64))
