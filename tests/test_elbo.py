"""The bound term by term, float64, where the likelihood is known: one dimension, Gauss-Hermite quadrature for noise."""

import math

import numpy as np
import pytest
import torch

from scoreatlas import dialects, elbo
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.mixture import GaussianMixture, gaussian
from scoreatlas.schedules import SCHEDULES, VP, Flow

MEAN, VARIANCE, WRONG = 0.4, 0.5, 0.8  # of the data, and a variance that a wrong denoiser believes in


def f64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def believing(variance: float, schedule=None) -> DiffusionPrior:
    schedule = schedule or VP()
    return DiffusionPrior(gaussian(f64(MEAN), f64(variance)), schedule, (1,))


def hermite(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Nodes (n, 1) and weights (n,) of the standard normal law."""
    x, w = np.polynomial.hermite_e.hermegauss(n)
    return torch.from_numpy(x)[:, None], torch.from_numpy(w / math.sqrt(2 * math.pi))


def bound(prior, x: torch.Tensor, moments, variance="fixedsmall", nodes: int = 8) -> torch.Tensor:
    """-ELBO of each point (m, 1), the expectation over the noise by quadrature."""
    eps, w = hermite(nodes)
    rows, each = x.repeat_interleave(nodes, 0), eps.repeat(len(x), 1)
    found = elbo.terms(prior, rows, [each] * len(moments), moments, variance)
    return (sum(found).reshape(len(x), nodes) * w).sum(1)


def model(prior, moments, variance) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of the chain's own joint law of (x_T, ..., x_1, x): it is linear and Gaussian."""
    top = moments[-1]
    gain, offset, stds = [], [], [top.sigma]

    def estimate(t) -> tuple[float, float]:
        ends = prior.denoise(f64(0.0, 1.0)[:, None], t)[:, 0].tolist()
        return ends[1] - ends[0], ends[0]

    for s, t in list(zip(moments[:-1], moments[1:], strict=True))[::-1]:
        small, large = elbo.step_variances(t, s)
        ratio = t.alpha * s.sigma / (s.alpha * t.sigma)
        a, b = estimate(t)
        on_x0 = s.alpha * (1 - ratio**2)
        gain.append(s.alpha / t.alpha * (s.sigma * t.alpha / (s.alpha * t.sigma)) ** 2 + on_x0 * a)
        offset.append(on_x0 * b)
        stds.append(math.sqrt({"fixedsmall": small, "fixedlarge": large}[variance]))
    a, b = estimate(moments[0])
    gain, offset, stds = [*gain, a], [*offset, b], [*stds, moments[0].noise]
    mean, root = [0.0], torch.zeros(len(stds), len(stds), dtype=torch.float64)
    root[0, 0] = stds[0]
    for i, (g, o) in enumerate(zip(gain, offset, strict=True), 1):
        mean.append(g * mean[-1] + o)
        root[i] = g * root[i - 1]
        root[i, i] += stds[i]
    return f64(*mean), root @ root.T


def kl(m0, c0, m1, c1) -> float:
    """KL(N(m0, c0) || N(m1, c1))."""
    d, inverse = m1 - m0, torch.linalg.inv(c1)
    log = torch.linalg.slogdet(c1)[1] - torch.linalg.slogdet(c0)[1]
    return float(0.5 * ((inverse @ c0).trace() + d @ inverse @ d - len(m0) + log))


@pytest.mark.parametrize("variance", ["fixedsmall", "fixedlarge"])
@pytest.mark.parametrize("believed", [VARIANCE, WRONG])
def test_the_gap_is_the_kl_between_forward_path_and_the_model_s_posterior_of_it(variance, believed):
    """-ELBO(x) - (-log p(x)) = KL(q(x_1..T | x) || p(x_1..T | x)) at each x, for good denoisers and bad ones."""
    prior, moments = believing(believed), VP().grid(6)[::-1][1:]
    mean, c = model(prior, moments, variance)
    points = f64(-1.3, 0.0, 0.4, 2.0)[:, None]
    given = bound(prior, points, moments, variance)
    alpha, sigma = f64(*[t.alpha for t in moments[::-1]]), f64(*[t.sigma for t in moments[::-1]])
    later, earlier = torch.minimum(alpha[:, None], alpha), torch.minimum(sigma[:, None], sigma)
    forward = later / torch.maximum(alpha[:, None], alpha) * earlier**2  # cov(x_t, x_s) = (alpha_t / alpha_s) sigma_s^2
    for x, value in zip(points[:, 0].tolist(), given.tolist(), strict=True):
        exact = 0.5 * ((x - float(mean[-1])) ** 2 / float(c[-1, -1]) + math.log(2 * math.pi * float(c[-1, -1])))
        k = c[:-1, -1] / c[-1, -1]
        posterior_mean, posterior = mean[:-1] + k * (x - mean[-1]), c[:-1, :-1] - torch.outer(k, c[-1, :-1])
        gap = kl(alpha * x, forward, posterior_mean, posterior)
        assert gap > 1e-4 and math.isclose(value - exact, gap, rel_tol=1e-6)  # inverting a 6 x 6 covariance


def test_on_average_the_excess_over_the_entropy_is_the_sum_of_the_kls_of_the_steps():
    """E[-ELBO] - H(data) = KL at the top + sum_t E KL(q(x_s | x_t) || p(x_s | x_t)), with q averaged over the data."""
    prior, moments = believing(WRONG), VP().grid(6)[::-1][1:]
    nodes, w = hermite(8)
    x = MEAN + math.sqrt(VARIANCE) * nodes
    excess = float((bound(prior, x, moments) * w).sum()) - 0.5 * math.log(2 * math.pi * math.e * VARIANCE)
    truth, total = believing(VARIANCE), 0.0
    law = lambda t: (t.alpha * MEAN, t.alpha**2 * VARIANCE + t.sigma**2)  # noqa: E731  of x_t
    m, v = law(moments[-1])
    total += kl(f64(m), f64(v)[:, None], f64(0.0), f64(moments[-1].sigma ** 2)[:, None])
    for s, t in zip([None, *moments[:-1]], moments, strict=True):
        ms, vs = (MEAN, VARIANCE) if s is None else law(s)
        r = t.alpha / (1.0 if s is None else s.alpha)
        mt, vt = law(t)
        conditional = vs - (r * vs) ** 2 / vt  # of x_s given x_t; its mean is linear in x_t
        if s is None:
            on_x0, v = 1.0, moments[0].noise ** 2
        else:
            small, _ = elbo.step_variances(t, s)
            on_x0, v = s.alpha * (1 - (t.alpha * s.sigma / (s.alpha * t.sigma)) ** 2), small
        xt = mt + math.sqrt(vt) * nodes
        off = on_x0 * (truth.denoise(xt, t) - prior.denoise(xt, t))[:, 0]  # the rest of the mean is the same
        total += 0.5 * (float((off**2 * w).sum()) / v + conditional / v - 1 - math.log(conditional / v))
    assert math.isclose(excess, total, rel_tol=1e-9)


def excess(schedule, steps: int, variance: str) -> float:
    """E[-ELBO] - H of a mixture with its exact denoiser, nats; integrals over x and noise by quadrature."""
    mixture = GaussianMixture(f64(0.6, 0.4), f64(-0.7, 0.8)[:, None], f64(0.1, 0.05))
    x = torch.linspace(-3, 3, 401, dtype=torch.float64)[:, None]
    log_p = mixture.log_prob(x)
    moments = schedule.grid(steps)[::-1][1:]
    values = bound(DiffusionPrior(mixture, schedule, (1,)), x, moments, variance, nodes=24)
    return float((log_p.exp() * (values + log_p)).sum()) * 6 / 400


@pytest.mark.parametrize("schedule", [VP(), Flow()], ids=repr)
def test_with_the_large_variance_the_bound_tends_to_the_exact_likelihood_of_a_mixture(schedule):
    """Exact denoiser: the excess is positive and of order 1 / T."""
    found = [excess(schedule, steps, "fixedlarge") for steps in (200, 400, 800)]
    assert found[2] > 0 and found[0] / found[1] == pytest.approx(2, rel=0.2)
    assert found[1] / found[2] == pytest.approx(2, rel=0.1)


def test_with_the_small_variance_an_excess_remains_however_many_steps_and_it_has_euler_s_constant_in_it():
    """On a grid uniform in t the last steps halve the noise however many there are, and there the true reverse variance
    is the large one. Flow: r_k = (1 + 1 / k)^2 and sum_k (r_k - 1 - log r_k) / 2 = gamma + pi^2 / 12, a dimension."""
    limit = float(np.euler_gamma) + math.pi**2 / 12
    left = [abs(excess(Flow(), steps, "fixedsmall") - limit) for steps in (400, 800, 1600)]
    assert left[0] > left[1] > left[2] and left[2] < 0.004 * limit  # of order log T / T


def test_weights_are_equation_12_of_ddpm_on_its_own_betas():
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    bar, chain = (1 - beta).cumprod(0), dialects.from_betas(beta)
    for i in (1, 10, 500, 999):
        t, s = chain[i + 1], chain[i]
        small, large = elbo.step_variances(t, s)
        assert math.isclose(large, float(beta[i]), rel_tol=1e-9)
        assert math.isclose(small, float(beta[i] * (1 - bar[i - 1]) / (1 - bar[i])), rel_tol=1e-9)
        for v in (small, large):
            published = float(beta[i] ** 2 / (2 * v * (1 - beta[i]) * (1 - bar[i])))
            assert math.isclose(elbo.weight(t, s, v) * t.noise**2, published, rel_tol=1e-8)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_with_the_small_variance_a_step_weighs_half_the_drop_of_the_signal_to_noise_ratio(schedule):
    for t, w in elbo.simplified_weights(schedule, 9):
        s = schedule.at(max(t.t - 1 / 9, 0.0))
        assert math.isclose(w / t.noise**2, 0.5 * (s.noise**-2 - t.noise**-2), rel_tol=1e-7)


def test_a_step_is_a_kl_of_gaussians():
    """Against the textbook formula with means written out by the bridge."""
    flow, x, eps = Flow(), f64(0.3, -1.0)[:, None], f64(0.7, 0.1)[:, None]
    prior = believing(VARIANCE, flow)
    t, s = flow.at(0.6), flow.at(0.4)
    xt = t.alpha * x + t.sigma * eps
    q, std = flow.bridge(xt, x, t, s)
    p, _ = flow.bridge(xt, prior.denoise(xt, t), t, s)
    for v in (std**2, 0.3):
        want = [kl(a, f64(std**2)[:, None], b, f64(v)[:, None]) for a, b in zip(q, p, strict=True)]
        assert elbo.step(prior, x, eps, t, s, v).tolist() == pytest.approx(want, rel=1e-10)
