"""Phase retrieval: its operators against other implementations, its solvers against their theorems. All float64."""

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d

from scoreatlas.bench.tasks_phase import TASKS
from scoreatlas.linalg import dot, norm
from scoreatlas.measurement import Gaussian, Measurement, simulate
from scoreatlas.metrics.ambiguity import align
from scoreatlas.operators.base import Operator
from scoreatlas.operators.identity import Identity
from scoreatlas.operators.phase import CodedDiffraction, FourierIntensity, FourierMagnitude
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.mixture import gaussian
from scoreatlas.rng import Rng
from scoreatlas.schedules import VP
from scoreatlas.solvers.classical.error_reduction import ErrorReduction, reduce
from scoreatlas.solvers.classical.hio import HIO, impose
from scoreatlas.solvers.restarts import closest, misfit
from scoreatlas.solvers.variational.prdeep import PrDeep

F64 = torch.float64
GRAY, COLOUR = (1, 8, 8), (3, 6, 5)


def rng(*seeds: int, rows: int = 1) -> Rng:
    return Rng(seeds, rows, dtype=F64)


OPERATORS = {
    "amplitude": FourierMagnitude(GRAY),
    "amplitude, odd frame": FourierMagnitude(COLOUR, 1.5),
    "amplitude, no frame": FourierMagnitude(GRAY, 1.0),
    "intensity": FourierIntensity(COLOUR),
    "coded": CodedDiffraction(COLOUR, 3, rng(5), F64),
}
each = pytest.mark.parametrize("A", OPERATORS.values(), ids=OPERATORS.keys())
amplitudes = pytest.mark.parametrize(
    "A", [FourierMagnitude(GRAY), CodedDiffraction(GRAY, 2, rng(5), F64)], ids=["far", "coded"]
)


@each
def test_vjp_is_autodiff_and_a_finite_difference(A):
    """Central differences with step h err by h^2 times the third derivative, and by rounding 1e-16 / h."""
    x, d = rng(0, 1).normal(*A.shape), rng(2, 3).normal(*A.shape)
    v, h = rng(4, 5).normal_like(A(x)), 1e-6
    assert torch.allclose(A.vjp(x, v), Operator.vjp(A, x, v), atol=1e-12)
    slope = dot((A(x + h * d) - A(x - h * d)) / (2 * h), v)
    assert torch.allclose(dot(d, A.vjp(x, v)), slope, rtol=1e-6, atol=1e-7)


@each
def test_the_wave_is_a_scaled_isometry(A):
    u = rng(0, 1).normal(*A.shape)
    z = torch.complex(*rng(2, 3).normal(2, *A.wave(u).shape[1:]).unbind(1))
    assert torch.allclose(dot(A.wave(u), z), dot(u, A.back(z)), atol=1e-12 * float(norm(u).max() * norm(z).max()))
    assert torch.allclose(A.back(A.wave(u)), A.gain * u, atol=1e-13)


@each
def test_rows_and_dtypes(A):
    x = rng(0, 1, 2).normal(*A.shape)
    y = A(x)
    assert torch.allclose(A(x[1:2]), y[1:2], atol=1e-14)
    assert torch.allclose(A.vjp(x[1:2], y[1:2]), A.vjp(x, y)[1:2], atol=1e-14)
    single = A.to(dtype=torch.float32)(x.float())
    assert single.dtype == torch.float32 and torch.allclose(single.double(), y, rtol=1e-4, atol=1e-5)


def test_amplitudes_are_those_of_numpy():
    x = rng(0).normal(*COLOUR)
    u = (x[0].numpy() + 1) / 2
    frame = np.zeros((3, 9, 8))  # 1.5 times 6 and 5, rounded half to even
    frame[:, 1:7, 1:6] = u
    found = FourierMagnitude(COLOUR, 1.5)(x)[0].numpy()
    assert np.allclose(found, np.abs(np.fft.fft2(frame)) / np.sqrt(72), atol=1e-13)
    A = OPERATORS["coded"]
    for k, mask in enumerate(A.masks[:, 0].numpy()):
        assert np.allclose(A(x)[0, k].numpy(), np.abs(np.fft.fft2(mask * u)) / np.sqrt(30), atol=1e-13)
        assert np.allclose(np.abs(mask), 1, atol=1e-14)


def test_where_the_wave_is_zero_nothing_pulls():
    for A in (FourierMagnitude(GRAY), CodedDiffraction(GRAY, 2, rng(5), F64)):
        dark = torch.full((1, *GRAY), -1.0, dtype=F64)  # no light at all
        assert (A(dark) == 0).all() and (A.vjp(dark, torch.ones_like(A(dark))) == 0).all()
        assert (Operator.vjp(A, dark, torch.ones_like(A(dark))) == 0).all()  # torch agrees


