"""Flow matching, reflow, score matching and the coupling flow, float64, against closed forms."""

import math

import pytest
import torch
from torch import Tensor, nn

from scoreatlas import data
from scoreatlas.nn.coupling import CouplingFlow, MaximumLikelihood
from scoreatlas.nn.flow import FlowMatching, VelocityNet, bend, follow
from scoreatlas.nn.plane import PlaneDenoiser, PlaneVelocity
from scoreatlas.nn.score import ScoreMatching
from scoreatlas.priors import zoo
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.mixture import GaussianMixture, gaussian
from scoreatlas.rng import Rng
from scoreatlas.samplers.ancestral import DDIM
from scoreatlas.schedules import Flow, Time
from scoreatlas.training import Trainable, fit
from scoreatlas.tweedie import flow_from_x0

double = torch.float64
MIXTURE = GaussianMixture(
    torch.tensor([0.6, 0.4], dtype=double),
    torch.tensor([[-0.8, 0.0], [0.7, 0.4]], dtype=double),
    torch.tensor([0.05, 0.02], dtype=double),
)


def rng(rows: int, seed: int = 0) -> Rng:
    return Rng([seed], rows, dtype=double)


def shaken(net: nn.Module) -> nn.Module:
    """The network with random weights everywhere, in double precision: nothing is zero by construction."""
    generator = torch.Generator().manual_seed(0)
    net = net.double()
    for p in net.parameters():
        p.data = 0.1 * torch.randn(p.shape, generator=generator, dtype=double)
    return net.eval().requires_grad_(False)


class Known(nn.Module):
    """The exact velocity of a mixture on straight lines."""

    def velocity(self, x: Tensor, tau: Tensor) -> Tensor:
        t = tau.expand(len(x))[:, None]
        x0 = MIXTURE(x / (1 - t), (t / (1 - t))[:, 0])
        return (x - x0) / t  # (x - (1 - t) x0) / t - x0


# ---------------------------------------------------------------- the losses


def test_flow_matching_loss_of_the_exact_velocity_is_its_floor():
    """E|eps - x0 - u|^2 = E tr Cov[eps - x0 | x] = E tr Cov[x0 | x] / tau^2, per entry; compared row by row in mean."""
    n = 40_000
    found = FlowMatching(Known()).loss({"image": MIXTURE.sample(rng(n))}, rng(n, 1))
    r = rng(n, 1)
    eps, tau = r.normal(2), r.uniform()
    x = (1 - tau)[:, None] * MIXTURE.sample(rng(n)) + tau[:, None] * eps
    sigma = tau / (1 - tau)
    covariance = MIXTURE.denoising_covariance(x / (1 - tau)[:, None], sigma)
    floor = covariance.diagonal(dim1=1, dim2=2).mean(1) / tau**2
    gap = found - floor
    assert abs(float(gap.mean())) < 4 * float(gap.std()) / math.sqrt(n)
    assert float(floor.mean()) > 20 * float(gap.std()) / math.sqrt(n)  # large enough to be told from zero


def test_score_matching_loss_of_the_exact_score_is_its_floor():
    """sigma^2 E|s + eps / sigma|^2 = E tr Cov[x0 | x] / sigma^2, per entry."""
    n = 40_000
    module = ScoreMatching(_AsModule(MIXTURE), low=0.05, high=5.0)
    found = module.loss({"image": MIXTURE.sample(rng(n))}, rng(n, 1))
    r = rng(n, 1)
    sigma = (math.log(0.05) + math.log(100) * r.uniform()).exp()
    x = MIXTURE.sample(rng(n)) + sigma[:, None] * r.normal(2)
    floor = MIXTURE.denoising_covariance(x, sigma).diagonal(dim1=1, dim2=2).mean(1) / sigma**2
    gap = found - floor
    assert abs(float(gap.mean())) < 4 * float(gap.std()) / math.sqrt(n)
    assert float(floor.mean()) > 20 * float(gap.std()) / math.sqrt(n)


