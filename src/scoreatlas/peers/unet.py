r"""diffusers' ``UNet2DModel`` checkpoints as our priors (written against diffusers 0.42.1).

Conversions. A checkpoint knows a chain of betas and the index k of a step; our denoisers know a noise level sigma. Step
k has the level :math:`n_k = \sqrt{(1 - \bar\alpha_k) / \bar\alpha_k}`, a level between two of them an index between,
linearly in :math:`\log n`: the network's embedding of time takes it. Below :math:`n_0` the index is 0; above the last
level the image is scaled down to it. The network sees :math:`x_k = x / \sqrt{1 + \sigma^2}`. What it predicts becomes
the clean image,

.. math:: \hat x_0 = x - \sigma \hat\epsilon \qquad \text{or} \qquad
   \hat x_0 = (x - \sigma \sqrt{1 + \sigma^2} \, \hat v) / (1 + \sigma^2) \qquad \text{or itself.}

Nothing is clipped, whatever ``scheduler_config.json`` says. Images are in [-1, 1] on both sides.
"""

from pathlib import Path
from typing import Any, Literal, cast, final

import diffusers
import torch
from torch import Tensor, nn

from scoreatlas.errors import AtlasError
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.schedules import VP, Schedule

Prediction = Literal["epsilon", "v_prediction", "sample"]


@final
class UNetDenoiser(nn.Module):
    """E[x_0 | x_0 + sigma eps = x] from a network of a discrete chain.

    Args:
        net: called as ``net(x, k).sample`` with indices k of shape (b,), not always whole. Channels beyond those of the
            image, a learned variance, are dropped.
        alphas_cumprod: falling, (n,).
        prediction: what the network predicts, in the words of diffusers' schedulers.

    Raises:
        AtlasError: another prediction.
    """

    def __init__(self, net: nn.Module, alphas_cumprod: Tensor, prediction: Prediction) -> None:
        super().__init__()
        if prediction not in ("epsilon", "v_prediction", "sample"):
            raise AtlasError(f"prediction must be 'epsilon', 'v_prediction' or 'sample', got {prediction!r}")
        self.net, self.prediction = net, prediction
        a = alphas_cumprod.double()
        self.register_buffer("log_levels", ((1 - a) / a).log() / 2)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Posterior mean (b, c, h, w) for x (b, c, h, w) and sigma of shape () or (b,)."""
        levels = cast(Tensor, self.log_levels)
        wanted = sigma.to(levels).log().expand(x.shape[0])
        n = wanted.minimum(levels[-1])
        high = torch.searchsorted(levels, n.contiguous()).clamp(1, len(levels) - 1)
        between = ((n - levels[high - 1]) / (levels[high] - levels[high - 1])).clamp_min(0)
        index = (high - 1 + between).to(x.dtype)
        x = x * (n - wanted).exp().to(x)[:, None, None, None]
        n = n.exp().to(x)[:, None, None, None]
        scale = (1 + n.square()).sqrt()
        out = self.net(x / scale, index).sample[:, : x.shape[1]]
        if self.prediction == "epsilon":
            return x - n * out
        return out if self.prediction == "sample" else (x / scale - n * out) / scale


def load_unet(
    source: str | Path,
    *,
    pipeline: bool = False,
    schedule: Schedule | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> DiffusionPrior:
    """A prior from a checkpoint: ``config.json``, weights in safetensors, and ``scheduler_config.json``.

    Args:
        source: a folder, or the name of a repository of the Hugging Face hub, which diffusers downloads.
        pipeline: the parts lie in ``unet`` and ``scheduler``, as a pipeline saves them, and not side by side.
        schedule: of the prior; VP by default. It need not be that of the training.
        device, dtype: of the network.

    Raises:
        AtlasError: diffusers cannot load it, or the network is told more than an image and a time.
    """
    unet, scheduler = ("unet", "scheduler") if pipeline else (None, None)
    try:
        net: Any = diffusers.UNet2DModel.from_pretrained(source, subfolder=unet, use_safetensors=True)
        chain: Any = diffusers.DDPMScheduler.from_pretrained(source, subfolder=scheduler)
    except (OSError, ValueError) as error:
        raise AtlasError(f"no UNet2DModel with its scheduler at {source}: {str(error).splitlines()[0]}") from error
    if net.config.num_class_embeds or net.config.class_embed_type:
        raise AtlasError(f"the network at {source} wants a class, which a denoiser does not have")
    size = net.config.sample_size
    h, w = (size, size) if isinstance(size, int) else size
    denoiser = UNetDenoiser(net.to(device, dtype), chain.alphas_cumprod, chain.config.prediction_type)
    denoiser = denoiser.to(device).eval().requires_grad_(False)
    return DiffusionPrior(denoiser, schedule or VP(), (net.config.in_channels, h, w))
