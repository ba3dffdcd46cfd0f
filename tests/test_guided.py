"""Guided denoisers: published formulas, Bayes' rule, closed forms, and solvers that run guided without change."""

import math

import pytest
import torch
from torch import Tensor

from scoreatlas import tweedie
from scoreatlas.measurement import Gaussian, simulate
from scoreatlas.operators.dense import Dense
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.guided import Chosen, ClassifierFree, ClassifierGuided, Guided, Labelled
from scoreatlas.priors.guided_gaussian import Pair
from scoreatlas.priors.labelled import LabelledMixture
from scoreatlas.priors.mixture import GaussianMixture, gaussian
from scoreatlas.rng import Rng
from scoreatlas.samplers.ancestral import DDIM, DDPM
from scoreatlas.samplers.fkc import FKC
from scoreatlas.samplers.mean_shift import MeanShift
from scoreatlas.samplers.ode import Heun, Karras
from scoreatlas.samplers.pcg import PCG
from scoreatlas.schedules import VE, VP, Flow, Time
from scoreatlas.solvers.guidance.dps import DPS
from scoreatlas.solvers.guidance.pigdm import PiGDM

F64 = torch.float64
MIXTURE = GaussianMixture(
    torch.tensor([0.4, 0.35, 0.25], dtype=F64),
    torch.tensor([[-0.7, -0.3], [0.6, 0.5], [0.4, -0.8]], dtype=F64),
    torch.tensor([[[0.04, 0.03], [0.03, 0.05]], [[0.02, 0.0], [0.0, 0.09]], [[0.01, 0.0], [0.0, 0.01]]], dtype=F64),
)
WORLD = LabelledMixture(MIXTURE, (0, 1, 1))


def rng(rows: int = 1, seed: int = 0) -> Rng:
    return Rng([seed], rows, dtype=F64)


def number(v: float) -> Tensor:
    return torch.tensor(v, dtype=F64)


def by_classifier(scale: float, c: int = 1, **more) -> ClassifierGuided:
    return ClassifierGuided(MIXTURE, Chosen(WORLD.logits, torch.tensor(c)), scale, **more)


def free(scale: float, c: int = 1, **more) -> ClassifierFree:
    return ClassifierFree(WORLD.given(c), MIXTURE, scale, **more)


# the formulas as published


def test_equation_6_of_ho_and_salimans():
    """eps~ = (1 + w) eps(z, c) - w eps(z), on noise estimates, for a schedule with signal and noise scales."""
    t, w = VP().at(0.4), 1.7
    x = rng(6).normal(2)
    prior = lambda d: DiffusionPrior(d, VP(), (2,))  # noqa: E731
    eps = lambda d: prior(d).noise(x, prior(d).denoise(x, t), t)  # noqa: E731
    want = (1 + w) * eps(WORLD.given(1)) - w * eps(MIXTURE)
    got = eps(ClassifierFree.extra(WORLD.given(1), MIXTURE, w))
    assert float((got - want).abs().max()) < 1e-12


def test_the_two_scales_are_one_apart():
    """Imagen, equation 2: s eps(z, c) + (1 - s) eps(z). diffusers: eps(z) + s (eps(z, c) - eps(z))."""
    x, sigma = rng(6).normal(2), number(0.5)
    c, u = WORLD.given(1)(x, sigma), MIXTURE(x, sigma)
    for s in (0.0, 1.0, 2.5, 7.5):
        got = free(s)(x, sigma)
        assert float((got - (s * c + (1 - s) * u)).abs().max()) < 1e-13
        assert float((got - (u + s * (c - u))).abs().max()) < 1e-13
        assert torch.equal(got, ClassifierFree.extra(WORLD.given(1), MIXTURE, s - 1)(x, sigma))
        w = s - 1
        assert float((got - ((1 + w) * c - w * u)).abs().max()) < 1e-13


@pytest.mark.parametrize("quantity", ["noise", "score", "v", "flow"])
def test_guiding_one_quantity_is_guiding_all(quantity):
    """The translations are affine with weights 1 + w and -w that sum to 1: guided noise is that of guided x0."""
    t, s = VP().at(0.4), 3.0
    x = rng(6).normal(2)
    there = lambda d: tweedie.convert(  # noqa: E731
        DiffusionPrior(d, VP(), (2,)).denoise(x, t), x, t, "x0", quantity
    )
    want = s * there(WORLD.given(1)) + (1 - s) * there(MIXTURE)
    assert float((there(free(s)) - want).abs().max()) < 1e-12 * float(want.abs().max())


