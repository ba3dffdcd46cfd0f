"""DDIM inversion on a Gaussian, where the flow is known; float64."""

import math

import pytest
import torch

from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.mixture import gaussian
from scoreatlas.rng import Rng
from scoreatlas.samplers.ancestral import DDIM
from scoreatlas.samplers.inversion import decode, invert
from scoreatlas.schedules import Flow

SCHEDULE = Flow(end=0.99)
MEAN = torch.tensor([0.5, -1.0], dtype=torch.float64)
VARIANCE = torch.tensor([0.05, 0.6], dtype=torch.float64)
PRIOR = DiffusionPrior(gaussian(MEAN, VARIANCE), SCHEDULE, (2,))


def slope(errors: list[float]) -> float:
    return math.log(errors[0] / errors[-1]) / math.log(8)


def test_noise_and_round_trip_converge_with_order_1():
    x0 = MEAN + Rng([0], 6, dtype=torch.float64).normal(2) * VARIANCE.sqrt()
    top = SCHEDULE.at(1.0)
    exact = top.alpha * (MEAN + (x0 - MEAN) * ((VARIANCE + top.noise**2) / VARIANCE).sqrt())
    steps = (200, 1600)
    noise = [float((invert(PRIOR, x0, n) - exact).square().mean().sqrt()) for n in steps]
    trip = [float((decode(PRIOR, invert(PRIOR, x0, n), n) - x0).square().mean().sqrt()) for n in steps]
    assert abs(slope(noise) - 1) < 0.2 and abs(slope(trip) - 1) < 0.2


def test_the_round_trip_is_the_product_of_its_linear_factors():
    """On N(m, c) a step up multiplies z - m by 1 + (n' - n) n / (c + n^2), a step down likewise at its upper end."""
    levels = [t.noise for t in SCHEDULE.grid(12)][::-1]
    x0 = MEAN + 1.0
    gain = torch.ones_like(VARIANCE)
    for n, high in zip(levels[:-1], levels[1:], strict=True):
        at = n if n > 0 else high
        gain = gain * (1 + (high - n) * at / (VARIANCE + at**2)) * (1 + (n - high) * high / (VARIANCE + high**2))
    back = decode(PRIOR, invert(PRIOR, x0[None], 12), 12)[0]
    assert torch.allclose(back - MEAN, gain, rtol=1e-11, atol=1e-12)


def test_decoding_is_ddim():
    start = Rng([3], 4, dtype=torch.float64)
    assert torch.allclose(
        decode(PRIOR, PRIOR.initial(Rng([3], 4, dtype=torch.float64)), 20), DDIM(20)(None, PRIOR, start), atol=1e-12
    )


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="at least one step, got 0"):
        invert(PRIOR, MEAN[None], 0)
