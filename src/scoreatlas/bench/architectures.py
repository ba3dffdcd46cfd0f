"""The networks of chapter 2.6: trained under equal budgets, three seeds each, and measured.

A recipe trains its network once per seed, keeps what it measured of each beside the checkpoint, and saves the first
seed's weights with the numbers of all seeds on the card. Nothing is chosen by looking at the test images.

The transformers see digits of 16 x 16 pixels, 16 tokens of 4 x 4: a minute on one core is then enough to learn the
classes. The U-Nets, whose question is fine detail, see 32 x 32.
"""

import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from scoreatlas import data
from scoreatlas.data.captions import MEDIAN_SLANT, MEDIAN_THICKNESS, caption, enlarge, slant, small, thickness
from scoreatlas.errors import AtlasError
from scoreatlas.metrics.distortion import psnr
from scoreatlas.metrics.judge import load_judge
from scoreatlas.nn.captioned import CaptionedFlow, FlowDenoiser
from scoreatlas.nn.dit import DiT
from scoreatlas.nn.hourglass import Hourglass
from scoreatlas.nn.mmdit import MMDiT
from scoreatlas.nn.precondition import DenoisingLoss, Preconditioned
from scoreatlas.nn.unet import UNet
from scoreatlas.priors import zoo
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.pretrained import write_card
from scoreatlas.rng import Rng
from scoreatlas.samplers.ode import Euler, Heun
from scoreatlas.schedules import VE, Flow
from scoreatlas.training import Trainable, fit, progress

SIGMA_DATA = 0.5  # of the digits, 0.55 at 32 x 32 and 0.51 at 16 x 16
SIGMAS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
SIDE = 16  # of the images that transformers see


@final
@dataclass(frozen=True)
class Recipe:
    """How one network is made.

    Attributes:
        make: the untrained network.
        seeds: one run each; the first is shipped.
        steps: updates.
        batch: images per update.
        lr: peak learning rate.
        ema: decay of the average of the weights.
    """

    make: Callable[[], nn.Module]
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 1200
    batch: int = 64
    lr: float = 3e-3
    ema: float = 0.995


RECIPES = {
    "dit-in-context": Recipe(lambda: DiT(side=SIDE, conditioning="in-context")),
    "dit-cross-attention": Recipe(lambda: DiT(side=SIDE, conditioning="cross-attention")),
    "dit-adaln": Recipe(lambda: DiT(side=SIDE, conditioning="adaLN")),
    "dit-adaln-zero": Recipe(lambda: DiT(side=SIDE, conditioning="adaLN-Zero")),
    "unet-skips": Recipe(lambda: UNet(1, (24, 48, 64), patch=2), seeds=(0,), steps=800, batch=32, lr=2e-3),
    "unet-no-skips": Recipe(lambda: Hourglass(1, (24, 48, 64), patch=2), seeds=(0,), steps=800, batch=32, lr=2e-3),
    "mmdit-separate": Recipe(lambda: MMDiT(side=SIDE, separate=True)),
    "mmdit-shared": Recipe(lambda: MMDiT(side=SIDE, separate=False)),
}


def train(name: str, checkpoints: Path, device: str = "cpu", seconds: float | None = None) -> None:
    """Train one network with all its seeds, or resume, and write weights and card.

    Args:
        name: a key of ``RECIPES``.
        checkpoints: folder for ``NAME-SEED.safetensors``, ``.log`` and ``.json``.
        device: "cpu" or "cuda".
        seconds: time limit for each seed.

    Raises:
        AtlasError: no such recipe.
    """
    if name not in RECIPES:
        raise AtlasError(f"no recipe named {name!r}; there are: {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    runs = [run(name, seed, checkpoints, device, seconds) for seed in recipe.seeds]
    net, _ = load_run(name, recipe.seeds[0], checkpoints)
    about = {
        "data": "digits", "split": "train", "batch": recipe.batch, "updates": runs[0]["updates"], "lr": recipe.lr,
        "ema": recipe.ema, "flops": flops(net), "evidence": {"seeds": runs},
    }  # fmt: skip
    zoo.save(name, net, about)


def run(name: str, seed: int, checkpoints: Path, device: str = "cpu", seconds: float | None = None) -> dict[str, Any]:
    """Train and measure one seed, unless its measurements are there."""
    done = checkpoints / f"{name}-{seed}.json"
    if done.exists():
        return json.loads(done.read_text())
    recipe = RECIPES[name]
    checkpoints.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)  # initial weights
    trainable = task(recipe.make().to(device))
    checkpoint = checkpoints / f"{name}-{seed}.safetensors"
    log = checkpoints / f"{name}-{seed}.log"
    with log.open("a") as file:
        average = fit(
            trainable, {k: v.to(device) for k, v in source(trainable, "train").items()}, steps=recipe.steps,
            batch=recipe.batch, lr=recipe.lr, ema=recipe.ema, seed=seed, max_seconds=seconds or float("inf"),
            checkpoint=checkpoint, every=100, log=lambda row: print(json.dumps(row), file=file, flush=True),
        )  # fmt: skip
    updates, spent = progress(checkpoint)
    curve = [json.loads(line) for line in log.read_text().splitlines()]
    found = {
        "seed": seed, "updates": updates, "seconds": round(spent), "device": f"{device} ({platform.machine()})",
        "torch": torch.__version__, "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "curve": [[row["step"], row["loss"]] for row in curve], **measure(task(average.to("cpu"))),
    }  # fmt: skip
    write_card(done, found)
    return found


