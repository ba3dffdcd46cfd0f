r"""A classifier of noisy images, log p(c | x_0 + sigma eps = x), for classifier guidance.

Dhariwal & Nichol (2021), *Diffusion Models Beat GANs on Image Synthesis*, arXiv:2105.05233, section 4:
the classifier must be trained on images as noisy as the ones it is asked about.

Deviations:
    - The paper takes the encoder half of its U-Net with attention pooling and half a million updates on ImageNet.
      Ours is three strided convolutions and is trained on digits in minutes.
    - The paper draws the steps of its chain uniformly. Ours draws log sigma from a normal distribution and is told
      sigma, so that one classifier serves every schedule.
    - The logits carry a factor that falls as 1 / sigma, see :class:`NoisyClassifier`. The paper has none.
"""

from dataclasses import dataclass
from typing import Any, final

from torch import Tensor, nn

from scoreatlas.nn.layers import FourierFeatures
from scoreatlas.rng import Rng


class _Stage(nn.Module):
    """Strided convolution, norm with scale and shift from the noise level, SiLU."""

    def __init__(self, channels: int, out: int, embedding: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, 5, stride=2, padding=2)
        self.norm = nn.GroupNorm(4, out)
        self.affine = nn.Linear(embedding, 2 * out)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        scale, shift = self.affine(e)[:, :, None, None].chunk(2, dim=1)
        return nn.functional.silu(self.norm(self.conv(x)) * (1 + scale) + shift)


@final
class NoisyClassifier(nn.Module):
    r"""Logits :math:`b_c + c_{out}(\sigma) \, F_c(c_{in} x, \log \sigma)` for one-channel images.

    With EDM's :math:`c_{in} = (\sigma^2 + \sigma_d^2)^{-1/2}` and :math:`c_{out} = \sigma_d \, c_{in}`. The exact
    classifier obeys :math:`\sigma^2 \nabla_x \log p(c \mid x) = E[x_0 \mid x, c] - E[x_0 \mid x]`, which is bounded by
    the diameter of the data at every noise level. Without :math:`c_{out}` the left side of a network grows as sigma
    times whatever slope training has left; with it, it is bounded too, and far above the data the logits tend to
    the class frequencies :math:`b`.

    Args:
        classes: number of classes.
        width: channels after the first convolution; they double twice.
        side: side of the images, a multiple of 8.
        sigma_data: standard deviation of the data, in [-1, 1] units.
    """

    def __init__(self, classes: int = 10, width: int = 24, side: int = 32, sigma_data: float = 0.55) -> None:
        super().__init__()
        self.config = {"classes": classes, "width": width, "side": side, "sigma_data": sigma_data}
        self.classes, self.sigma_data = classes, sigma_data
        embedding = 2 * width
        self.noise = nn.Sequential(FourierFeatures(width), nn.Linear(width, embedding), nn.SiLU())
        self.stages = nn.ModuleList(
            [_Stage(a, b, embedding) for a, b in ((1, width), (width, 2 * width), (2 * width, 4 * width))]
        )
        self.head = nn.Sequential(nn.Linear(4 * width * (side // 8) ** 2, 48), nn.SiLU(), nn.Linear(48, classes))
        self.frequencies = nn.Parameter(self.head[-1].bias.detach().new_zeros(classes))  # type: ignore[operator]  # b

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Logits (b, classes) of noisy images (b, 1, side, side) and sigma of shape () or (b,), positive."""
        sigma = sigma.to(x.device, x.dtype).expand(x.shape[0])
        c_in = (sigma**2 + self.sigma_data**2).rsqrt()
        e = self.noise(250 * sigma.log())  # as the denoisers are told, see precondition.py
        h = c_in[:, None, None, None] * x
        for stage in self.stages:
            h = stage(h, e)
        return self.frequencies + self.sigma_data * c_in[:, None] * self.head(h.flatten(1))


@final
@dataclass(frozen=True, eq=False)
class NoisyCrossEntropy:
    """Classification loss at random noise levels, a :class:`~scoreatlas.training.Trainable`.

    No shifts and no other augmentation: the classifier should know p(c | x) of the data that the denoiser knows.

    Args:
        net: the classifier.
        log_sigma_mean, log_sigma_std: of the normal distribution of log sigma.
    """

    net: NoisyClassifier
    log_sigma_mean: float = -0.2
    log_sigma_std: float = 1.8

    def loss(self, batch: dict[str, Any], rng: Rng, /) -> Tensor:
        """Cross-entropy of each row (b,) for ``{"image": (b, 1, h, w) in [-1, 1], "label": (b,)}``."""
        sigma = (self.log_sigma_mean + self.log_sigma_std * rng.normal()).exp()
        x = batch["image"] + sigma[:, None, None, None] * rng.normal_like(batch["image"])
        return nn.functional.cross_entropy(self.net(x, sigma), batch["label"], reduction="none")
