"""How far an image is from the truth, and from its data. One number per row."""

import math

import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from scoreatlas.linalg import norm
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Operator, real_rows


def psnr(x: Tensor, truth: Tensor, data_range: float = 2.0) -> Tensor:
    """Peak signal-to-noise ratio in dB, 20 log10(data_range / RMSE), (b,) for images (b, *s).

    Equal images give infinity. Images in [-1, 1] have data range 2. Nothing is clipped.
    """
    mse = (x - truth).square().flatten(1).mean(1)
    return 20 * math.log10(data_range) - 10 * mse.log10()


def ssim(x: Tensor, truth: Tensor, data_range: float = 2.0) -> Tensor:
    """Structural similarity (Wang et al., 2004), (b,) for images (b, c, h, w) of at least 11 x 11 pixels.

    scikit-image's implementation with the settings of the paper: Gaussian window of standard
    deviation 1.5, population covariances; the mean over channels.
    """
    pairs = zip(x.detach().cpu().double().numpy(), truth.detach().cpu().double().numpy(), strict=True)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    values = [structural_similarity(a, b, data_range=data_range, channel_axis=0, **options) for a, b in pairs]
    return torch.tensor(values, dtype=torch.float64)


def residual(m: Measurement[Operator, Gaussian], x: Tensor) -> Tensor:
    r"""Data residual in units of the noise, :math:`\|y - A x\| / (\sigma_y \sqrt{m})`, (b,) for images (b, *s).

    m counts real numbers: a complex datum is two. The truth gives 1 up to
    :math:`1 / \sqrt{2 m}`; below 1 noise has been fitted, above 1 data have been ignored.

    Raises:
        ValueError: noise-free data, which have no such unit.
    """
    if m.noise.std == 0:
        raise ValueError("the residual in units of sigma_y needs noisy data: sigma_y is 0")
    r = real_rows(m.y - m.A(x))
    return norm(r).reshape(-1) / (m.noise.std * math.sqrt(r.shape[1]))