def load_run(name: str, seed: int, checkpoints: Path) -> tuple[nn.Module, Trainable[Any]]:
    """The averaged network of a finished run, and its loss."""
    from safetensors.torch import load_file

    net = RECIPES[name].make()
    trainable = task(net)
    state = load_file(checkpoints / f"{name}-{seed}.safetensors")
    trainable.net.load_state_dict({k[8:]: v for k, v in state.items() if k.startswith("average.")})
    trainable.net.eval().requires_grad_(False)
    return net, trainable


def task(net: nn.Module) -> Trainable[Any]:
    """The loss that goes with a network: rectified flow for captions, EDM's for the rest."""
    if isinstance(net, MMDiT):
        return CaptionedFlow(net)
    if isinstance(net, Preconditioned):
        return DenoisingLoss(net, -0.4, 1.2, 0.1)  # the noise at which classes are decided; DiT drops a tenth, too
    return task(Preconditioned(net, SIGMA_DATA))  # type: ignore[arg-type]  # called like a U-Net


def source(trainable: Trainable[Any], split: data.Split) -> dict[str, Tensor]:
    """Images, with captions or labels if the network takes them."""
    x, y = data.digits(split)
    if isinstance(trainable, CaptionedFlow):
        return {"image": small(x), "caption": caption(small(x), y)}
    assert isinstance(trainable, DenoisingLoss)
    return {"image": small(x), "label": y} if trainable.net.net.classes else {"image": x}


def measure(trainable: Trainable[Any]) -> dict[str, Any]:
    """What is measured of a trained network on held-out images; no choice is made by it."""
    if isinstance(trainable, CaptionedFlow):
        return {"loss": held_out(trainable, 0.0), "loss_null": held_out(trainable, 1.0), **obedience(trainable.net)}
    assert isinstance(trainable, DenoisingLoss)
    if not trainable.net.net.classes:
        return {"loss": held_out(trainable, 0.0), "denoising": [denoised(trainable.net, sigma) for sigma in SIGMAS]}
    return {
        "loss": held_out(trainable, 0.0), "loss_null": held_out(trainable, 1.0),
        "classified": classified(trainable.net), **accuracy(trainable.net),
    }  # fmt: skip


@torch.no_grad()
def held_out(trainable: Trainable[Any], null: float, draws: int = 2) -> float:
    """Mean training loss on test images, the same noise for every network, with labels dropped at the rate ``null``."""
    batch = source(trainable, "test")
    assert isinstance(trainable, CaptionedFlow | DenoisingLoss)
    told = replace(trainable, null_probability=null)
    total = 0.0
    for draw in range(draws):
        for i, rows in enumerate(torch.arange(len(batch["image"])).split(500)):
            rng = Rng([1000 * draw + i], rows=len(rows))
            total += float(told.loss({k: v[rows] for k, v in batch.items()}, rng).sum())
    return total / (draws * len(batch["image"]))


