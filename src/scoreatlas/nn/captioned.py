r"""Rectified flow with a caption: its loss, and the denoiser that its velocity is.

Esser et al. (2024), *Scaling Rectified Flow Transformers*, arXiv:2403.03206, sections 2 and 3.1; official code for
inference: ``Stability-AI/sd3-ref``, ``sd3_impls.py``.

.. math:: z_t = (1 - t) x_0 + t \epsilon, \qquad v = \epsilon - x_0, \qquad x_0 = z_t - t v, \qquad t \in [0, 1]
"""

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from scoreatlas.nn.mmdit import MMDiT
from scoreatlas.rng import Rng


@final
@dataclass(frozen=True, eq=False)
class CaptionedFlow:
    """Squared error of the velocity at logit-normal times, a :class:`~scoreatlas.training.Trainable`.

    Args:
        net: called as ``net(z, t, caption)``.
        logit_mean, logit_std: t = sigmoid(mean + std n), n standard normal; 0 and 1 are the paper's best.
        null_probability: share of captions replaced by null words.
    """

    net: MMDiT
    logit_mean: float = 0.0
    logit_std: float = 1.0
    null_probability: float = 0.1

    def loss(self, batch: dict[str, Any], rng: Rng, /) -> Tensor:
        """Loss of each row (b,) for ``{"image": (b, c, h, w) in [-1, 1], "caption": (b, n)}``."""
        x0, caption = batch["image"], batch["caption"]
        null = rng.uniform(1) < self.null_probability
        caption = torch.where(null, self.net.words, caption)
        t = (self.logit_mean + self.logit_std * rng.normal()).sigmoid()
        noise, s = rng.normal_like(x0), t[:, None, None, None]
        v = self.net((1 - s) * x0 + s * noise, t, caption)
        return (v - (noise - x0)).square().flatten(1).mean(1)


@final
class FlowDenoiser(nn.Module):
    r"""The posterior mean that a velocity network knows, for one caption per row.

    With :math:`t = \sigma / (1 + \sigma)` the image :math:`x = x_0 + \sigma \epsilon` is :math:`z_t / (1 - t)`, so
    :math:`D(x; \sigma) = z_t - t \, v(z_t, t)` at :math:`z_t = (1 - t) x`.

    Args:
        net: called as ``net(z, t, caption)``.
        caption: words (b, n), one row per image.
    """

    def __init__(self, net: MMDiT, caption: Tensor) -> None:
        super().__init__()
        self.net, self.caption = net, caption

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        t = (sigma / (1 + sigma)).to(x.device, x.dtype).expand(x.shape[0])
        s = t[:, None, None, None]
        z = (1 - s) * x
        return z - s * self.net(z, t, self.caption)