def test_the_intensity_is_the_spectrum_of_the_autocorrelation():
    """In a frame of 2 h - 1 or more it is the linear autocorrelation; in a smaller one it overlaps itself."""
    x = rng(0).normal(*GRAY)
    u = (x[0, 0].numpy() + 1) / 2
    full = correlate2d(u, u)  # 15 x 15, its centre at (7, 7)
    for oversampling in (2.0, 1.5):
        y = FourierIntensity(GRAY, oversampling)(x)[0, 0]
        side = y.shape[0]
        found = torch.fft.fftshift(torch.fft.ifft2(y).real)[1:, 1:].numpy() * side**2
        centre = side // 2 - 1
        reach = min(7, centre)
        inner = found[centre - reach : centre + reach + 1, centre - reach : centre + reach + 1]
        same = np.allclose(inner, full[7 - reach : 8 + reach, 7 - reach : 8 + reach], atol=1e-12)
        assert same == (oversampling == 2.0)


def test_trivial_ambiguities():
    """Half-turn and shift leave the data alone; the sign of u would, too, but x -> -x does not: u is not x."""
    A = FourierMagnitude((1, 12, 12))
    x = torch.full((1, 1, 12, 12), -1.0, dtype=F64)
    x[..., 3:8, 2:9] = rng(0).uniform(1, 5, 7)
    y = A(x)
    for other in (x.flip(-2, -1), x.roll((2, -1), (-2, -1)), x.flip(-2, -1).roll((-3, 1), (-2, -1)), -x - 2):
        assert torch.allclose(A(other), y, atol=1e-13)
    assert not torch.allclose(A(-x), y, atol=0.1)
    assert torch.allclose(y.flip(-2, -1).roll((1, 1), (-2, -1)), y, atol=1e-13)  # y(-k) = y(k): measured twice
    coded = CodedDiffraction((1, 12, 12), 1, rng(5), F64)
    assert not torch.allclose(coded(x.flip(-2, -1)), coded(x), atol=0.1)


def test_illegal_operators_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        FourierMagnitude(GRAY, 0.5)
    with pytest.raises(ValueError, match="at least one mask"):
        CodedDiffraction(GRAY, 0, rng(0))


def test_tasks():
    for task in TASKS:
        A, noise = task.draw(COLOUR, np.random.default_rng(0))
        again, _ = task.draw(COLOUR, np.random.default_rng(0))
        x = rng(0).normal(*COLOUR).float()
        assert noise == Gaussian(0.05) and torch.equal(A(x), again(x)) and task.operator.__doc__
        # as much light as in the image, once for each exposure
        assert torch.allclose(norm(A(x)) ** 2, A.gain * norm((x + 1) / 2) ** 2, rtol=1e-5)


# --- alignment ---


def test_align_finds_what_was_done():
    x = torch.full((4, 1, 12, 12), -1.0, dtype=F64)
    x[..., 3:8, 2:9] = rng(0, 1, 2, 3).uniform(1, 5, 7)
    moved = torch.stack(
        [x[0], x[1].flip(-2, -1), x[2].roll((2, -1), (-2, -1)), x[3].flip(-2, -1).roll((-1, 2), (-2, -1))]
    )
    found = align(moved, x)
    assert torch.allclose(found.x, x, atol=1e-14)
    assert found.flipped.flatten().tolist() == [False, True, False, True]
    assert found.shift[2, 0].tolist() == [-2, 1]
    assert torch.allclose(align(-2 - moved, x, sign=True).x, x, atol=1e-14)
    assert (align(-2 - moved, x, sign=True).sign == -1).all()
    still = align(moved, x, flip=False, shift=False)
    assert torch.allclose(still.x, moved, atol=1e-15) and (still.shift == 0).all()


def test_align_is_the_best_of_all_versions():
    """Against brute force: every turn and shift of a small image in its frame."""
    x, truth = (2 * rng(s).uniform(1, 4, 4) - 1 for s in (0, 1))
    frame = lambda z: torch.nn.functional.pad((z + 1) / 2, (0, 4, 0, 4))  # noqa: E731
    target = frame(truth)
    found = {
        (turn, dy, dx): float((frame(x.flip(-2, -1) if turn else x).roll((dy, dx), (-2, -1)) - target).square().sum())
        for turn in (False, True)
        for dy in range(-4, 4)
        for dx in range(-4, 4)
    }
    a = align(x, truth)
    best = min(found, key=found.get)
    assert (bool(a.flipped), *a.shift.flatten().tolist()) == best
    chosen = frame(x.flip(-2, -1) if best[0] else x).roll(best[1:], (-2, -1))[..., :4, :4]
    assert torch.allclose(a.x, 2 * chosen - 1, atol=1e-14)