@pytest.mark.parametrize("i", [1, 40, 500, 999])
def test_algorithms_1_and_2_of_dhariwal_and_nichol(i):
    """On the chain's own betas, from the formulas as printed; the gradient by automatic differentiation in x_t."""
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=F64)
    abar = (1 - beta).cumprod(0)
    at = lambda j: Time(0.0, math.sqrt(abar[j]), math.sqrt(1 - abar[j]))  # noqa: E731
    t, before, scale = at(i), at(i - 1), 2.5
    x = rng(5).normal(2).requires_grad_()
    logits = WORLD.logits(x / t.alpha, t.noise)
    gradient = torch.autograd.grad(logits.log_softmax(1)[:, 1].sum(), x)[0]  # in x_t, as the papers
    x = x.detach()
    x0 = MIXTURE(x / t.alpha, number(t.noise))
    # algorithm 2: eps^ = eps - sqrt(1 - abar) s grad, then DDIM's step
    eps = (x - abar[i].sqrt() * x0) / (1 - abar[i]).sqrt() - (1 - abar[i]).sqrt() * scale * gradient
    ddim = abar[i - 1].sqrt() * (x - (1 - abar[i]).sqrt() * eps) / abar[i].sqrt() + (1 - abar[i - 1]).sqrt() * eps
    prior = DiffusionPrior(by_classifier(scale), _Two(t, before), (2,))
    stepped = DDIM(1).iterate(None, prior, _Start(x))
    assert float((next(stepped).x - ddim).abs().max()) < 1e-11 * float(x0.abs().max())
    # algorithm 1: N(mu + s Sigma grad, Sigma), both variances that bracket the learned one
    small = (1 - abar[i - 1]) / (1 - abar[i]) * beta[i]
    mean = abar[i - 1].sqrt() * beta[i] * x0 + (1 - beta[i]).sqrt() * (1 - abar[i - 1]) * x
    mean = mean / (1 - abar[i])
    for variance, name in ((small, "fixedsmall"), (beta[i], "fixedlarge")):
        shifted = MeanShift(1, name).iterate(None, prior, _Start(x))  # type: ignore[arg-type]
        want = mean + scale * variance * gradient
        assert float((next(shifted).x - want).abs().max()) < 1e-10 * float(want.abs().max())


class _Two(VP):
    """A schedule of a single step between two given moments."""

    def __init__(self, t: Time, s: Time) -> None:
        object.__setattr__(self, "moments", (t, s))

    def pairs(self, n, start=1.0):
        return iter([self.moments])


class _Start(Rng):
    """Starts from a given x_t (prior.initial multiplies by sigma_1 of VP) and then draws zeros."""

    def __init__(self, x: Tensor) -> None:
        super().__init__([0], len(x), dtype=x.dtype)
        self.x = x

    def normal(self, *shape):
        return self.x / VP().at(1.0).sigma

    def normal_like(self, x):
        return torch.zeros_like(x)


# Bayes' rule


@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0, torch.tensor([0.05, 0.2, 0.8, 3.0, 20.0])])
def test_the_classifier_and_the_difference_of_denoisers_pull_alike(sigma):
    """sigma^2 grad log p(c | x) = E[x0 | x, c] - E[x0 | x]: from autodiff of densities, and from posterior means."""
    sigma = torch.as_tensor(sigma, dtype=F64)
    x = rng(5).normal(2) * (1 + sigma.reshape(-1, 1))
    a, b = by_classifier(2.5).parts(x, sigma)[1], free(2.5).parts(x, sigma)[1]
    assert float((a - b).abs().max()) < 1e-9 * float(b.abs().max())
    assert float((by_classifier(2.5)(x, sigma) - free(2.5)(x, sigma)).abs().max()) < 1e-9


def test_class_probabilities_are_responsibilities_and_the_joint_is_consistent():
    x = rng(8).normal(2)
    r = MIXTURE.responsibilities(x, 0.3)
    p = WORLD.logits(x, 0.3).exp()
    assert float((p - torch.stack([r[:, 0], r[:, 1] + r[:, 2]], 1)).abs().max()) < 1e-12
    joint = WORLD.given(1).log_prob(x, 0.3) + WORLD.share(1).log()
    assert float((WORLD.log_tilted(x, 1, 1.0, 0.3) - joint).abs().max()) < 1e-12  # s = 1 is Bayes' rule


