"""Recipes of the flows of chapter 2.5: a rectified flow on digits, and its reflow.

``digits-flow`` couples images with independent noise. ``digits-reflow`` starts from its weights and trains on pairs
that it made: noise, and the image at the end of its ODE.
"""

import json
import platform
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scoreatlas import data
from scoreatlas.nn.flow import FlowMatching, VelocityNet, bend, follow
from scoreatlas.priors.zoo import load, save
from scoreatlas.rng import Rng
from scoreatlas.training import fit, progress

UPDATES = {"digits-flow": 2400, "digits-reflow": 1000}  # nine and four minutes of one CPU core
BATCH, PAIRS, STEPS = 64, 2048, 16


def train(name: str, checkpoints: Path, device: str = "cpu", seconds: float | None = None) -> None:
    """Train one flow, or resume it from ``checkpoints``, measure it, and save it."""
    checkpoints.mkdir(parents=True, exist_ok=True)
    if name == "digits-flow":
        torch.manual_seed(0)  # initial weights
        net, source = VelocityNet(1, (32, 56)), {"image": data.digits("train")[0].to(device)}
    else:
        first = load("digits-flow", device=device).net
        assert isinstance(first, VelocityNet)
        source = pairs(first, device)
        net = first.requires_grad_(True)
    net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster convolutions
    checkpoint = checkpoints / f"{name}.safetensors"
    with (checkpoints / f"{name}.log").open("a") as file:
        average = fit(
            FlowMatching(net), source, steps=UPDATES[name], batch=BATCH, lr=2e-3, every=100,
            max_seconds=seconds or float("inf"), checkpoint=checkpoint,
            log=lambda row: print(json.dumps(row), file=file, flush=True),
        )  # fmt: skip
    assert isinstance(average, VelocityNet)
    updates, spent = progress(checkpoint)
    save(name, average, {
        "data": "digits", "split": "train", "batch": BATCH, "updates": updates, "seconds": round(spent),
        "device": f"{device} ({platform.machine()})", "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()), "evidence": evidence(average, device),
    })  # fmt: skip


@torch.no_grad()
def pairs(net: VelocityNet, device: str, n: int = PAIRS, steps: int = STEPS) -> dict[str, Tensor]:
    """``n`` pairs of noise and image, joined by the flow in ``steps`` Euler steps."""
    found: dict[str, list[Tensor]] = {"image": [], "noise": []}
    for i in range(0, n, 64):
        noise = Rng([10_000 + i], rows=min(64, n - i), device=device).normal(1, 32, 32)
        found["noise"].append(noise)
        found["image"].append(follow(net.velocity, noise, steps)[-1])
    return {k: torch.cat(v) for k, v in found.items()}


@torch.no_grad()
def evidence(net: VelocityNet, device: str, n: int = 128) -> dict[str, Any]:
    """Loss on held-out digits with independent noise, bend of the paths, and what few steps cost against many."""
    images = data.digits("test")[0][:n].to(device)
    held_out = FlowMatching(net).loss({"image": images}, Rng([1], rows=n, device=device)).mean()
    noise = Rng([2], rows=n, device=device).normal(1, 32, 32)
    path = follow(net.velocity, noise, 64)
    short = {k: (follow(net.velocity, noise, k)[-1] - path[-1]).square().mean().sqrt() for k in (1, 2, 4, 8)}
    return {
        "held_out_loss": float(held_out), "bend": float(bend(path).mean()),
        "rms_to_64_steps": {str(k): float(v) for k, v in short.items()}, "images": n,
    }  # fmt: skip
