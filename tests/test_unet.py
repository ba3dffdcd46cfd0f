"""The U-Net and its preconditioning: identities, not shapes."""

import math

import pytest
import torch
from torch import Tensor, nn

from scoreatlas.nn.layers import FourierFeatures
from scoreatlas.nn.precondition import DenoisingLoss, Preconditioned
from scoreatlas.nn.unet import UNet
from scoreatlas.rng import Rng

SIGMA_DATA = 0.6


class Recorder(nn.Module):
    """A network that returns a constant and remembers what it was asked."""

    classes = 10

    def forward(self, x: Tensor, noise: Tensor, label: Tensor | None) -> Tensor:
        self.x, self.noise, self.label = x, noise, label
        return torch.ones_like(x)


def small(classes: int = 3, patch: int = 2) -> Preconditioned:
    """A U-Net in float64 that is no longer zero: every parameter is moved."""
    net = Preconditioned(UNet(1, (8, 16), 1, classes, patch), SIGMA_DATA).double().eval()
    rng = Rng([0], dtype=torch.float64)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * rng.normal(*p.shape)[0])
    return net


def images(b: int = 3) -> Tensor:
    return Rng(range(b), dtype=torch.float64).normal(1, 16, 16)


@pytest.mark.parametrize("patch", [1, 2])
def test_a_fresh_network_is_the_skip_connection(patch):
    net = Preconditioned(UNet(1, (8, 16), 1, 10, patch), SIGMA_DATA).double()
    sigma = torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64)
    skip = SIGMA_DATA**2 / (sigma**2 + SIGMA_DATA**2)
    assert torch.equal(net(images(), sigma), skip[:, None, None, None] * images())


def test_preconditioning_gives_unit_variances():
    """EDM, appendix B.6: c_in makes inputs, c_out and the weight make targets of unit variance."""
    net, recorder = Preconditioned(Recorder(), SIGMA_DATA), None
    for sigma in (0.01, 0.5, 80.0):
        x, s = images(), torch.tensor(sigma, dtype=torch.float64)
        d, recorder = net(x, s), net.net
        c_in = recorder.x / x
        skip = SIGMA_DATA**2 / (sigma**2 + SIGMA_DATA**2)
        c_out = d - skip * x
        assert torch.allclose(c_in**2 * (sigma**2 + SIGMA_DATA**2), torch.ones_like(x), rtol=1e-12)
        # the target (x_0 - c_skip x) / c_out has variance 1 when Var x_0 = sigma_data^2
        variance = ((1 - skip) * SIGMA_DATA) ** 2 + (skip * sigma) ** 2
        assert torch.allclose(c_out**2, torch.full_like(x, variance), rtol=1e-10)
        weight = (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2
        assert math.isclose(weight * variance, 1.0, rel_tol=1e-12)
        assert torch.allclose(recorder.noise, torch.full((3,), 250 * math.log(sigma), dtype=torch.float64))


def test_loss_of_a_zero_network_is_one_on_data_of_the_assumed_variance():
    class Zero(Recorder):
        def forward(self, x, noise, label):
            return torch.zeros_like(x)

    rng = Rng([0], rows=4000, dtype=torch.float64)
    x0 = SIGMA_DATA * rng.normal(1, 4, 4)
    loss = DenoisingLoss(Preconditioned(Zero(), SIGMA_DATA)).loss({"image": x0}, rng)
    assert abs(float(loss.mean()) - 1) < 5 * float(loss.std()) / math.sqrt(4000)


def test_labels_become_null_at_the_stated_rate():
    rng = Rng([0], rows=4000)
    net = Preconditioned(Recorder(), SIGMA_DATA)
    label = torch.arange(4000) % 10
    DenoisingLoss(net, null_probability=0.2).loss({"image": rng.normal(1, 1, 1), "label": label}, rng)
    null = net.net.label == 10
    assert torch.equal(net.net.label[~null], label[~null])
    assert abs(float(null.float().mean()) - 0.2) < 5 * math.sqrt(0.2 * 0.8 / 4000)


def test_no_label_means_the_null_class():
    net, sigma = small(classes=3), torch.tensor(0.5, dtype=torch.float64)
    null = net(images(), sigma, torch.full((3,), 3))
    assert torch.equal(net(images(), sigma), null)
    assert float((net(images(), sigma, torch.zeros(3, dtype=torch.long)) - null).detach().abs().max()) > 1e-3


def test_rows_do_not_mix():
    net, sigma = small(), torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    together = net(images(), sigma)
    for i in range(3):
        alone = net(images()[i : i + 1], sigma[i : i + 1])
        assert float((alone - together[i : i + 1]).detach().abs().max()) < 1e-10


def test_fourier_features_are_ddpm_s():
    features = FourierFeatures(8)(torch.tensor([50.0], dtype=torch.float64))[0]
    angles = [50.0, 5.0, 0.5, 0.05]  # 50 * 10000^(-i / 4)
    want = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
    # the frequencies are stored in float32: an angle of 50 carries 50 * 6e-8
    assert torch.allclose(features, torch.tensor(want, dtype=torch.float64), atol=5e-6)