@pytest.mark.parametrize("make", [by_classifier, free])
def test_scale_one_is_the_condition_and_zero_is_everything(make):
    x, sigma = rng(8).normal(2), number(0.4)
    assert float((make(1.0)(x, sigma) - WORLD.given(1)(x, sigma)).abs().max()) < 1e-11
    assert float((make(0.0)(x, sigma) - MIXTURE(x, sigma)).abs().max()) < 1e-13


@pytest.mark.parametrize("make", [by_classifier, free])
def test_the_interval_is_open_below_and_closed_above_and_may_differ_by_row(make):
    x, sigma = 0.3 * rng(4).normal(2), torch.tensor([0.5, 0.6, 1.0, 1.1], dtype=F64)
    got = make(4.0, interval=(0.5, 1.0))(x, sigma)
    on, off = make(4.0)(x, sigma), WORLD.given(1)(x, sigma)
    want = torch.stack([off[0], on[1], on[2], off[3]])
    assert float((got - want).abs().max()) < 1e-11 and float((on - off).abs().min()) > 1e-6


def test_labels_by_row():
    x, sigma, label = rng(3).normal(2), number(0.4), torch.tensor([0, 1, 1])

    def net(x, sigma, label):
        return torch.cat([WORLD.given(int(c))(x[i : i + 1], sigma) for i, c in enumerate(label)])

    got = ClassifierGuided(MIXTURE, Chosen(WORLD.logits, label), 1.0)(x, sigma)
    assert float((Labelled(net, label)(x, sigma) - got).abs().max()) < 1e-11


# solvers run guided without change


@pytest.mark.parametrize("make", [by_classifier, free])
@pytest.mark.parametrize("solver", [DPS(steps=12), PiGDM(steps=12)], ids=repr)
def test_a_solver_guided_with_scale_one_is_the_solver_on_the_class(solver, make):
    """Also where the solver differentiates the denoiser, and with it the gradient of the classifier."""
    m = simulate(MIXTURE.sample(rng(3)), Dense(torch.tensor([[1.0, 0.5]], dtype=F64), (2,)), Gaussian(0.2), rng(3, 1))
    a = solver(m, DiffusionPrior(make(1.0), VP(), (2,)), rng(3, 2))
    b = solver(m, DiffusionPrior(WORLD.given(1), VP(), (2,)), rng(3, 2))
    assert float((a - b).abs().max()) < 1e-8


# between Gaussians: closed forms, and samplers that reach them


@pytest.mark.parametrize("scale", [-0.5, 0.0, 0.3, 1.0, 2.0, 5.0])
def test_closed_forms_solve_their_differential_equations(scale):
    """Mean and variance integrated numerically from a large noise level by Runge-Kutta, no formula of ours."""
    p = Pair(0.8, 0.5, -0.2, 1.5, scale)
    pull = lambda tau, m: scale * (m - p.m_c) / (p.v_c + tau) + (1 - scale) * (m - p.m_u) / (p.v_u + tau)  # noqa: E731
    rate = lambda tau: scale / (p.v_c + tau) + (1 - scale) / (p.v_u + tau)  # noqa: E731
    for speed, (mean, variance) in ((0.5, p.flow()), (1.0, p.diffusion())):
        noise = 0.0 if speed == 0.5 else 1.0

        def slope(u, m, v, speed=speed, noise=noise):  # against u = log(1 + tau)
            tau = math.expm1(u)
            return ((1 + tau) * speed * pull(tau, m), (1 + tau) * (2 * speed * rate(tau) * v - noise))

        top, n = math.log1p(1e9), 4000
        m, v, h = 0.0, 1e9, -math.log1p(1e9) / 4000
        for i in range(n):
            u = top + i * h
            k1 = slope(u, m, v)
            k2 = slope(u + h / 2, m + h / 2 * k1[0], v + h / 2 * k1[1])
            k3 = slope(u + h / 2, m + h / 2 * k2[0], v + h / 2 * k2[1])
            k4 = slope(u + h, m + h * k3[0], v + h * k3[1])
            m += h / 6 * (k1[0] + 2 * k2[0] + 2 * k3[0] + k4[0])
            v += h / 6 * (k1[1] + 2 * k2[1] + 2 * k3[1] + k4[1])
        # what is left of the start, m = 0 and v = tau: relative 1e9^-1/2 for the mean of the flow
        assert math.isclose(mean, m, abs_tol=2e-4) and math.isclose(variance, v, rel_tol=1e-5)