class _AsModule(nn.Module):
    def __init__(self, denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.denoiser(x, sigma)


def test_score_matching_is_the_error_of_the_noise():
    net = shaken(PlaneDenoiser())
    x0 = MIXTURE.sample(rng(64))
    found = ScoreMatching(net).loss({"image": x0}, rng(64, 1))
    r = rng(64, 1)
    sigma = (math.log(0.01) + math.log(2000) * r.uniform()).exp()
    eps = r.normal(2)
    x = x0 + sigma[:, None] * eps
    predicted = (x - net(x, sigma)) / sigma[:, None]
    assert torch.allclose(found, (predicted - eps).square().mean(1), rtol=1e-9, atol=1e-12)


def test_reflow_keeps_its_pairs():
    """A loss on given pairs does not see the stream's noise: with the true straight velocity it vanishes."""

    class Shift(nn.Module):
        def velocity(self, x: Tensor, tau: Tensor) -> Tensor:
            return torch.full_like(x, 3.0)

    x0 = MIXTURE.sample(rng(16))
    assert float(FlowMatching(Shift()).loss({"image": x0, "noise": x0 + 3}, rng(16)).max()) < 1e-28
    assert float(FlowMatching(Shift()).loss({"image": x0}, rng(16)).max()) > 1


# ---------------------------------------------------------------- one network, two languages


@pytest.mark.parametrize("net", [VelocityNet(1, (8, 16)), PlaneVelocity()], ids=lambda n: type(n).__name__)
def test_velocity_and_denoiser_are_one_network(net):
    """The dictionary turns forward() back into velocity(), at every level."""
    net = shaken(net)
    shape = (1, 8, 8) if isinstance(net, VelocityNet) else (2,)
    for tau in (0.05, 0.5, 0.95):
        at = Time(tau, 1 - tau, tau)
        x = rng(3).normal(*shape)
        x0 = net(x / at.alpha, torch.tensor(at.noise, dtype=double))
        u = net.velocity(x, torch.tensor(tau, dtype=double))
        assert torch.allclose(flow_from_x0(x, x0, at), u, atol=1e-11, rtol=0)


def test_euler_on_straight_lines_is_ddim():
    """The same path by two codes: follow() with the velocity, and DDIM with the denoiser on the flow schedule."""
    net, end = shaken(VelocityNet(1, (8, 16))), 0.9
    prior = DiffusionPrior(net, Flow(end=end), (1, 8, 8))
    path = follow(net.velocity, prior.initial(rng(2)), 7, start=end)
    states = [s.x for s in DDIM(7).run(None, prior, rng(2))]
    assert max(float((a - b).abs().max()) for a, b in zip(path[1:], states, strict=True)) < 1e-11


def test_follow_ends_on_the_data_at_first_order():
    """On N(0, c) the flow multiplies by sqrt(c) between tau = 1 and 0, and Euler's error halves with the step."""
    c = 0.09
    prior = gaussian(torch.zeros(1, dtype=double), torch.tensor([c], dtype=double))

    def velocity(x: Tensor, tau: Tensor) -> Tensor:
        if float(tau) == 1:
            return x  # x0 is its mean, 0, and eps is x
        x0 = prior(x / (1 - tau), tau / (1 - tau))
        return (x - x0) / tau

    noise = torch.ones(1, 1, dtype=double)
    wrong = [abs(float(follow(velocity, noise, n)[-1]) - math.sqrt(c)) for n in (200, 400)]
    assert wrong[1] < 0.01 and abs(math.log2(wrong[0] / wrong[1]) - 1) < 0.1
    # and the path is the hyperbola of the text: sqrt((1 - tau)^2 c + tau^2)
    path = follow(velocity, noise, 4000)[:, 0, 0]
    tau = torch.linspace(1, 0, 4001, dtype=double)
    assert float((path - ((1 - tau) ** 2 * c + tau**2).sqrt()).abs().max()) < 1e-3


def test_bend_of_known_paths():
    """0 for a straight path; for tau + a sin(2 pi tau) the integral of (2 pi a cos)^2, that is 2 pi^2 a^2."""
    tau = torch.linspace(0, 1, 2001, dtype=double)[:, None, None]
    straight, curved = tau * torch.ones(1, 3), tau + 0.1 * (2 * math.pi * tau).sin() * torch.ones(1, 3)
    assert float(bend(straight)) < 1e-20
    assert float(bend(curved)) == pytest.approx(2 * math.pi**2 * 0.01, rel=1e-4)
    assert float(bend(curved.flip(0))) == pytest.approx(2 * math.pi**2 * 0.01, rel=1e-4)


# ---------------------------------------------------------------- the networks that come with the book


def test_shipped_flow_is_a_denoiser_near_its_floor_and_reflow_is_straighter():
    """Loss as on the card; bend of 8 steps underestimates that of 64 on the card, for both alike."""
    found = {}
    for name in ("digits-flow", "digits-reflow"):
        net, card = zoo.load(name)
        assert isinstance(net, VelocityNet) and card["parameters"] * 2 < 1e6
        noise = Rng([2], 16).normal(1, 32, 32)
        path = follow(net.velocity, noise, 8)
        found[name] = float(bend(path).mean())
        if name == "digits-flow":
            images = data.digits("test")[0][:32]
            loss = FlowMatching(net).loss({"image": images}, Rng([1], 32))
            assert abs(float(loss.mean()) - card["evidence"]["held_out_loss"]) < 4 * float(loss.std()) / math.sqrt(32)
    assert found["digits-reflow"] < 0.6 * found["digits-flow"]


# ---------------------------------------------------------------- the coupling flow


def test_coupling_flow_inverts_exactly_and_knows_its_determinant():
    net = shaken(CouplingFlow(3, couplings=5, width=16))
    z = rng(6).normal(3)
    x, change = net(z)
    back, unchange = net.inverse(x)
    assert float((back - z).abs().max()) < 1e-13
    assert float((change + unchange).abs().max()) < 1e-13
    dense = torch.stack([torch.autograd.functional.jacobian(lambda v: net(v[None])[0][0], row) for row in z])
    assert float((torch.linalg.slogdet(dense).logabsdet - change).abs().max()) < 1e-12
    assert float(change.abs().min()) > 1e-3  # not the identity


def test_coupling_density_integrates_to_one():
    """Trapezoidal rule on a wide grid; the integrand is smooth, so the sum is exact to the tails."""
    net = shaken(CouplingFlow(2, couplings=4, width=16))
    line = torch.linspace(-12, 12, 601, dtype=double)
    grid = torch.cartesian_prod(line, line)
    total = float(net.log_prob(grid).exp().sum()) * float(line[1] - line[0]) ** 2
    assert total == pytest.approx(1, abs=1e-5)


def test_coupling_flow_learns_a_correlated_gaussian():
    """The best model is the data's own: its likelihood is the entropy, measured on the same held-out points."""
    c = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=double)
    truth = gaussian(torch.tensor([1.0, -1.0], dtype=double), c)
    torch.manual_seed(0)
    net = CouplingFlow(couplings=4, width=16, layers=1)
    data = {"image": truth.sample(rng(5000)).float()}
    trained = fit(MaximumLikelihood(net), data, steps=300, batch=256, lr=5e-3, ema=0.98, warmup=20)
    x = truth.sample(rng(4000, 1))
    gap = truth.log_prob(x) - trained.log_prob(x.float()).double()  # its mean is a Kullback-Leibler divergence
    assert 0 - 4 * float(gap.std()) / math.sqrt(4000) < float(gap.mean()) < 0.03
    untrained = (truth.log_prob(x) - CouplingFlow(couplings=4).log_prob(x.float()).double()).mean()
    assert float(untrained.detach()) > 0.5


def test_the_losses_are_trainables():
    for t in (FlowMatching(PlaneVelocity()), ScoreMatching(PlaneDenoiser()), MaximumLikelihood(CouplingFlow())):
        assert isinstance(t, Trainable)
