"""Other libraries on our denoisers and operators. Needs the extra ``peers``; without it every test here is skipped.

The facts that are pinned are those of the versions that the extra pins: a change of a library that mends one of them
fails a test here, and the comparison has to be recorded again.
"""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from scoreatlas import peers
from scoreatlas.bench import catalogue
from scoreatlas.bench.cost import null, operations
from scoreatlas.bench.counting import Counter, counted_prior
from scoreatlas.bench.peers.measure import BUDGET, at_budget, conversions
from scoreatlas.bench.peers.rows import ROWS, Row
from scoreatlas.errors import AtlasError
from scoreatlas.measurement import Gaussian, Measurement, simulate
from scoreatlas.operators.inpainting import Inpainting
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.mixture import GaussianMixture, gaussian
from scoreatlas.rng import Rng
from scoreatlas.samplers.ancestral import DDIM, DDPM
from scoreatlas.samplers.ode import Heun, Uniform
from scoreatlas.schedules import VE, VP

THERE = peers.available()
MISSING = [n for n in peers.LIBRARIES if not any(c.__module__.endswith(n) for c in THERE.values())]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"{', '.join(MISSING)} not installed: pip install 'scoreatlas[peers]'"
)

SHAPE, F64 = (1, 4, 4), torch.float64
SEEN = (torch.arange(16) % 2 == 0).reshape(SHAPE)


def world() -> tuple[GaussianMixture, DiffusionPrior, Measurement]:
    """N(0, 0.5^2 I) on [-1, 1], which is N(0.5, 0.25^2 I) on [0, 1]; half of 16 pixels seen, sigma_y 0.2 (0.1)."""
    p = gaussian(torch.zeros(SHAPE, dtype=F64), torch.tensor(0.25, dtype=F64))
    x = p.sample(Rng([5], dtype=F64))
    m = simulate(x, Inpainting(SEEN, F64), Gaussian(0.2), Rng([6], dtype=F64))
    return p, DiffusionPrior(p, VP(), SHAPE), m


def spread(name: str, n: int, **fields: object) -> tuple[float, float]:
    """Sampled over exact standard deviation where the data are and where they are not."""
    p, prior, m = world()
    x = THERE[name](**fields)(m.repeat(n), prior, Rng([0], n, dtype=F64))
    ratio = (x.var(0) / p.posterior(m).covariance().diagonal().reshape(SHAPE)).sqrt()
    return float(ratio[SEEN].mean()), float(ratio[~SEEN].mean())


def test_all_are_found_and_say_what_they_need() -> None:
    wanted = {
        "AzulaDPS", "AzulaPGDM", "AzulaTMPD", "AzulaMMPS", "AzulaDiffPIR", "DeepinvDPS", "DeepinvDDRM",
        "DeepinvDiffPIR", "DeepinvPiGDM", "DeepinvMMPS", "DeepinvALD", "DeepinvILVR", "DiffusersDDPM",
        "DiffusersDDIM", "DiffusersHeun",
    }  # fmt: skip
    assert set(THERE) == wanted
    assert not wanted & set(catalogue.solvers())  # they stay out of our own tables
    assert catalogue.hypotheses(THERE["DeepinvDDRM"]).operator == (Inpainting,)
    assert catalogue.hypotheses(THERE["AzulaDPS"]).prior == (DiffusionPrior,)


PAIRS = [
    (DDPM(steps=50), "DiffusersDDPM", {"steps": 50}),
    (DDPM(steps=50, variance="fixedlarge"), "DiffusersDDPM", {"steps": 50, "variance": "fixedlarge"}),
    (DDIM(steps=50), "DiffusersDDIM", {"steps": 50}),
    (DDIM(steps=50, eta=0.7), "DiffusersDDIM", {"steps": 50, "eta": 0.7}),
    (Heun(steps=50, grid=Uniform()), "DiffusersHeun", {"steps": 50}),
]


