"""Laws of families of operators and of blind solvers, in float64, on exact priors."""

import pytest
import torch
from members import BLIND, COLOUR, GRAY, mixture, prior, rng
from torch import Tensor

from scoreatlas.bench.catalogue import hypotheses
from scoreatlas.blind import BlindMeasurement, JointPrior
from scoreatlas.measurement import Gaussian
from scoreatlas.operators.base import Operator
from scoreatlas.operators.blur import Blur, gaussian_kernel
from scoreatlas.operators.family import Family, GaussianBlurs, KernelBlurs, Lights, MotionBlurs, RowwiseBlur
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.mixture import GaussianMixture
from scoreatlas.schedules import SCHEDULES, VP
from scoreatlas.solvers.base import Solver

F64 = torch.float64


def families(shape: tuple[int, int, int] = GRAY) -> dict[str, tuple[Family, Tensor, float]]:
    """A family, the mean of its parameters and their standard deviation."""
    return {
        "width": (GaussianBlurs(5, shape), torch.tensor([0.0], dtype=F64), 0.4),
        "motion": (MotionBlurs(7, shape), torch.tensor([1.0, 2.0], dtype=F64), 1.0),
        "softmax": (KernelBlurs(5, shape), torch.zeros(5, 5, dtype=F64), 1.0),
        "clip": (KernelBlurs(5, shape, "clip"), 2 * gaussian_kernel(5, 1.0) / gaussian_kernel(5, 1.0).max() - 1, 0.3),
        "light": (Lights(shape), torch.tensor([0.5, -0.2], dtype=F64), 0.2),
        "mask": (Lights(shape, (2, 3)), torch.tensor([0.5, *6 * [-0.2]], dtype=F64), 0.2),
    }


FAMILIES = pytest.mark.parametrize("name", list(families()))
BLIND_SOLVERS = pytest.mark.parametrize("solver", BLIND, ids=lambda s: type(s).__name__)


def parameters(name: str) -> GaussianMixture:
    """Two components, so that no solver can take the prior of phi for a Gaussian."""
    _, mean, std = families()[name]
    means = torch.stack([mean - 0.5 * std, mean + 0.5 * std])
    return GaussianMixture(torch.tensor([0.4, 0.6], dtype=F64), means, torch.full((2,), std**2, dtype=F64))


def joint(name: str, schedule=None) -> JointPrior:
    p = parameters(name)
    return JointPrior(DiffusionPrior(mixture(), schedule or VP(), GRAY), DiffusionPrior(p, schedule or VP(), p.shape))


def problem(name: str, std: float = 0.1) -> BlindMeasurement:
    family, phi = families()[name][0], parameters(name).sample(rng(40, 41, 42))
    y = family.at(phi)(mixture().sample(rng(20, 21, 22)))
    return BlindMeasurement(y + std * rng(30, 31, 32).normal_like(y), family, Gaussian(std))


@FAMILIES
def test_a_row_of_a_family_is_its_own_operator(name):
    family, phi, x = families(COLOUR)[name][0], parameters(name).sample(rng(0, 1, 2)), rng(3, 4, 5).normal(*COLOUR)
    assert isinstance(family, Family)
    A = family.at(phi)
    assert isinstance(A, Operator) and A.shape == COLOUR
    for i in range(3):
        assert (A(x)[i] - family.at(phi[i : i + 1])(x[i : i + 1])[0]).abs().max() < 1e-13
        shared = family.at(phi[i : i + 1])(x)  # one row of settings serves any number of images
        assert shared.shape == x.shape and (shared[i] - A(x)[i]).abs().max() < 1e-13


@FAMILIES
def test_derivatives_in_the_parameters(name):
    """Against central differences, whose error is of order h^2 |third derivative|: 1e-7 allows 10^3 of it."""
    m, x, phi, h = problem(name), mixture().sample(rng(6, 7, 8)), parameters(name).sample(rng(9, 10, 11)), 1e-5
    if name == "clip":
        phi = phi.clamp(-0.9, 0.9)  # the kink of the clip is not differentiable
    r, down, down_phi = m.downhill(x, phi)
    assert torch.equal(r, m.y - m.family.at(phi)(x))

    def half_square(x: Tensor, phi: Tensor) -> Tensor:
        return 0.5 * (m.y - m.family.at(phi)(x)).flatten(1).square().sum(1)

    d, d_phi = rng(1, 2, 3).normal_like(x), rng(4, 5, 6).normal_like(phi)
    for found, ahead, behind, way in (
        (down, half_square(x + h * d, phi), half_square(x - h * d, phi), d),
        (down_phi, half_square(x, phi + h * d_phi), half_square(x, phi - h * d_phi), d_phi),
    ):
        slope = -(found * way).flatten(1).sum(1)
        assert (slope - (ahead - behind) / (2 * h)).abs().max() < 1e-7 * (1 + slope.abs().max())


def test_rowwise_blur_is_blur_row_by_row():
    kernels, x = rng(0, 1, 2).normal(5, 4), rng(3, 4, 5).normal(*COLOUR)
    A = RowwiseBlur(kernels, COLOUR)
    for i in range(3):
        B = Blur(kernels[i], COLOUR, F64)
        assert (A(x)[i] - B(x)[i]).abs().max() < 1e-13
        assert (A.adjoint(x)[i] - B.adjoint(x)[i]).abs().max() < 1e-13
    with pytest.raises(ValueError, match="kernels"):
        RowwiseBlur(kernels[0], COLOUR)
    with pytest.raises(ValueError, match="kernels"):
        RowwiseBlur(torch.ones(1, 9, 9), COLOUR)


