"""Learned perceptual image patch similarity, LPIPS (Zhang et al., CVPR 2018, arXiv:1801.03924), with AlexNet.

The weights are the genuine ones of version 0.1: AlexNet's convolutions, trained on ImageNet, and the authors' linear
heads; ``scoreatlas.metrics.lpips_weights`` says how they came here. Official code: ``richzhang/PerceptualSimilarity``,
``lpips/lpips.py`` and ``pretrained_networks.py``.
"""

import hashlib
import json
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor
from torch.nn import functional as F

from scoreatlas.errors import AtlasError

WEIGHTS = Path(__file__).parents[1] / "weights"
NAME = "lpips-alex"
SMALLEST = 64  # pixels a side; below, the last three of five layers see one position each
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # ImageNet's means and deviations in [-1, 1]
STRIDES, PADDINGS = (4, 1, 1, 1, 1), (2, 2, 1, 1, 1)


@cache
def _weights() -> dict[str, Tensor]:
    path = WEIGHTS / f"{NAME}.safetensors"
    if not path.exists():
        raise AtlasError(f"{path} is missing: restore it from the repository")
    raw, card = path.read_bytes(), json.loads(path.with_suffix(".json").read_text())
    if hashlib.sha256(raw).hexdigest() != card["sha256"]:
        raise AtlasError(f"{path} does not match the sha256 of its card: restore it from the repository")
    return {k: v.float() for k, v in load(raw).items()}


def _features(x: Tensor) -> list[Tensor]:
    """The five activations of AlexNet's convolutions, each of unit length along the channels."""
    w = _weights()
    h = (x - x.new_tensor(SHIFT)[:, None, None]) / x.new_tensor(SCALE)[:, None, None]
    found = []
    for i, (stride, padding) in enumerate(zip(STRIDES, PADDINGS, strict=True)):
        if i in (1, 2):
            h = F.max_pool2d(h, 3, 2)
        h = F.relu(F.conv2d(h, w[f"conv{i}.weight"], w[f"conv{i}.bias"], stride, padding))
        found.append(h / (h.square().sum(1, keepdim=True).sqrt() + 1e-10))
    return found


@torch.no_grad()
def lpips(x: Tensor, truth: Tensor) -> Tensor:
    """Perceptual distance, (b,) for images (b, c, h, w) in [-1, 1] with c = 1 or 3; 0 for equal images.

    Grey images are repeated in three channels, values clipped to [-1, 1], computed in single precision on the CPU.

    Raises:
        AtlasError: images smaller than 64 x 64, or the weights are missing or altered.
    """
    if min(x.shape[-2:]) < SMALLEST:
        raise AtlasError(f"LPIPS needs images of at least {SMALLEST} x {SMALLEST} pixels, got {tuple(x.shape)}")
    pair = [z.detach().cpu().float().clamp(-1, 1).expand(-1, 3, -1, -1) for z in (x, truth)]
    total = torch.zeros(len(x))
    for i, (a, b) in enumerate(zip(_features(pair[0]), _features(pair[1]), strict=True)):
        total += F.conv2d((a - b).square(), _weights()[f"head{i}"]).mean((1, 2, 3))
    return total.double()