def test_equal_variances_are_the_one_case_where_guidance_is_exact():
    for scale in (0.0, 1.0, 3.0, 8.0):
        same = Pair(1.0, 0.4, -0.5, 0.4, scale)
        for law in (same.flow(), same.diffusion()):
            assert law == pytest.approx(same.tilted(), rel=1e-9)
    p = Pair(1.0, 0.4, -0.5, 1.2, 3.0)
    assert p.flow()[1] < p.diffusion()[1] < p.tilted()[1] < p.v_c


def test_one_mean_and_two_variances():
    """p(x | c) = N(0, 1), p(x) = N(0, 2): integrals done by hand, the counterexample of Bradley & Nakkiran."""
    for gamma in (1.0, 3.0, 6.0):
        p = Pair(0.0, 1.0, 0.0, 2.0, gamma)
        assert p.flow()[1] == pytest.approx(2 ** (1 - gamma), rel=1e-12)
        assert p.diffusion()[1] == pytest.approx((2 - 2 ** (2 - 2 * gamma)) / (2 * gamma - 1), rel=1e-12)
        assert p.tilted()[1] == pytest.approx(2 / (gamma + 1), rel=1e-12)


def test_many_weights_guided_diffusion_has_half_the_tilted_variance():
    p = Pair(0.0, 0.5, 0.0, 1.5, 500.0)
    assert p.diffusion()[1] / p.tilted()[1] == pytest.approx(0.5, rel=3e-3)  # the correction is of order 1 / s


def pair_prior(p: Pair) -> DiffusionPrior:
    one = lambda m, v: gaussian(torch.tensor([m], dtype=F64), number(v))  # noqa: E731
    return DiffusionPrior(ClassifierFree(one(p.m_c, p.v_c), one(p.m_u, p.v_u), p.scale), VP(), (1,))


@pytest.mark.parametrize(
    ("sampler", "law"),
    [
        (Heun(60), "flow"), (DDPM(600), "diffusion"), (MeanShift(600), "diffusion"),
        (MeanShift(600, "fixedlarge", "mean"), "diffusion"), (PCG(40, 30, 0.2), "tilted"),
    ],
    ids=repr,
)  # fmt: skip
def test_each_sampler_ends_on_its_own_law(sampler, law):
    """Five standard errors, and 2 % for finite steps; the three laws are further apart than that."""
    p, n = Pair(0.8, 0.5, -0.2, 1.5, 3.0), 2000
    mean, variance = getattr(p, law)()
    x = sampler(None, pair_prior(p), rng(n))
    assert abs(float(x.mean()) - mean) < 5 * math.sqrt(variance / n) + 0.02 * abs(mean)
    assert abs(float(x.var()) / variance - 1) < 5 * math.sqrt(2 / n) + 0.02
    others = [getattr(p, other)()[1] for other in ("flow", "diffusion", "tilted") if other != law]
    assert all(abs(other / variance - 1) > 0.2 for other in others)


def test_weights_turn_guided_diffusion_into_the_tilted_law():
    """400 runs of 64 particles; standard errors from the runs, 4 % and 8 % for steps of first order."""
    p = Pair(0.8, 0.5, -0.2, 1.5, 3.0)
    x = FKC(200, 64).cloud(pair_prior(p), rng(400))[:, :, 0]
    mean, variance = p.tilted()
    error = float(x.mean(1).std()) / 20
    assert abs(float(x.mean()) - mean) < 5 * error + 0.04 * mean
    assert abs(float(x.var()) / variance - 1) < 0.08
    assert p.diffusion()[1] / variance < 0.75 and p.diffusion()[0] / mean > 1.1


@pytest.mark.parametrize("schedule", [VP(), Flow(), VE()], ids=repr)
@pytest.mark.parametrize("make", [by_classifier, free])
@pytest.mark.parametrize("sampler", [MeanShift(8), MeanShift(8, "fixedlarge", "mean"), PCG(6, 2), FKC(6, 5)], ids=repr)
def test_laws_of_samplers(sampler, make, schedule):
    """Same Rng, same bits; a row alone is the row in a batch; one state a step; everything finite."""
    prior = DiffusionPrior(make(3.0), schedule, (2,))
    together = sampler(None, prior, Rng([4, 5, 6], dtype=F64))
    assert bool(together.isfinite().all()) and torch.equal(together, sampler(None, prior, Rng([4, 5, 6], dtype=F64)))
    assert len(list(sampler.run(None, prior, Rng([4], dtype=F64)))) == sampler.steps
    for i, seed in enumerate([4, 5, 6]):
        assert float((sampler(None, prior, Rng([seed], dtype=F64)) - together[i : i + 1]).abs().max()) < 1e-10