@torch.no_grad()
def denoised(denoiser: Preconditioned, sigma: float, n: int = 256) -> dict[str, float]:
    """Mean PSNR in dB on test images, and of the noisy images."""
    x = data.digits("test")[0][:n]
    y = x + sigma * Rng(range(n)).normal_like(x)
    level = torch.tensor(sigma)
    return {"sigma": sigma, "psnr": float(psnr(denoiser(y, level), x).mean()), "noisy": float(psnr(y, x).mean())}


@torch.no_grad()
def classified(denoiser: Preconditioned, n: int = 400, sigmas: tuple[float, ...] = (0.4, 0.8, 1.6)) -> float:
    """Share of test images whose own label explains them best: the smallest denoising error among all ten.

    The network as a classifier (Li et al., 2023, arXiv:2303.16203), with the same noise for all labels. It says how
    much of p(x | y) has been learnt, even before samples look like digits.
    """
    x, y = data.digits("test")
    x, y = small(x[:n]), y[:n]
    error = torch.zeros(n, 10)
    for i, sigma in enumerate(sigmas):
        noisy = x + sigma * Rng([i], rows=n).normal_like(x)
        for k in range(10):
            found = denoiser(noisy, torch.tensor(sigma), torch.full((n,), k))
            error[:, k] += (found - x).square().flatten(1).mean(1) / sigma**2
    return float((error.argmin(1) == y).double().mean())


@torch.no_grad()
def accuracy(denoiser: Preconditioned, each: int = 50) -> dict[str, float]:
    """Share of class-conditional samples, without guidance, that the judge takes for their class."""
    label = torch.arange(10).repeat_interleave(each)
    x = draw_class(denoiser, label, Rng([5], rows=10 * each))
    probability = load_judge()(enlarge(x)).softmax(1)
    return {
        "accuracy": float((probability.argmax(1) == label).double().mean()),
        "confident": float((probability.amax(1) > 0.9).double().mean()),
    }  # fmt: skip


def draw_class(denoiser: Preconditioned, label: Tensor, rng: Rng, steps: int = 15) -> Tensor:
    """Samples (b, 1, 16, 16) of classes (b,): Heun from sigma = 20, 2 steps - 1 calls."""
    prior = DiffusionPrior(lambda x, sigma: denoiser(x, sigma, label), VE(sigma_max=20.0), (1, SIDE, SIDE))
    return Heun(steps)(None, prior, rng)


@torch.no_grad()
def obedience(net: MMDiT, each: int = 12) -> dict[str, float]:
    """Share of samples that do what the caption says, word by word and altogether: the judge and the ruler decide."""
    words = torch.cartesian_prod(torch.arange(10), torch.tensor([10, 11]), torch.tensor([12, 13]))
    words = words.repeat_interleave(each, 0)
    x = draw_caption(net, words, Rng([6], rows=len(words)))
    right = torch.stack([
        load_judge()(enlarge(x)).argmax(1) == words[:, 0],
        (thickness(x) > MEDIAN_THICKNESS) == (words[:, 1] == 11),
        (slant(x) > MEDIAN_SLANT) == (words[:, 2] == 13),
    ]).double()  # fmt: skip
    digit, stroke, lean = right.mean(1).tolist()
    return {"digit": digit, "stroke": stroke, "lean": lean, "caption": float(right.prod(0).mean())}


def draw_caption(net: MMDiT, words: Tensor, rng: Rng, steps: int = 30) -> Tensor:
    """Samples (b, 1, 16, 16) of captions (b, n): Euler on the flow, which is DDIM without noise."""
    return Euler(steps)(None, DiffusionPrior(FlowDenoiser(net, words), Flow(), (1, SIDE, SIDE)), rng)


def flops(net: nn.Module) -> int:
    """Floating-point operations of one image's forward pass: a multiplication and an addition are two."""
    config: dict[str, Any] = net.config  # type: ignore[assignment]
    side, channels = config.get("side", 32), config["channels"]
    device = next(net.parameters()).device
    image, time_ = torch.zeros(1, channels, side, side, device=device), torch.zeros(1, device=device)
    if isinstance(net, MMDiT):
        inputs: tuple[Tensor, ...] = (image, time_, torch.zeros(1, 3, dtype=torch.long, device=device))
    elif isinstance(net, DiT):
        inputs = (image, time_, torch.zeros(1, dtype=torch.long, device=device))
    else:
        inputs = (image, time_)
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), counter:  # plain products, which the counter knows
        net(*inputs)
    return counter.get_total_flops()
