"""Captions and their flow: rulers against shapes of known size, the loss and the denoiser against Gaussian algebra."""

import math

import pytest
import torch
from torch import Tensor, nn

from scoreatlas import data
from scoreatlas.data.captions import MEDIAN_SLANT, MEDIAN_THICKNESS, WORDS, caption, slant, small, text, thickness
from scoreatlas.nn.captioned import CaptionedFlow, FlowDenoiser
from scoreatlas.nn.hourglass import Hourglass
from scoreatlas.nn.unet import UNet
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.samplers.ode import Euler
from scoreatlas.schedules import Flow

STD = 0.6  # of the Gaussian images below


class Oracle(nn.Module):
    """E[eps - x_0 | z_t] for images N(0, STD^2 I); remembers what it was asked."""

    words = 14

    def forward(self, z: Tensor, t: Tensor, caption: Tensor) -> Tensor:
        self.t, self.caption = t, caption
        s = t[:, None, None, None]
        return (s - (1 - s) * STD**2) / ((1 - s) ** 2 * STD**2 + s**2) * z


def bar(width: int, shear: float = 0.0) -> Tensor:
    """A bar (1, 1, 32, 32) of this width whose top leans to the right."""
    row, column = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    centre = 16 - shear * (row - 15.5)
    return (2 * ((column - centre).abs() < width / 2).float() - 1)[None, None]


@pytest.mark.parametrize("width", [1, 3, 7])
def test_thickness_of_a_bar(width):
    """Its ink fills 32 rows; its outline, counted between neighbouring pixels, runs along 31 of them."""
    assert math.isclose(float(thickness(bar(width))), width * 32 / 31, rel_tol=1e-5)


@pytest.mark.parametrize("shear", [-0.5, 0.0, 0.3])
def test_slant_of_a_sheared_bar(shear):
    assert abs(float(slant(bar(3, shear))) - shear) < 0.02  # whole pixels


def test_words_halve_the_training_set():
    x, y = data.digits("train")
    x = small(x)
    for found, median in ((thickness(x), MEDIAN_THICKNESS), (slant(x), MEDIAN_SLANT)):
        assert abs(float((found > median).double().mean()) - 0.5) < 0.01  # the medians are rounded to 0.01
    words = caption(x[:3], y[:3])
    assert words[:, 0].tolist() == y[:3].tolist()
    assert text(torch.tensor([7, 10, 13])) == "seven thin slanted"
    assert len(WORDS) == 14


def test_a_velocity_is_a_denoiser():
    """The oracle's velocity gives the posterior mean STD^2 / (STD^2 + sigma^2) x."""
    x = Rng(range(3), dtype=torch.float64).normal(1, 4, 4)
    denoiser = FlowDenoiser(Oracle(), torch.zeros(3, 2, dtype=torch.long))
    for sigma in (0.01, 0.5, 1.0, 50.0):
        got = denoiser(x, torch.tensor(sigma, dtype=torch.float64))
        assert torch.allclose(got, STD**2 / (STD**2 + sigma**2) * x, rtol=1e-10)


def test_loss_of_the_oracle_is_the_posterior_variance():
    """E |v - (eps - x_0)|^2 = STD^2 / ((1 - t)^2 STD^2 + t^2), averaged over the times that were drawn."""
    net, n = Oracle(), 4000
    rng = Rng([0], rows=n, dtype=torch.float64)
    x0 = STD * rng.normal(1, 4, 4)
    words = torch.zeros(n, 3, dtype=torch.long)
    loss = CaptionedFlow(net).loss({"image": x0, "caption": words}, rng)
    want = STD**2 / ((1 - net.t) ** 2 * STD**2 + net.t**2)
    assert abs(float((loss - want).mean())) < 5 * float((loss - want).std()) / math.sqrt(n)


def test_times_are_logit_normal_and_whole_captions_are_dropped():
    net, n = Oracle(), 4000
    rng = Rng([0], rows=n)
    words = torch.zeros(n, 3, dtype=torch.long)
    CaptionedFlow(net, null_probability=0.1).loss({"image": rng.normal(1, 1, 1), "caption": words}, rng)
    logit = net.t.logit()
    assert abs(float(logit.mean())) < 5 / math.sqrt(n)
    assert abs(float(logit.std()) - 1) < 5 / math.sqrt(2 * n)
    dropped = net.caption == 14
    assert torch.equal(dropped.any(1), dropped.all(1))
    assert abs(float(dropped[:, 0].float().mean()) - 0.1) < 5 * math.sqrt(0.1 * 0.9 / n)


def test_euler_on_the_flow_is_the_usual_euler():
    """z_s = z_t + (s - t) v(z_t, t): what SD3's code does, in the coordinates of this package."""
    net, steps, shape = Oracle(), 7, (1, 4, 4)
    words, schedule = torch.zeros(2, 3, dtype=torch.long), Flow()
    prior = DiffusionPrior(FlowDenoiser(net, words), schedule, shape)
    got = Euler(steps)(None, prior, Rng([3], rows=2, dtype=torch.float64))
    z = prior.initial(Rng([3], rows=2, dtype=torch.float64))
    for t, s in schedule.pairs(steps):
        v = net(z, torch.full((2,), t.sigma, dtype=torch.float64), words)
        z = z + (s.sigma - t.sigma) * v
    assert torch.allclose(got, z, atol=1e-10)


@pytest.mark.parametrize("patch", [1, 2])
def test_everything_passes_the_bottleneck_of_the_hourglass(patch):
    """With the middle silenced the hourglass knows nothing of its input; the U-Net does, through its skips."""

    def silenced(net: nn.Module) -> nn.Module:
        with torch.no_grad():
            for i, p in enumerate(net.parameters()):
                p.add_(0.1 * Rng([i]).normal(*p.shape)[0])
        net.middle[2].register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
        return net.eval()

    x, noise = Rng([0, 1]).normal(1, 16, 16), torch.zeros(2)
    y = silenced(Hourglass(1, (8, 16), patch=patch))(x, noise)
    assert torch.equal(y[0], y[1])
    y = silenced(UNet(1, (8, 16), patch=patch))(x, noise)
    assert float((y[0] - y[1]).detach().abs().max()) > 1e-3


def test_the_hourglass_lacks_nothing_but_the_skips():
    """Its decoder blocks take c channels where the U-Net's take c + skip: the other parameters are as many."""
    widths, embedding = (8, 16), 32
    u, h = UNet(1, widths), Hourglass(1, widths)
    missing = 0
    for below, skip, width in ((16, 16, 16), (16, 8, 8)):
        with_skip, without = (
            nn.ModuleList([nn.GroupNorm(1, c), nn.Conv2d(c, width, 3)]) for c in (below + skip, below)
        )
        missing += sum(p.numel() for p in with_skip.parameters()) - sum(p.numel() for p in without.parameters())
        missing += (below + skip) * width + width - ((below * width + width) if below != width else 0)  # 1x1 on the sum
    assert embedding == 4 * widths[0]
    assert sum(p.numel() for p in u.parameters()) - sum(p.numel() for p in h.parameters()) == missing