def test_channels_align_on_their_own():
    x = 2 * rng(0).uniform(*COLOUR) - 1
    mixed = x.clone()
    mixed[:, 1] = x[:, 1].flip(-2, -1)
    assert torch.allclose(align(mixed, x).x, x, atol=1e-14)


# --- restarts ---


def test_closest_is_the_smallest_misfit_row_by_row():
    A = FourierMagnitude(GRAY)
    x = rng(0, 1, 2).normal(5, *GRAY)
    y = A(x[torch.arange(3), torch.tensor([4, 0, 2])])
    assert torch.equal(closest(A, y, x), x[torch.arange(3), torch.tensor([4, 0, 2])])
    assert torch.allclose(misfit(A, y, x)[1, 3], (y[1] - A(x[1, 3:4])[0]).square().sum().sqrt(), atol=1e-13)


# --- error reduction ---


def problem(A, std=0.05, rows=3):
    x = 2 * rng(*range(rows)).uniform(*A.shape) - 1
    return x, simulate(x, A, Gaussian(std), rng(*range(10, 10 + rows)))


@amplitudes
def test_error_reduction_never_increases_the_misfit(A):
    """Fienup's theorem, for every start; equality of consecutive misfits to rounding is allowed."""
    _, m = problem(A, 0.3)
    y = m.y.clamp_min(0)
    x = 2 * rng(0, 1, 2).uniform(4, *GRAY) - 1
    values = []
    for _ in range(60):
        x = reduce(A, y, x)
        values.append(misfit(A, y, x))
    steps = torch.stack(values).diff(dim=0)
    assert float(steps.max()) < 1e-13 and float(steps[:10].max()) < 0  # and strictly so at first


@amplitudes
def test_error_reduction_is_alternating_projections(A):
    """The textbook form in numpy: measured magnitudes, back, real and >= 0."""
    _, m = problem(A, 0.3, 1)
    u = rng(7).uniform(1, *GRAY)
    start, y = u[0, 0].numpy(), np.maximum(m.y[0].numpy(), 0)
    masks = A.masks[:, 0].numpy() if isinstance(A, CodedDiffraction) else np.ones((1, 1, 1))
    side = 8 if isinstance(A, CodedDiffraction) else 16
    low = (side - 8) // 2
    for _ in range(25):
        back = np.zeros((8, 8))
        for k, mask in enumerate(masks):
            frame = np.zeros((side, side), complex)
            frame[low : low + 8, low : low + 8] = mask * start
            wave = np.fft.fft2(frame, norm="ortho")
            wave = y.reshape(len(masks), side, side)[k] * np.exp(1j * np.angle(wave))
            back += (mask.conj() * np.fft.ifft2(wave, norm="ortho")[low : low + 8, low : low + 8]).real / len(masks)
        start = np.maximum(back, 0)
    found = ErrorReduction(25)(m, None, rng(7))
    assert np.allclose((found[0, 0].numpy() + 1) / 2, start, atol=1e-10)


def test_coded_diffraction_is_recovered_without_noise():
    """With 8 masks on 64 real unknowns no run gets stuck; what is left is the speed of the iteration."""
    A = CodedDiffraction(GRAY, 8, rng(5), F64)
    x, m = problem(A, 0.0)
    assert (ErrorReduction(2000)(m, None, rng(0, 1, 2)) - x).abs().max() < 1e-5


# --- hybrid input-output ---


def test_hio_is_the_loop_of_the_paper():
    A = FourierMagnitude(GRAY)
    _, m = problem(A, 0.3, 1)
    y = np.maximum(m.y[0, 0].numpy(), 0)
    g = np.zeros((16, 16))
    g[4:12, 4:12] = rng(7).uniform(1, *GRAY)[0, 0, 0].numpy()
    for _ in range(20):
        spectrum = np.fft.fft2(g, norm="ortho")
        h = np.fft.ifft2(y * np.exp(1j * np.angle(spectrum)), norm="ortho").real
        for i, j in np.ndindex(16, 16):
            legal = 4 <= i < 12 and 4 <= j < 12 and h[i, j] >= 0
            g[i, j] = h[i, j] if legal else g[i, j] - 0.7 * h[i, j]
    found = HIO(20, polish=0, beta=0.7)(m, None, rng(7))
    assert np.allclose((found[0, 0].numpy() + 1) / 2, np.maximum(h[4:12, 4:12], 0), atol=1e-10)