@pytest.mark.parametrize(("ours", "name", "fields"), PAIRS, ids=lambda v: v if isinstance(v, str) else None)
def test_samplers_agree_with_diffusers(ours: object, name: str, fields: dict) -> None:
    """Same grid, same noise: 1e-5, two orders above what diffusers' float32 levels leave of Heun."""
    weights, means = (
        torch.tensor([0.4, 0.6], dtype=F64),
        torch.stack([torch.full(SHAPE, v, dtype=F64) for v in (-0.5, 0.6)]),
    )
    mixture = GaussianMixture(weights, means, torch.tensor([0.1, 0.2], dtype=F64))
    prior = DiffusionPrior(mixture, VP(), SHAPE)
    for seeds, rows in (([3], 4), ([0, 7, 9], 1)):
        a, b = (s(None, prior, Rng(seeds, rows, dtype=F64)) for s in (ours, THERE[name](**fields)))
        assert a.std() > 0.3  # there is something to agree on
        assert (a - b).abs().max() < 1e-5


def test_diffusers_refuses_what_it_has_not() -> None:
    p = DiffusionPrior(world()[0], VE(), SHAPE)
    with pytest.raises(AtlasError, match="variance-preserving schedule, got VE"):
        THERE["DiffusersDDPM"](steps=5)(None, p, Rng([0], dtype=F64))
    with pytest.raises(AtlasError, match="give one seed, or rows=1"):
        THERE["DiffusersDDPM"](steps=5)(None, world()[1], Rng([0, 1], 2, dtype=F64))


def test_conversion_to_the_unit_range() -> None:
    """What deepinv is given is the same problem: data, noise and denoiser of u = (x + 1) / 2."""
    from scoreatlas.peers.deepinv import UnitRange, to_physics

    p, _, m = world()
    y, physics = to_physics(m, Rng([0], dtype=F64))
    x = p.sample(Rng([8], dtype=F64))
    assert torch.allclose(physics.A((x + 1) / 2), m.A.adjoint((m.A(x) + 1) / 2), atol=1e-12)
    assert float(physics.noise_model.sigma) == pytest.approx(0.1)
    assert torch.allclose(y[:, SEEN], (m.y + 1) / 2, atol=1e-12)
    unit = gaussian(torch.full(SHAPE, 0.5, dtype=F64), torch.tensor(0.0625, dtype=F64))
    for sigma in (0.3, torch.tensor(0.3), torch.full((1, 1, 1, 1), 0.3)):
        assert torch.allclose(UnitRange(p, F64)(x, sigma), unit(x, torch.tensor(0.3, dtype=F64)), atol=1e-6)


def test_a_level_of_zero_is_no_noise() -> None:
    """DDRM asks for it in its last step; a network that takes the logarithm of the level would answer NaN."""
    from scoreatlas.peers.deepinv import UnitRange
    from scoreatlas.priors.pretrained import load_pretrained

    u = (Rng([0]).normal(1, 32, 32) * 0.3 + 0.5).clamp(0, 1)
    for sigma in (0.0, torch.tensor(0.0), torch.zeros(1, 1, 1, 1)):
        assert (UnitRange(load_pretrained("digits").denoiser, torch.float32)(u, sigma) - u).abs().max() < 1e-3


def test_deepinv_dps_puts_the_gradient_into_the_score() -> None:
    """Its last step is x0 - w b / 2 grad |r| with b = sigma^2 / alpha, where DPS takes x0 - zeta grad |r|.

    In the middle b = alpha_s alpha_t (sigma_t / alpha_t)^2 (1 - r^2), r the ratio of the levels: DDPM's beta, nearly.
    """
    _, prior, m = world()
    seen: list[Tensor] = []

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(x.detach())
        return prior.denoiser(x, sigma)

    out = THERE["DeepinvDPS"](steps=2, weight=3.0)(m, DiffusionPrior(denoiser, VP(), SHAPE), Rng([0], dtype=F64))
    t = prior.schedule.at(1.0)
    x = (t.alpha * seen[0]).requires_grad_()
    x0 = prior.denoiser(x / t.alpha, torch.tensor(t.noise, dtype=F64))
    (slope,) = torch.autograd.grad((m.y - m.A(x0)).norm(), x)
    pull = 3.0 * t.sigma**2 / t.alpha / 2 * slope
    assert (out - (x0 - pull)).abs().max() < 1e-3 * pull.abs().max()  # what is left is deepinv's float32 input


STEPPED = [r for r in ROWS if r.iterative and not r.sampler]


@pytest.mark.parametrize("row", STEPPED, ids=lambda r: f"{r.name}-{r.source}")
def test_every_row_makes_as_many_network_calls(row: Row) -> None:
    _, prior, m = world()
    counter = Counter()
    at_budget(row.build())(m, counted_prior(prior, counter), Rng([0], dtype=F64))
    assert counter.denoiser == BUDGET


