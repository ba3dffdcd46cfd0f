"""From a network to a denoiser: EDM preconditioning (Karras et al., 2022, arXiv:2206.00364)."""

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from scoreatlas.nn.unet import UNet
from scoreatlas.rng import Rng


@final
class Preconditioned(nn.Module):
    r"""A denoiser :math:`D(x; \sigma) = c_{skip} x + c_{out} F(c_{in} x, c_{noise})`.

    The coefficients (Table 1 of the paper) give the network inputs and targets of unit variance
    at every noise level. Official code: ``NVlabs/edm/training/networks.py``, ``EDMPrecond``.

    Args:
        net: called as ``net(x, noise, label)`` with ``noise`` of shape (b,).
        sigma_data: standard deviation of the data, in [-1, 1] units.
    """

    def __init__(self, net: UNet, sigma_data: float) -> None:
        super().__init__()
        self.net: UNet = net
        self.sigma_data = sigma_data

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """E[x_0 | x_0 + sigma eps = x] for x of shape (b, c, h, w) and sigma of shape () or (b,)."""
        sigma = sigma.to(x.device, x.dtype).expand(x.shape[0])
        s = sigma[:, None, None, None]
        d = self.sigma_data
        c_skip = d**2 / (s**2 + d**2)
        c_out = s * d / (s**2 + d**2).sqrt()
        c_in = 1 / (s**2 + d**2).sqrt()
        c_noise = 250 * sigma.log()  # EDM: log(sigma) / 4, scaled for frequencies 1 ... 1e-4
        return c_skip * x + c_out * self.net(c_in * x, c_noise, label)


@final
@dataclass(frozen=True, eq=False)
class DenoisingLoss:
    r"""EDM's weighted denoising loss, a :class:`~scoreatlas.training.Trainable`.

    .. math:: \lambda(\sigma) \| D(x_0 + \sigma \epsilon; \sigma) - x_0 \|^2,
       \quad \lambda = (\sigma^2 + \sigma_d^2) / (\sigma \sigma_d)^2,
       \quad \log \sigma \sim N(\text{mean}, \text{std}^2)

    Args:
        net: the denoiser to train.
        log_sigma_mean, log_sigma_std: EDM uses -1.2 and 1.2; inverse problems start from larger
            noise and need small noise too, so ours is wider.
        null_probability: share of labels replaced by the null class (classifier-free guidance,
            Ho & Salimans, 2022: 0.1 to 0.2).
    """

    net: Preconditioned
    log_sigma_mean: float = -0.8
    log_sigma_std: float = 1.5
    null_probability: float = 0.2

    def loss(self, batch: dict[str, Any], rng: Rng, /) -> Tensor:
        """Loss of each row (b,) for ``{"image": (b, c, h, w) in [-1, 1], "label": (b,) optional}``."""
        x0, label = batch["image"], batch.get("label")
        if label is not None:
            null = rng.uniform() < self.null_probability
            label = torch.where(null, self.net.net.classes, label)
        sigma = (self.log_sigma_mean + self.log_sigma_std * rng.normal()).exp()
        x = x0 + sigma[:, None, None, None] * rng.normal_like(x0)
        d = self.net.sigma_data
        weight = (sigma**2 + d**2) / (sigma * d) ** 2
        return weight * (self.net(x, sigma, label) - x0).square().flatten(1).mean(1)