# the mixture: what is not sampled


def tilted_moments(c: int, scale: float, sigma: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (2,), total variance and the mode shares of the components, by quadrature on a grid."""
    axis = torch.linspace(-2.0, 2.0, 801, dtype=F64)
    x = torch.cartesian_prod(axis, axis)
    p = WORLD.log_tilted(x, c, scale, sigma).softmax(0)
    mean = p @ x
    nearest = torch.cdist(x, MIXTURE.means).argmin(1)
    share = torch.zeros(3, dtype=F64).index_add_(0, nearest, p)
    return mean, p @ (x - mean).square().sum(1), share


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_at_zero_and_one_the_tilted_law_is_the_prior_and_the_class(scale):
    mean, variance, _ = tilted_moments(1, scale)
    want = MIXTURE if scale == 0 else WORLD.given(1)
    assert float((mean - want.mean()).abs().max()) < 1e-6
    assert float(variance) == pytest.approx(float(want.covariance().trace()), rel=1e-5)  # the grid ends at 2


def test_tilted_laws_obey_the_heat_equation_with_a_source():
    """dlog q/dtau = lap log q / 2 + |grad log q|^2 / 2 - s (s - 1) / 2 |grad log p(c | x)|^2, by differences."""
    s, tau, h = 3.0, 0.25, 1e-4
    x = (0.6 * rng(20).normal(2)).requires_grad_()
    f = lambda tau: WORLD.log_tilted(x, 1, s, number(tau).sqrt())  # noqa: E731
    gradient = torch.autograd.grad(f(tau).sum(), x, create_graph=True)[0]
    laplacian = sum(torch.autograd.grad(gradient[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(2))
    likelihood = torch.autograd.grad(WORLD.logits(x, number(tau).sqrt())[:, 1].sum(), x)[0]
    source = -0.5 * s * (s - 1) * likelihood.square().sum(1)
    heat = 0.5 * (laplacian + gradient.square().sum(1))
    change, heat = ((f(tau + h) - f(tau - h)) / (2 * h)).detach(), heat.detach()
    assert float((change - heat - source).abs().max()) < 1e-5 * float(change.abs().max())
    assert float(source.abs().max()) > 0.1  # without the source the equation would fail


def test_guidance_does_not_sample_the_tilted_law_and_correctors_do():
    """Errors of the mean in standard errors: large for the flow, within noise for a corrector and a filter."""
    scale, n = 8.0, 600
    mean, variance, _ = tilted_moments(1, scale)
    prior = DiffusionPrior(free(scale), VP(), (2,))
    error = lambda x: float((x.mean(0) - mean).norm()) / math.sqrt(float(variance) / n)  # noqa: E731
    assert error(Heun(40)(None, prior, rng(n))) > 10
    corrected = PCG(25, 25, 0.25, Karras(noise_min=0.01))(None, prior, rng(n))
    assert error(corrected) < 5
    assert abs(float(corrected.var(0).sum()) / float(variance) - 1) < 0.15
    assert error(FKC(100, 60).cloud(prior, rng(n // 60, 1)).flatten(0, 1)) < 10  # runs of 60 are dependent


def test_bad_input_is_one_clear_line():
    with pytest.raises(ValueError, match=r"needs a label 0 ... C - 1 for each of 3 components, got \(0, 2, 2\)"):
        LabelledMixture(MIXTURE, (0, 2, 2))
    with pytest.raises(ValueError, match="no class 2: there are 2"):
        WORLD.given(2)
    with pytest.raises(ValueError, match="the tilted law of .* has no finite mass"):
        Pair(0.0, 2.0, 0.0, 1.0, 3.0).tilted()
    for sampler in (MeanShift(3), PCG(3), FKC(3, 2)):
        with pytest.raises(ValueError, match="needs a prior with a guided denoiser, got GaussianMixture"):
            sampler(None, DiffusionPrior(MIXTURE, VP(), (2,)), rng(2))
    with pytest.raises(ValueError, match="size in"):
        PCG(size=1.0)
    with pytest.raises(ValueError, match="particles >= 1"):
        FKC(particles=0)
    with pytest.raises(ValueError, match="expand 'state' or 'mean'"):
        MeanShift(expand="both")  # type: ignore[arg-type]
    assert isinstance(free(2.0), Guided)
