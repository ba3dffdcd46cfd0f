"""The recipes of the learned priors: ``scoreatlas priors train NAME``.

A recipe trains from the committed data, on a GPU if there is one and else on a few CPU threads,
writes checkpoints, and leaves weights and card in ``src/scoreatlas/weights``.
"""

import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from scoreatlas import data
from scoreatlas.errors import AtlasError
from scoreatlas.nn.precondition import DenoisingLoss, Preconditioned
from scoreatlas.nn.unet import UNet
from scoreatlas.priors.pretrained import WEIGHTS, save_pretrained
from scoreatlas.training import fit, progress


@final
@dataclass(frozen=True)
class Recipe:
    """How one prior is made.

    Attributes:
        data: name of a function of :mod:`scoreatlas.data` returning (images, labels).
        widths, blocks, patch, dropout, classes: of the U-Net; 0 classes ignore the labels.
        sigma_data: standard deviation of the training images, rounded.
        batch: images per update.
        steps: updates on a GPU.
        seconds: time limit on a CPU, on which the learning-rate decay is laid out too.
    """

    data: str
    widths: tuple[int, ...]
    batch: int
    steps: int
    seconds: float
    sigma_data: float
    classes: int = 0
    dropout: float = 0.0
    blocks: int = 1
    patch: int = 2


RECIPES = {
    "digits": Recipe("digits", (64, 128), 64, 60_000, 2700, 0.55, classes=10),
    "chest": Recipe("chest", (48, 96, 128), 32, 60_000, 3600, 0.47, dropout=0.1),
    "patches": Recipe("patches", (48, 96, 128), 32, 60_000, 3000, 0.52, dropout=0.1),
    "mri": Recipe("mri", (32, 48, 64, 96), 8, 60_000, 2400, 0.47, dropout=0.05),
    "ct": Recipe("ct", (32, 48, 64, 96), 8, 60_000, 2400, 0.48, dropout=0.05),
}


def images(recipe: Recipe) -> tuple[dict[str, Tensor], tuple[int, int, int]]:
    """Training batch source and image shape of a recipe."""
    if recipe.data == "patches":  # 64 x 64 windows of the photographs, every 8 pixels, and their mirror images
        windows = [data.patches("train")[..., i : i + 64, j : j + 64] for i in (0, 8, 16) for j in (0, 8, 16)]
        x = torch.cat(windows)
        x = torch.cat([x, x.flip(-1)])
    elif recipe.data == "mri":  # heads are symmetric, trunks are not
        x = data.mri("train")[0]
        x = torch.cat([x, x.flip(-1)])
    elif recipe.data == "ct":
        x = data.ct("train")[0]
    else:
        x, y = {"digits": data.digits, "chest": data.chest}[recipe.data]("train")
    source = {"image": x, "label": y} if recipe.classes else {"image": x}
    return source, (x.shape[1], x.shape[2], x.shape[3])


def train(
    name: str, checkpoints: Path, device: str = "cpu", seconds: float | None = None, weights: Path = WEIGHTS
) -> None:
    """Train one prior, or resume it from ``checkpoints``, and write weights and card.

    Args:
        name: a key of ``RECIPES``.
        checkpoints: folder for ``NAME.safetensors`` and ``NAME.log`` (JSON lines).
        device: "cpu" or "cuda".
        seconds: time limit instead of the recipe's.
        weights: where weights and card go.

    Raises:
        AtlasError: no such recipe.
    """
    if name not in RECIPES:
        raise AtlasError(f"no recipe named {name!r}; there are: {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    source, shape = images(recipe)
    limit = seconds or (recipe.seconds if device == "cpu" else float("inf"))
    torch.manual_seed(0)  # initial weights
    net = UNet(shape[0], recipe.widths, recipe.blocks, recipe.classes, recipe.patch, recipe.dropout)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster convolutions
    denoiser = Preconditioned(net.to(device), recipe.sigma_data)
    source = {k: v.to(device) for k, v in source.items()}
    checkpoints.mkdir(parents=True, exist_ok=True)
    checkpoint = checkpoints / f"{name}.safetensors"
    with (checkpoints / f"{name}.log").open("a") as file:
        average = fit(
            DenoisingLoss(denoiser), source, steps=recipe.steps if device != "cpu" else 10**6, batch=recipe.batch,
            max_seconds=limit, autocast=True, checkpoint=checkpoint, every=250,
            log=lambda row: print(json.dumps(row), file=file, flush=True),
        )  # fmt: skip
    assert isinstance(average, Preconditioned)
    save_pretrained(name, average, shape, provenance(recipe, checkpoint, device), weights)


def provenance(recipe: Recipe, checkpoint: Path, device: str) -> dict[str, Any]:
    """What a card says about the training run."""
    updates, seconds = progress(checkpoint)
    return {
        "data": recipe.data, "split": "train", "batch": recipe.batch, "updates": updates,
        "seconds": round(seconds), "device": f"{device} ({platform.machine()})", "precision": "bfloat16 autocast",
        "torch": torch.__version__, "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }  # fmt: skip
