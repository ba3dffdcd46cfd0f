"""The closed-form flow of a Gaussian against a numerical ODE solver, dense algebra and Heun's method, in float64."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from scoreatlas import data
from scoreatlas.bench import outline
from scoreatlas.gaussian_flow import GaussianFlow
from scoreatlas.metrics.judge import load_judge
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.mixture import gaussian
from scoreatlas.priors.pretrained import WEIGHTS
from scoreatlas.rng import Rng
from scoreatlas.samplers.ode import Heun, Karras
from scoreatlas.samplers.outline import Outline
from scoreatlas.schedules import SCHEDULES, VE, VP, Flow

N = 5


def rng(rows: int, seed: int = 0) -> Rng:
    return Rng([seed], rows, dtype=torch.float64)


def flow() -> GaussianFlow:
    """Two directions of their own in five dimensions, a variance for the rest, an offset mean."""
    basis = torch.linalg.qr(rng(N).normal(2)).Q
    return GaussianFlow(rng(1, 1).normal(N)[0], basis, torch.tensor([2.0, 0.3], dtype=torch.float64), 0.01)


def covariance(f: GaussianFlow) -> torch.Tensor:
    outside = torch.eye(N, dtype=torch.float64) - f.basis @ f.basis.T
    return f.basis @ f.variances.diag() @ f.basis.T + f.rest * outside


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_closed_form_solves_the_ode_of_any_schedule(schedule):
    """An adaptive Runge-Kutta method of order 8, on the exact denoiser of another class; tolerance: the solver's."""
    f, t, s = flow(), schedule.at(0.7), schedule.at(0.1)
    other, x = gaussian(f.mean, covariance(f)), t.sigma * rng(1, 2).normal(N)

    def velocity(n: float, z: np.ndarray) -> np.ndarray:
        z0 = torch.from_numpy(z)[None]
        return ((z0 - other(z0, torch.tensor(n, dtype=torch.float64)))[0] / n).numpy()

    start = (x[0] / t.alpha).numpy()
    numeric = solve_ivp(velocity, (t.noise, s.noise), start, "DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
    assert np.abs(f.at(x, t, s)[0].numpy() / s.alpha - numeric).max() < 1e-9 * max(1, t.noise)


def test_denoiser_is_that_of_the_dense_gaussian():
    f, x = flow(), rng(4, 3).normal(N)
    for sigma in (0.05, 1.0, 30.0):
        s = torch.tensor(sigma, dtype=torch.float64)
        assert float((f(x, s) - gaussian(f.mean, covariance(f))(x, s)).abs().max()) < 1e-12


def test_the_flow_is_a_group_and_carries_the_noisy_law_to_the_clean_one():
    f, z = flow(), rng(4, 3).normal(N)
    assert float((f.move(f.move(z, 9.0, 2.0), 2.0, 0.1) - f.move(z, 9.0, 0.1)).abs().max()) < 1e-13
    assert float((f.move(f.move(z, 9.0, 0.1), 0.1, 9.0) - z).abs().max()) < 1e-12
    jacobian = torch.stack([f.move(f.mean + e[None], 3.0, 0.0)[0] - f.mean for e in torch.eye(N).double()], 1)
    noisy = covariance(f) + 9 * torch.eye(N, dtype=torch.float64)
    assert float((jacobian @ noisy @ jacobian.T - covariance(f)).abs().max()) < 1e-13


@pytest.mark.parametrize("m", [4, 40], ids=["fewer images than pixels", "more"])
def test_fit_is_the_sample_covariance_with_its_tail_averaged(m):
    x, rank = rng(m, 4).normal(1, 2, 3) * torch.linspace(1, 3, 6, dtype=torch.float64).reshape(1, 2, 3), 2
    f = GaussianFlow.from_images(x, rank)
    sample = torch.cov(x.flatten(1).T)
    values, vectors = torch.linalg.eigh(sample)
    assert torch.allclose(f.mean, x.mean(0)) and torch.allclose(f.variances, values.flip(0)[:rank], atol=1e-12)
    overlap = (f.basis.T @ vectors.flip(1)[:, :rank]).abs()
    assert float((overlap - torch.eye(rank)).abs().max()) < 1e-9
    total = float(f.variances.sum()) + f.rest * (6 - rank)
    assert math.isclose(total, float(sample.trace()), rel_tol=1e-12)


def test_a_rank_that_the_images_cannot_support_is_refused():
    with pytest.raises(ValueError, match=r"support ranks 0 ... 3, got 4"):
        GaussianFlow.from_images(rng(4).normal(1, 2, 3), 4)
    with pytest.raises(ValueError, match="noise levels must be positive"):
        flow().move(rng(1).normal(N), 0.0, 1.0)


def test_outline_without_a_network_is_the_exact_solution():
    f = flow()
    prior = DiffusionPrior(f, VP(), (N,))
    top = VP().at(1.0)
    exact = f.move(prior.initial(rng(6)) / top.alpha, top.noise, 0.0)
    assert float((Outline(f, skip=0.0)(None, prior, rng(6)) - exact).abs().max()) < 1e-12
    errors = [float((Outline(f, skip=s, steps=40)(None, prior, rng(6)) - exact).abs().max()) for s in (3.0, 0.3)]
    heun = float((Heun(40)(None, prior, rng(6)) - exact).abs().max())
    assert errors[1] < errors[0] < heun  # what is skipped is solved without error


@pytest.mark.parametrize("schedule", [VP(), VE(sigma_max=80.0), Flow()], ids=repr)
def test_outline_that_skips_nothing_is_heun_bit_by_bit(schedule):
    prior = DiffusionPrior(gaussian(flow().mean, 2 * covariance(flow())), schedule, (N,))
    lazy = Outline(flow(), skip=math.inf, steps=9)
    assert torch.equal(lazy(None, prior, rng(3)), Heun(9)(None, prior, rng(3)))
    assert lazy.calls(prior) == 17


def test_calls_are_those_that_are_made():
    f, made = flow(), []
    prior = DiffusionPrior(lambda x, s: (made.append(1), f(x, s))[1], VP(), (N,))
    for skip in (0.0, 0.2, 5.0, 1e9):
        made.clear()
        sampler = Outline(f, skip, steps=11)
        sampler(None, prior, rng(2))
        assert len(made) == sampler.calls(prior)


def test_energy_distance_of_two_points_and_without_bias():
    a, b = torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [5.0]])
    assert math.isclose(outline.energy(a, b), 2 * (3 + 5 + 2 + 4) / 4 - 1 - 2, rel_tol=1e-6)
    values = torch.tensor([outline.energy(rng(20, i).normal(3), rng(30, 500 + i).normal(3)) for i in range(200)])
    assert abs(float(values.mean())) < 4 * float(values.std()) / math.sqrt(200)


def test_the_card_belongs_to_the_weights_and_to_the_code():
    card = json.loads((WEIGHTS / f"{outline.NAME}.json").read_text())
    assert card["weights"] == {name: outline.weights_hash(name) for name in outline.RANK}
    grid, f = Karras()(outline.SCHEDULE, outline.STEPS), flow()
    prior = DiffusionPrior(f, outline.SCHEDULE, (N,))
    for found in card["evidence"].values():
        for row in found["skip"]:
            skip = grid[row["skipped"]] if row["skipped"] else math.inf
            assert Outline(f, skip, outline.STEPS).calls(prior) == row["calls"]
        assert max(found["path"][0]["gaussian"]) < 1e-5  # both start from the same noise; single precision at n = 80
    held, train = data.digits("test")[0], data.digits("train")[0][: outline.ROWS["digits"]]
    with torch.no_grad():
        again = outline.energy(load_judge().features(train), load_judge().features(held))
    assert math.isclose(again, card["evidence"]["digits"]["floor"]["energy"][0], abs_tol=1e-3)  # single precision
