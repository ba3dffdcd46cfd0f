"""Recipes of the blind denoisers of photographs: ``scoreatlas priors train bf-cnn``.

``bf-cnn`` is the bias-free prior of chapter 4.1. ``bf-cnn-narrow`` and ``cnn-narrow`` are a small pair, without and
with constants and otherwise alike, which have seen only little noise: how each fares beyond is what constants cost.
"""

import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from scoreatlas import data
from scoreatlas.nn.bf_cnn import BiasFreeCNN, BlindLoss
from scoreatlas.priors import zoo
from scoreatlas.priors.blind_denoiser import corrected_level, homogeneity_error, noise_level
from scoreatlas.priors.pretrained import WEIGHTS
from scoreatlas.rng import Rng
from scoreatlas.training import fit, progress
from scoreatlas.tweedie import asymmetry

BATCH = 32
LEVELS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # sigma of the evidence, image units


@final
@dataclass(frozen=True)
class Recipe:
    """How one blind denoiser is made.

    Attributes:
        width, layers, bias: of the network.
        largest: noise of the training images is uniform up to this, image units.
        seconds: time limit, on which the learning-rate decay is laid out.
        updates: limit on the number of updates.
    """

    width: int
    layers: int
    largest: float
    seconds: float
    updates: int
    bias: bool = False


RECIPES = {
    "bf-cnn": Recipe(64, 14, 0.8, 1800, 30_000),
    "bf-cnn-narrow": Recipe(32, 8, 0.1, 600, 5_000),
    "cnn-narrow": Recipe(32, 8, 0.1, 600, 5_000, bias=True),
}


def train(
    name: str, checkpoints: Path, device: str = "cpu", seconds: float | None = None, weights: Path = WEIGHTS
) -> None:
    """Train one blind denoiser, or resume it from ``checkpoints``, and write weights and card with its evidence."""
    recipe = RECIPES[name]
    torch.manual_seed(0)  # initial weights
    net = BiasFreeCNN(3, recipe.width, recipe.layers, bias=recipe.bias).to(device)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster convolutions
    checkpoints.mkdir(parents=True, exist_ok=True)
    checkpoint = checkpoints / f"{name}.safetensors"
    with (checkpoints / f"{name}.log").open("a") as file:
        average = fit(
            BlindLoss(net, recipe.largest), {"image": data.patches("train").to(device)}, steps=recipe.updates,
            batch=BATCH, max_seconds=seconds or recipe.seconds, autocast=True, checkpoint=checkpoint, every=250,
            log=lambda row: print(json.dumps(row), file=file, flush=True),
        )  # fmt: skip
    assert isinstance(average, BiasFreeCNN)
    updates, spent = progress(checkpoint)
    zoo.save(name, average, {
        "data": "patches", "split": "train", "batch": BATCH, "largest_sigma": recipe.largest, "updates": updates,
        "seconds": round(spent), "device": f"{device} ({platform.machine()})", "precision": "bfloat16 autocast",
        "torch": torch.__version__, "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "evidence": evidence(average.half().float(), device),
    }, weights)  # fmt: skip


@torch.no_grad()
def evidence(net: BiasFreeCNN, device: str, images: int = 100) -> dict[str, Any]:
    """On test photographs: PSNR, noise level read off the residual, homogeneity and symmetry of the Jacobian, by sigma.

    PSNR in dB for a range of 2, the mean over images and its standard error. Levels are the ratio of the estimate to
    sigma, mean over images. The errors of homogeneity are at twice the image.
    """
    x = data.patches("test")[:images].to(device)
    psnr = lambda z: -10 * ((z - x).square().mean((1, 2, 3)) / 4).log10()  # noqa: E731
    found = []
    for i, sigma in enumerate(LEVELS):
        noisy = x + sigma * Rng([200 + i], rows=len(x), device=device).normal_like(x)
        some = noisy[:16]
        probe = Rng([300 + i], rows=16, device=device).normal_like(some)
        ratios = psnr(net(noisy))
        found.append({
            "sigma": sigma, "psnr_noisy": float(psnr(noisy).mean()), "psnr": float(ratios.mean()),
            "psnr_error": float(ratios.std() / len(x) ** 0.5),
            "level": float(noise_level(noisy - net(noisy)).mean()) / sigma,
            "level_corrected": float(corrected_level(net, some, probe).mean()) / sigma,
            "homogeneity_error": float(homogeneity_error(net, noisy, 2.0).mean()),
            "jacobian_asymmetry": float(asymmetry(net, some, sigma, probe[None]).mean()),
        })  # fmt: skip
    return {"images": len(x), "levels": found}
