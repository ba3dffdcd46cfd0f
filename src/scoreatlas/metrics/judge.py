"""The digit judge: a classifier trained apart from the priors, to count classes and measure features."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import load, save_file

from scoreatlas import data
from scoreatlas.errors import AtlasError
from scoreatlas.nn.classifier import Classifier, CrossEntropy
from scoreatlas.priors.pretrained import WEIGHTS, write_card
from scoreatlas.training import fit

NAME = "judge"


def load_judge(device: str | torch.device = "cpu", weights: Path = WEIGHTS) -> Classifier:
    """The trained classifier, after comparing its sha256 with its card.

    Raises:
        AtlasError: the weights are missing or altered.
    """
    path = weights / f"{NAME}.safetensors"
    if not path.exists():
        raise AtlasError(f"{path} is missing: restore it from the repository or run `scoreatlas priors train {NAME}`")
    card, raw = json.loads(path.with_suffix(".json").read_text()), path.read_bytes()
    if hashlib.sha256(raw).hexdigest() != card["sha256"]:
        raise AtlasError(f"{path} does not match the sha256 of its card: restore it from the repository")
    net = Classifier(**card["network"])
    net.load_state_dict({k: v.float() for k, v in load(raw).items()})
    return net.to(device).eval().requires_grad_(False)


def train_judge(device: str = "cpu", weights: Path = WEIGHTS) -> float:
    """Train the classifier (a minute on one core), write weights and card, return the test accuracy."""
    torch.manual_seed(0)  # initial weights
    images, labels = data.digits("train")
    net = Classifier().to(device)
    source = {"image": images.to(device), "label": labels.to(device)}
    average = fit(CrossEntropy(net), source, steps=3000, batch=64, lr=2e-3, ema=0.99)
    images, labels = data.digits("test")
    with torch.no_grad():
        accuracy = float((average(images.to(device)).argmax(1).cpu() == labels).double().mean())
    path, partial = weights / f"{NAME}.safetensors", weights / f"{NAME}.partial"
    save_file({k: v.half().contiguous().cpu() for k, v in average.state_dict().items()}, partial)
    digest = hashlib.sha256(partial.read_bytes()).hexdigest()
    write_card(path.with_suffix(".json"), {
        "name": NAME, "network": net.config, "parameters": sum(p.numel() for p in net.parameters()),
        "data": "digits", "split": "train", "updates": 3000, "test_accuracy": accuracy, "sha256": digest,
    })  # fmt: skip
    partial.replace(path)
    return accuracy
