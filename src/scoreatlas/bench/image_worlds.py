"""The worlds of images: test (or validation) images, and priors from the training images."""

import hashlib
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from scoreatlas import data
from scoreatlas.bench.cell import World
from scoreatlas.priors.gaussian_field import GaussianField
from scoreatlas.priors.pretrained import load_pretrained
from scoreatlas.priors.tv import TotalVariation


def digits(device: str) -> World:
    """Hand-written digits, 32 x 32: test images, priors from the training images."""
    return _images("digits", device)


def chest(device: str) -> World:
    """Chest radiographs, 64 x 64: test patients, priors from the training patients."""
    return _images("chest", device)


def patches(device: str) -> World:
    """Photographs, 64 x 64 in colour: test photographs, prior from windows of the training photographs."""
    return _images("patches", device)


def mri(device: str) -> World:
    """Axial T1-weighted slices of a head, 128 x 128: a test person, prior from four others."""
    return _images("mri", device)


def ct(device: str) -> World:
    """Axial CT slices of a trunk, 128 x 128, -1000 ... 1000 HU: a test person, prior from three others."""
    return _images("ct", device)


def digits_validation(device: str) -> World:
    """The world ``digits`` with its validation images as truth: hyper-parameters are chosen here."""
    return _images("digits", device, "validation")


def chest_validation(device: str) -> World:
    """The world ``chest`` with its validation patients as truth: hyper-parameters are chosen here."""
    return _images("chest", device, "validation")


def patches_validation(device: str) -> World:
    """The world ``patches`` with its validation photographs as truth: hyper-parameters are chosen here."""
    return _images("patches", device, "validation")


# Image worlds and how their images are read, (n, c, h, w) of a split.
IMAGES: dict[str, Callable[[Any], Tensor]] = {
    "digits": lambda split: data.digits(split)[0],
    "chest": lambda split: data.chest(split)[0],
    "patches": lambda split: data.patches(split)[..., :64, :64],
    "mri": lambda split: data.mri(split)[0],
    "ct": lambda split: data.ct(split)[0],
}


def _images(name: str, device: str, split: Literal["validation", "test"] = "test") -> World:
    learned = load_pretrained(name, device=device)
    train, test = IMAGES[name]("train"), IMAGES[name](split)
    # Gradients of a total variation prior are 2 / weight long on average. A quarter of the weight that matches the
    # training images does better on the validation images, whatever the task.
    slope = float(TotalVariation(1.0).value(train).mean()) / train[0].numel()
    tv = TotalVariation(round(0.5 / slope, 2))
    priors = (learned.prior(), tv, GaussianField.from_images(train).to(device), None)

    def draw(n: int, generator: np.random.Generator) -> Tensor:
        return test[torch.from_numpy(generator.permutation(len(test))[:n])]

    sheets = [data.manifest()[f"{name}_{part}.png"]["sha256"] for part in ("train", split)]
    digest = hashlib.sha256("".join(sheets).encode()).hexdigest()
    weights, modules = learned.card["sha256"], ("scoreatlas.metrics.lpips", "scoreatlas.metrics.ranges")
    name = name if split == "test" else f"{name}_{split}"
    return World(name, "images", learned.shape, torch.float32, priors, draw, None, digest, weights, modules=modules)
