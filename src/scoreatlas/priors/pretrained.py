"""The learned priors that come with the book, and the way they are stored.

Weights are safetensors in half precision; the network's configuration is JSON in the file's
header. The card beside it holds the sha256 and the evidence that the prior is good. Nothing is
unpickled.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from scoreatlas.errors import AtlasError
from scoreatlas.nn.precondition import Preconditioned
from scoreatlas.nn.unet import UNet
from scoreatlas.priors.diffusion import Denoiser, DiffusionPrior
from scoreatlas.schedules import VP, Schedule

WEIGHTS = Path(__file__).parents[1] / "weights"


@final
@dataclass(frozen=True, eq=False)
class Pretrained:
    """A learned denoiser with its card.

    Attributes:
        denoiser: E[x_0 | x_0 + sigma eps = x] for images (b, *shape) in [-1, 1].
        shape: shape of one image.
        card: data, split, steps, device, seconds, sha256 and evidence, as JSON values.
    """

    denoiser: Preconditioned
    shape: tuple[int, int, int]
    card: dict[str, Any]

    def prior(self, schedule: Schedule | None = None, label: int | None = None) -> DiffusionPrior:
        """The diffusion prior under a schedule (VP by default), of one class if ``label`` is given.

        Raises:
            AtlasError: the network has no such class.
        """
        denoiser: Denoiser = self.denoiser if label is None else self.given(label)
        return DiffusionPrior(denoiser, schedule or VP(), self.shape)

    def given(self, label: int) -> Denoiser:
        """The denoiser of one class.

        Raises:
            AtlasError: the network has no such class.
        """
        classes = self.denoiser.net.classes
        if not 0 <= label < classes:
            raise AtlasError(f"no class {label}: this prior has {classes} classes")
        return lambda x, sigma: self.denoiser(x, sigma, torch.full((x.shape[0],), label, device=x.device))


def available(weights: Path = WEIGHTS) -> list[str]:
    """Names of the priors at hand."""
    cards = (json.loads(path.read_text()) for path in weights.glob("*.json"))
    return sorted(card["name"] for card in cards if "sigma_data" in card)


def load_pretrained(
    name: str, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, weights: Path = WEIGHTS
) -> Pretrained:
    """Load a prior by name, after comparing its sha256 with the card.

    Raises:
        AtlasError: the name is unknown, or the file is truncated, altered or not readable.
    """
    path = weights / f"{name}.safetensors"
    if name not in available(weights) or not path.exists():
        raise AtlasError(f"no prior named {name!r}; there are: {', '.join(available(weights)) or 'none'}")
    card = json.loads(path.with_suffix(".json").read_text())
    raw = path.read_bytes()
    digest = hashlib.sha256(raw).hexdigest()
    if digest != card["sha256"]:
        raise AtlasError(f"{path} does not match the sha256 of its card: restore it from the repository")
    try:
        tensors = load(raw)
    except SafetensorError as error:
        raise AtlasError(f"{path} is not a safetensors file: {error}") from error
    net = UNet(**card["network"])
    denoiser = Preconditioned(net, card["sigma_data"])
    denoiser.load_state_dict({k: v.to(dtype) for k, v in tensors.items()})
    denoiser = denoiser.to(device, dtype).eval().requires_grad_(False)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster convolutions
    return Pretrained(denoiser, tuple(card["shape"]), card)


def save_pretrained(
    name: str, denoiser: Preconditioned, shape: tuple[int, int, int], about: dict[str, Any], weights: Path = WEIGHTS
) -> None:
    """Write weights (half precision) and card, each whole or not at all.

    Args:
        name: file stem.
        denoiser: a preconditioned U-Net.
        shape: shape of one image.
        about: JSON values for the card: data, split, steps, device, seconds, evidence.
    """
    weights.mkdir(parents=True, exist_ok=True)
    path, partial = weights / f"{name}.safetensors", weights / f"{name}.partial"
    save_file({k: v.half().contiguous() for k, v in denoiser.state_dict().items()}, partial)
    card = {
        "name": name, "shape": list(shape), "network": denoiser.net.config, "sigma_data": denoiser.sigma_data,
        "parameters": sum(p.numel() for p in denoiser.parameters()),
        "sha256": hashlib.sha256(partial.read_bytes()).hexdigest(),
    }  # fmt: skip
    write_card(path.with_suffix(".json"), card | about)
    partial.replace(path)


def write_card(path: Path, card: dict[str, Any]) -> None:
    """Write a card atomically."""
    partial = path.with_suffix(".json.partial")
    partial.write_text(json.dumps(card, indent=1) + "\n")
    partial.replace(path)