def test_kernels_are_what_they_say():
    """Width: the sampled Gaussian. All: not negative, sum 1. Motion: second moments phi^2 / 12 and the pen's."""
    widths = GaussianBlurs(7, GRAY).kernels(torch.tensor([[0.0], [0.5]], dtype=F64))
    for k, log_width in zip(widths, (0.0, 0.5), strict=True):
        assert (k - gaussian_kernel(7, torch.tensor(log_width).exp().item())).abs().max() < 1e-7  # float32 exp
    for size, log_width in ((7, -20.0), (7, 20.0)):  # the limits: a delta and nearly a box, and finite
        k = GaussianBlurs(size, GRAY).kernels(torch.tensor([[log_width]], dtype=F64))[0]
        assert k.isfinite().all()
        assert (k[3, 3] if log_width < 0 else 49 * k[0, 0]).item() == pytest.approx(1, abs=0.2)
    phi = torch.tensor([[2.0, 4.0], [3.0, -2.0]], dtype=F64)
    k = MotionBlurs(15, (1, 16, 16), points=301).kernels(phi)
    i = torch.arange(15, dtype=F64) - 7
    assert k.sum((1, 2)) == pytest.approx(torch.ones(2, dtype=F64), abs=1e-12)
    assert (k - MotionBlurs(15, (1, 16, 16), points=301).kernels(-phi)).abs().max() < 1e-15
    for row, (down, right) in zip(k, phi.tolist(), strict=True):  # uniform on a segment, and the pen's 1/4
        second = [float((row * a * b).sum()) for a, b in ((i[:, None], i[:, None]), (i, i), (i[:, None], i))]
        want = [down**2 / 12 + 0.25, right**2 / 12 + 0.25, down * right / 12]
        assert second == pytest.approx(want, abs=0.04)  # a pen of half a pixel, sampled on pixels
    for link in ("softmax", "clip"):
        k = KernelBlurs(5, GRAY, link).kernels(rng(0, 1).normal(5, 5))
        assert (k >= 0).all() and (k.sum((1, 2)) - 1).abs().max() < 1e-12
    assert float(KernelBlurs(5, GRAY, "clip").kernels(torch.full((1, 5, 5), -2.0)).abs().max()) == 0


def test_a_blind_measurement_at_the_truth_is_a_measurement():
    m, phi, x = problem("width"), parameters("width").sample(rng(40, 41, 42)), mixture().sample(rng(20, 21, 22))
    known = m.at(phi)
    assert torch.equal(m.log_likelihood(x, phi), known.log_likelihood(x))
    twice = m.repeat(2)
    assert torch.equal(twice.y[::2], m.y) and torch.equal(twice.y[1::2], m.y)


def test_the_guess_is_the_prior_mean():
    """E[phi | phi_1 = 0] differs from the mean by alpha_1^2, 4e-5 under VP, in units of the prior's variance."""
    for name in families():
        found = joint(name).guess(rng(0, 1))
        assert (found - parameters(name).mean()).abs().max() < 1e-3


@FAMILIES
@BLIND_SOLVERS
def test_rows_are_independent(solver, name):
    m, p = problem(name), joint(name)
    together, alone = (
        solver.joint(m, p, rng(0, 1, 2)),
        solver.joint(BlindMeasurement(m.y[1:2], m.family, m.noise), p, rng(1)),
    )
    for a, b in ((together.x, alone.x), (together.phi, alone.phi)):
        assert torch.isfinite(a).all() and (a[1] - b[0]).abs().max() < 1e-10


@BLIND_SOLVERS
def test_same_rng_same_bits(solver):
    m, p = problem("width"), joint("width")
    a, b, other = (solver.joint(m, p, rng(*seeds)) for seeds in ((0, 1, 2), (0, 1, 2), (3, 4, 5)))
    assert torch.equal(a.x, b.x) and torch.equal(a.phi, b.phi)
    assert not torch.equal(a.x, other.x) and not torch.equal(a.phi, other.phi)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("name", ["width", "clip", "light"])
@BLIND_SOLVERS
def test_any_schedule_and_any_noise_give_numbers(solver, name, schedule):
    for std in (0.0, 1e-4, 3.0):
        end = solver.joint(problem(name, std), joint(name, schedule), rng(0, 1, 2))
        assert torch.isfinite(end.x).all() and torch.isfinite(end.phi).all()


@BLIND_SOLVERS
def test_states_end_in_the_answer_without_history(solver):
    m, p = problem("softmax"), joint("softmax")
    states = list(solver.run(m, p, rng(0, 1, 2)))
    end = solver.joint(m, p, rng(0, 1, 2))
    assert torch.equal(states[-1].x, solver(m, p, rng(0, 1, 2))) and torch.equal(states[-1].phi, end.phi)
    assert not any(part.requires_grad for s in states for part in s)
    assert all(s.phi.shape == (3, *p.phi.shape) for s in states)


@BLIND_SOLVERS
def test_the_class_line_is_read(solver: Solver):
    assert hypotheses(type(solver)) == ((Family,), (Gaussian,), (JointPrior,))
    assert not isinstance(Blur(gaussian_kernel(5, 1.0), GRAY), Family)  # an operator is no family of itself
    assert not isinstance(prior(), JointPrior)
