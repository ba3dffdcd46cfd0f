"""Small perceptrons for points in the plane (or in any few dimensions): a denoiser and a velocity, of equal size."""

from typing import final

import torch
from torch import Tensor, nn

from scoreatlas.nn.layers import FourierFeatures


def perceptron(inputs: int, width: int, layers: int, outputs: int) -> nn.Sequential:
    """``layers`` hidden layers with SiLU."""
    sizes = [inputs] + [width] * layers
    body: list[nn.Module] = []
    for a, b in zip(sizes[:-1], sizes[1:], strict=True):
        body += [nn.Linear(a, b), nn.SiLU()]
    return nn.Sequential(*body, nn.Linear(width, outputs))


class _Conditioned(nn.Module):
    """A perceptron of a point (b, n) and of Fourier features of a scalar (b,)."""

    def __init__(self, n: int, width: int, layers: int) -> None:
        super().__init__()
        self.features = FourierFeatures(16, max_period=1000.0)
        self.body = perceptron(n + 16, width, layers, n)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.body(torch.cat([x, self.features(c)], 1))


@final
class PlaneDenoiser(nn.Module):
    """A denoiser of points (b, n) with EDM's preconditioning (Karras et al., 2022, arXiv:2206.00364, Table 1).

    Args:
        n: dimension.
        width, layers: of the perceptron.
        sigma_data: standard deviation of the data, per coordinate.
    """

    def __init__(self, n: int = 2, width: int = 128, layers: int = 3, sigma_data: float = 1.0) -> None:
        super().__init__()
        self.config = {"n": n, "width": width, "layers": layers, "sigma_data": sigma_data}
        self.net = _Conditioned(n, width, layers)
        self.sigma_data = sigma_data

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x_0 | x_0 + sigma eps = x], (b, n), for sigma of shape () or (b,)."""
        sigma = sigma.to(x.device, x.dtype).expand(x.shape[0])
        s, d = sigma[:, None], self.sigma_data
        scale = (s**2 + d**2).sqrt()
        return d**2 / scale**2 * x + s * d / scale * self.net(x / scale, 10 * sigma.log())


@final
class PlaneVelocity(nn.Module):
    """The velocity of straight lines from point to noise, and by the dictionary a denoiser.

    Args:
        n: dimension.
        width, layers: of the perceptron.
    """

    def __init__(self, n: int = 2, width: int = 128, layers: int = 3) -> None:
        super().__init__()
        self.config = {"n": n, "width": width, "layers": layers}
        self.net = _Conditioned(n, width, layers)

    def velocity(self, x: Tensor, tau: Tensor) -> Tensor:
        """u (b, n) at x (b, n) and tau in [0, 1], () or (b,)."""
        return self.net(x, 50 * tau.to(x.device, x.dtype).expand(x.shape[0]))

    def forward(self, z: Tensor, sigma: Tensor) -> Tensor:
        """E[x_0 | x_0 + sigma eps = z], (b, n), for sigma of shape () or (b,)."""
        sigma = sigma.to(z.device, z.dtype).expand(z.shape[0])
        tau = (sigma / (1 + sigma))[:, None]
        x = z * (1 - tau)  # z / (1 + sigma)
        return x - tau * self.velocity(x, tau[:, 0])
