"""The small networks of the chapters: how each is trained, stored and loaded.

Beside the priors of :mod:`scoreatlas.priors.pretrained`, chapters train networks to compare architectures, guidance and
flows. Each is a recipe, named here once; ``scoreatlas priors train NAME`` makes it. Weights are safetensors in half
precision, the card beside them is JSON with their sha256. Nothing is unpickled.
"""

import hashlib
import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load as load_bytes
from safetensors.torch import save_file
from torch import nn

from scoreatlas.errors import AtlasError
from scoreatlas.priors.pretrained import WEIGHTS, write_card

Train = Callable[[str, Path, str, float | None], None]

# Classes that weights may be loaded into, and where they are. Each takes what its attribute ``config`` says.
NETWORKS: dict[str, str] = {
    "NoisyClassifier": "scoreatlas.nn.noisy_classifier",
    "VelocityNet": "scoreatlas.nn.flow",
    "DiT": "scoreatlas.nn.dit",
    "Hourglass": "scoreatlas.nn.hourglass",
    "MMDiT": "scoreatlas.nn.mmdit",
    "UNet": "scoreatlas.nn.unet",
    "BiasFreeCNN": "scoreatlas.nn.bf_cnn",
}

# Recipes by name: the module whose ``train(name, checkpoints, device, seconds)`` makes the network and saves it.
RECIPES: dict[str, str] = {
    "outline": "scoreatlas.bench.outline",
    "digits-flow": "scoreatlas.priors.train_flows",
    "digits-reflow": "scoreatlas.priors.train_flows",
    "digits-classifier": "scoreatlas.priors.classifiers",
    "digits-classifier-clean": "scoreatlas.priors.classifiers",
    "dit-in-context": "scoreatlas.bench.architectures",
    "dit-cross-attention": "scoreatlas.bench.architectures",
    "dit-adaln": "scoreatlas.bench.architectures",
    "dit-adaln-zero": "scoreatlas.bench.architectures",
    "unet-skips": "scoreatlas.bench.architectures",
    "unet-no-skips": "scoreatlas.bench.architectures",
    "mmdit-separate": "scoreatlas.bench.architectures",
    "mmdit-shared": "scoreatlas.bench.architectures",
    "bf-cnn": "scoreatlas.priors.train_blind",
    "bf-cnn-narrow": "scoreatlas.priors.train_blind",
    "cnn-narrow": "scoreatlas.priors.train_blind",
}


class Trained(NamedTuple):
    """A trained network with its card.

    Attributes:
        net: in evaluation mode, without gradients.
        card: class, configuration, parameters, sha256, and what the recipe said of its training and evidence.
    """

    net: nn.Module
    card: dict[str, Any]


def save(name: str, net: nn.Module, about: dict[str, Any], weights: Path = WEIGHTS) -> None:
    """Write weights (half precision) and card, each whole or not at all.

    Args:
        name: file stem.
        net: of a class in ``NETWORKS``, with the arguments that make it in ``config``.
        about: JSON values for the card: data, split, updates, seconds, device, evidence.
    """
    weights.mkdir(parents=True, exist_ok=True)
    path, partial = weights / f"{name}.safetensors", weights / f"{name}.partial"
    save_file({k: v.detach().half().contiguous().cpu() for k, v in net.state_dict().items()}, partial)
    card = {
        "name": name, "class": type(net).__name__, "config": net.config,
        "parameters": sum(p.numel() for p in net.parameters()),
        "sha256": hashlib.sha256(partial.read_bytes()).hexdigest(),
    }  # fmt: skip
    write_card(path.with_suffix(".json"), card | about)
    partial.replace(path)


def load(name: str, *, device: str | torch.device = "cpu", weights: Path = WEIGHTS) -> Trained:
    """A network by the name of its recipe, after comparing its sha256 with the card.

    Raises:
        AtlasError: it is missing, altered, or of a class that is not in ``NETWORKS``.
    """
    path = weights / f"{name}.safetensors"
    if not path.exists() or not path.with_suffix(".json").exists():
        raise AtlasError(f"{path} is missing: restore it from the repository or run `scoreatlas priors train {name}`")
    card, raw = json.loads(path.with_suffix(".json").read_text()), path.read_bytes()
    if hashlib.sha256(raw).hexdigest() != card["sha256"]:
        raise AtlasError(f"{path} does not match the sha256 of its card: restore it from the repository")
    if card["class"] not in NETWORKS:
        raise AtlasError(f"{path} holds a {card['class']}, which is none of {', '.join(sorted(NETWORKS))}")
    net = getattr(import_module(NETWORKS[card["class"]]), card["class"])(**card["config"])
    net.load_state_dict({k: v.float() for k, v in load_bytes(raw).items()})
    return Trained(net.to(device).eval().requires_grad_(False), card)


def train(name: str, checkpoints: Path, device: str = "cpu", seconds: float | None = None) -> None:
    """Make the network ``name``, or resume it from ``checkpoints``, and save it.

    Raises:
        AtlasError: no such recipe.
    """
    if name not in RECIPES:
        raise AtlasError(f"no recipe named {name!r}; there are: {', '.join(RECIPES) or 'none'}")
    make: Train = import_module(RECIPES[name]).train
    make(name, checkpoints, device, seconds)
