"""The recipes of the digit classifiers that guide: ``scoreatlas priors train digits-classifier``.

One is trained at all noise levels. Its twin has the same network and the same updates per second, and has seen
images with next to no noise: what goes wrong with it is what the noise levels are for. Neither is the judge of
:mod:`scoreatlas.metrics.judge`, which shares no weights, no noise and no seed with them.
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
from scoreatlas.nn.noisy_classifier import NoisyClassifier, NoisyCrossEntropy
from scoreatlas.priors import zoo
from scoreatlas.priors.pretrained import WEIGHTS
from scoreatlas.rng import Rng
from scoreatlas.training import fit, progress

LEVELS = (0.01, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 50.0)  # sigma of the evidence


@final
@dataclass(frozen=True)
class Recipe:
    """How one classifier is made.

    Attributes:
        log_sigma_mean, log_sigma_std: of the noise levels in training.
        seconds: time limit, on which the learning-rate decay is laid out.
        updates: limit on the number of updates.
    """

    log_sigma_mean: float
    log_sigma_std: float
    seconds: float
    updates: int


RECIPES = {
    "digits-classifier": Recipe(-0.2, 1.8, 220, 20_000),
    "digits-classifier-clean": Recipe(-4.6, 0.0, 50, 3_000),
}


def train(
    name: str, checkpoints: Path, device: str = "cpu", seconds: float | None = None, weights: Path = WEIGHTS
) -> None:
    """Train one classifier, or resume it from ``checkpoints``, and write weights and card with its evidence."""
    recipe = RECIPES[name]
    torch.manual_seed(1)  # initial weights
    net = NoisyClassifier().to(device)
    images, labels = data.digits("train")
    checkpoints.mkdir(parents=True, exist_ok=True)
    checkpoint = checkpoints / f"{name}.safetensors"
    with (checkpoints / f"{name}.log").open("a") as file:
        average = fit(
            NoisyCrossEntropy(net, recipe.log_sigma_mean, recipe.log_sigma_std),
            {"image": images.to(device), "label": labels.to(device)}, steps=recipe.updates, batch=64, lr=2e-3, seed=1,
            max_seconds=seconds or recipe.seconds, autocast=True, checkpoint=checkpoint, every=250,
            log=lambda row: print(json.dumps(row), file=file, flush=True),
        )  # fmt: skip
    assert isinstance(average, NoisyClassifier)
    updates, spent = progress(checkpoint)
    zoo.save(name, average, {
        "data": "digits", "split": "train", "batch": 64, "updates": updates, "seconds": round(spent),
        "log_sigma": [recipe.log_sigma_mean, recipe.log_sigma_std], "device": f"{device} ({platform.machine()})",
        "precision": "bfloat16 autocast", "torch": torch.__version__, "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "evidence": evidence(average),
    }, weights)  # fmt: skip


def evidence(net: NoisyClassifier, levels: tuple[float, ...] = LEVELS) -> list[dict[str, Any]]:
    """Accuracy and cross-entropy (nats) on the held-out digits against sigma, with standard errors."""
    device = next(net.parameters()).device
    images, labels = (v.to(device) for v in data.digits("test"))
    rows = []
    for i, sigma in enumerate(levels):
        noisy = images + sigma * Rng([100 + i], rows=len(images), device=device).normal_like(images)
        logits = _logits(net, noisy, sigma)
        right = (logits.argmax(1) == labels).double()
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="none").double()
        error = len(images) ** -0.5
        rows.append({
            "sigma": sigma, "accuracy": float(right.mean()), "accuracy_error": float(right.std() * error),
            "cross_entropy": float(loss.mean()), "cross_entropy_error": float(loss.std() * error),
        })  # fmt: skip
    return rows


@torch.no_grad()
def _logits(net: NoisyClassifier, noisy: Tensor, sigma: float) -> Tensor:
    level = noisy.new_full((), sigma)
    return torch.cat([net(part, level) for part in noisy.split(500)])