def test_hio_rests_at_solutions_and_nowhere_else():
    """The truth in its frame is a fixed point; a frame that is at rest has a g' which satisfies everything."""
    A = FourierMagnitude(GRAY)
    x, m = problem(A, 0.0)
    g = A.embed((x + 1) / 2)
    wanted = impose(m.y, g)
    assert torch.allclose(wanted, g, atol=1e-13)  # so that g stays where g' is legal, and loses beta * 0 elsewhere
    inside = A.embed(torch.ones_like(x)) > 0
    # with an inconsistent magnitude there is no rest: the feedback does not vanish
    noisy = impose(m.y + 0.1 * rng(3, 4, 5).normal_like(m.y).abs(), g)
    assert float(torch.where(inside & (noisy >= 0), 0, noisy).abs().max()) > 1e-3


def test_hio_recovers_an_image_that_error_reduction_does_not():
    """8 x 8 numbers without noise, up to a half-turn: HIO finds them in most rows, error reduction in few."""
    A = FourierMagnitude(GRAY)
    x, m = problem(A, 0.0, 12)
    starts = rng(*range(40, 52))
    error = lambda e: (align(e, x).x - x).flatten(1).abs().amax(1)  # noqa: E731
    hio = error(HIO(2000, restarts=3)(m, None, starts)) < 1e-3
    er = error(ErrorReduction(2050, restarts=3)(m, None, rng(*range(40, 52)))) < 1e-3
    assert hio.sum() >= 9 and er.sum() <= hio.sum() - 4


CLASSICAL = [ErrorReduction(20, restarts=2), HIO(20, polish=5, restarts=2)]


@pytest.mark.parametrize("solver", CLASSICAL, ids=lambda s: type(s).__name__)
def test_rows_are_independent_and_reproducible(solver):
    for std in (0.0, 3.0):
        _, m = problem(FourierMagnitude(GRAY), std)
        together = solver(m, None, rng(0, 1, 2))
        alone = solver(Measurement(m.y[1:2], m.A, m.noise), None, rng(1))
        assert torch.isfinite(together).all() and (together[1] - alone[0]).abs().max() < 1e-10
        assert torch.equal(together, solver(m, None, rng(0, 1, 2)))
        assert not torch.equal(together, solver(m, None, rng(3, 4, 5)))


# --- prDeep ---


def test_prdeep_rests_where_its_equation_says():
    """N(0, c), y = x + noise: z = x + (y - x) = y, so x = (y + w D y) / (1 + w) at once, with D = c / (c + sigma^2)."""
    c, sigma, lambd, std = 0.25, 0.3, 2.0, 0.5
    prior = DiffusionPrior(gaussian(torch.zeros(1, 1, 2, dtype=F64), torch.tensor(c, dtype=F64)), VP(), (1, 1, 2))
    y = torch.tensor([0.7, -1.2], dtype=F64).reshape(1, 1, 1, 2)
    x = PrDeep(5, sigma, sigma, lambd)(Measurement(y, Identity((1, 1, 2), F64), Gaussian(std)), prior, rng(0))
    w, shrink = lambd * std**2 / sigma**2, c / (c + sigma**2)
    assert torch.allclose(x, y * (1 + w * shrink) / (1 + w), atol=1e-12)


def test_prdeep_on_amplitudes_solves_its_fixed_point_equation():
    """Long runs at one level: (x - z) + w (x - D(z)) = 0 with z the gradient step from x. Rows stay apart."""
    A = FourierMagnitude(GRAY)
    prior = DiffusionPrior(gaussian(torch.zeros(GRAY, dtype=F64), torch.tensor(0.3, dtype=F64)), VP(), GRAY)
    _, m = problem(A, 0.1)
    solver = PrDeep(3000, 0.3, 0.3, 1.0, iterations=50, restarts=2)
    x = solver(m, prior, rng(0, 1, 2))
    w, z = 4 * 0.1**2 / 0.3**2, x + 4 * A.vjp(x, m.y.clamp_min(0) - A(x))
    assert ((x - z) + w * (x - prior.denoiser(z, z.new_full((), 0.3)))).abs().max() < 1e-6
    alone = solver(Measurement(m.y[1:2], A, m.noise), prior, rng(1))
    assert (x[1] - alone[0]).abs().max() < 1e-8