def test_deepinv_ddrm_halves_its_noise_variance() -> None:
    """It divides its noise by sqrt(2); the paper does not.

    Where nothing is seen the recursion is x_s = x0 + sigma_s (sqrt(1 - eta^2) eps + eta z / sqrt(2)) with x0 = D(x),
    linear on a Gaussian, so that its variance is known: iterate it, and compare within 5 Monte-Carlo errors.
    """
    n, eta, c2 = 4000, 0.85, 0.0625  # prior variance on [0, 1]
    sigma = torch.linspace(1, 0, 100, dtype=F64).tolist()

    def limit(z: float) -> float:
        """Sampled over exact standard deviation if the noise is z times as large as in the paper."""
        v = sigma[0] ** 2 * z**2  # of the noisy iterate about the prior's mean, which is the fixed point
        for s, t in zip(sigma[:-1], sigma[1:], strict=True):
            gain = c2 / (c2 + s**2)
            v = (gain + math.sqrt(1 - eta**2) * t / s * (1 - gain)) ** 2 * v + (eta * t * z) ** 2
        return math.sqrt(v / c2)

    found = spread("DeepinvDDRM", n)[1]
    assert abs(found / limit(1 / math.sqrt(2)) - 1) < 5 / math.sqrt(2 * n * 8)
    assert found < 0.8 * limit(1.0)


def test_azula_pgdm_takes_no_noise_level() -> None:
    """Its answer has no spread at all where the data are; the exact one has sigma_y's share."""
    assert spread("AzulaPGDM", 500, steps=200)[0] < 0.02


def test_azula_dps_depends_on_the_batch() -> None:
    """The same problem in larger batches: the norm grows with the batch, the step shrinks, and so does the residual."""
    _, prior, m = world()

    def residual(n: int) -> float:
        x = THERE["AzulaDPS"](steps=200)(m.repeat(n), prior, Rng([0], n, dtype=F64))
        return float((m.y - m.A(x)).norm(dim=1).mean())

    alone, crowd = residual(1), residual(64)
    assert crowd < 0.5 * alone


def test_deepinv_dps_at_its_default_weight_hardly_sees_the_data() -> None:
    """Without data the ratio would be that of the prior, 0.5 / 0.186 = 2.69."""
    seen, unseen = spread("DeepinvDPS", 300, steps=200)
    assert seen > 2 and 0.85 < unseen < 1.05


@pytest.mark.parametrize(("name", "steps"), [("DeepinvMMPS", 300), ("AzulaMMPS", 300), ("AzulaTMPD", 300)])
def test_methods_that_know_the_covariance_are_right_on_a_gaussian(name: str, steps: int) -> None:
    """Moment matching is exact here but for the steps: 10 %, the first-order error of 300 steps with margin."""
    seen, unseen = spread(name, 500, steps=steps)
    assert abs(seen - 1) < 0.1 and abs(unseen - 1) < 0.1


def test_the_global_generator_is_left_alone() -> None:
    _, prior, m = world()
    torch.manual_seed(0)
    before: Tensor = torch.get_rng_state()
    a = THERE["AzulaDPS"](steps=5)(m, prior, Rng([0], dtype=F64))
    b = THERE["DeepinvDPS"](steps=5)(m, prior, Rng([1], dtype=F64))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(a, THERE["AzulaDPS"](steps=5)(m, prior, Rng([0], dtype=F64)))
    assert not torch.equal(b, THERE["DeepinvDPS"](steps=5)(m, prior, Rng([2], dtype=F64)))


def test_conversions_of_a_step_are_counted_by_hand() -> None:
    """There 2 u - 1, 2 sigma (from 0 up, reshaped, a view), (x + 1) / 2: 7. Back: division and product: 2, each vjp."""
    m = simulate(torch.zeros(2, *SHAPE), Inpainting(SEEN), Gaussian(0.2), Rng([0], 2))
    prior = DiffusionPrior(null, VP(), SHAPE)
    assert conversions(operations(THERE["DeepinvDDRM"](), m, prior)) == 7
    assert conversions(operations(THERE["DeepinvDPS"](), m, prior)) == 9


def test_fields_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        THERE["AzulaDPS"]().steps = 3
