"""The evidence on a prior's card: is the learned denoiser good, is it a posterior mean, does it memorise?"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from skimage.restoration import denoise_wavelet
from torch import Tensor

from scoreatlas import data
from scoreatlas.bench.image_worlds import IMAGES
from scoreatlas.metrics.distortion import psnr
from scoreatlas.metrics.judge import NAME, load_judge, train_judge
from scoreatlas.priors import zoo
from scoreatlas.priors.diffusion import Denoiser, DiffusionPrior
from scoreatlas.priors.pretrained import WEIGHTS, load_pretrained, write_card
from scoreatlas.priors.train import RECIPES
from scoreatlas.priors.train import train as train_prior
from scoreatlas.priors.tv import TotalVariation
from scoreatlas.rng import Rng
from scoreatlas.samplers.ode import Heun
from scoreatlas.tweedie import second_order_residual

SIGMAS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
LAMBDAS = tuple(0.05 * 2**k for k in range(7))  # of TV, in units of sigma


def train(
    names: Sequence[str], device: str, checkpoints: Path, seconds: float | None, say: Callable[[str], None] = print
) -> None:
    """Train the judge and the priors, or resume, and write weights and cards with their evidence.

    Args:
        names: which; all if none.
        device: cpu, cuda, or auto: cuda if there is one.
        checkpoints: the folder where a run is resumed from.
        seconds: time limit for each.
        say: receives a line for each stage.
    """
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    for name in names or [NAME, *RECIPES, *zoo.RECIPES]:
        say(f"training {name} on {chosen}; progress in {checkpoints / name}.log")
        if name == NAME:
            say(f"test accuracy {train_judge(chosen):.4f}")
        elif name in zoo.RECIPES:
            zoo.train(name, checkpoints, chosen, seconds)
        else:
            train_prior(name, checkpoints, chosen, seconds)
            measure(name, chosen)


def measure(
    name: str, device: str = "cpu", test: int = 128, validation: int = 32, samples: int = 512
) -> dict[str, Any]:
    """All the evidence, and write it onto the card.

    Args:
        name: of a prior in ``weights``.
        device: where the network runs.
        test: held-out images for denoising, fewer where there are fewer.
        validation: images on which the weight of total variation is chosen, per noise level.
        samples: drawn for the class histogram and the nearest neighbours.
    """
    found = load_pretrained(name, device=device)
    load = IMAGES[found.card["data"]]
    held, chosen = load("test")[:test].to(device), load("validation")[:validation].to(device)
    evidence: dict[str, Any] = {
        "denoising": [denoising(found.denoiser, held, chosen, sigma) for sigma in SIGMAS],
        "second_order": [second_order(found.denoiser, held[:32], sigma) for sigma in SIGMAS],
    }
    drawn = draw(found.prior(), samples, device)
    evidence["memorisation"] = memorisation(drawn, load("test")[:samples], load("train"))
    if found.card["data"] == "digits":
        evidence["classes"] = class_histogram(drawn, data.digits("train")[1])
    path = WEIGHTS / f"{name}.json"
    write_card(path, json.loads(path.read_text()) | {"evidence": evidence})
    return evidence


@torch.no_grad()
def denoising(denoiser: Denoiser, test: Tensor, validation: Tensor, sigma: float) -> dict[str, float]:
    """Mean PSNR in dB on test images at one noise level: learned, total variation, wavelet, and the noisy image.

    Total variation takes the best of ``LAMBDAS`` on the validation images; wavelets are
    scikit-image's BayesShrink told the noise level.
    """

    def noisy(x: Tensor) -> Tensor:
        return x + sigma * Rng(range(len(x)), device=x.device).normal_like(x)

    def score(f: Callable[[Tensor], Tensor], x: Tensor) -> float:
        return float(psnr(f(noisy(x)), x).mean())

    def tv(factor: float) -> Callable[[Tensor], Tensor]:
        return lambda y: TotalVariation(factor * sigma).prox(y, 1.0)

    best = max(LAMBDAS, key=lambda factor: score(tv(factor), validation))
    return {
        "sigma": sigma,
        "learned": score(lambda y: denoiser(y, torch.tensor(sigma, device=y.device)), test),
        "tv": score(tv(best), test),
        "wavelet": score(lambda y: wavelet(y, sigma), test),
        "noisy": score(lambda y: y, test),
    }


def wavelet(y: Tensor, sigma: float) -> Tensor:
    """scikit-image's wavelet denoiser, channel by channel."""
    options = {"sigma": sigma, "mode": "soft", "rescale_sigma": False}
    planes = [denoise_wavelet(plane.numpy(), **options) for plane in y.cpu().flatten(0, 1)]
    return torch.stack([torch.from_numpy(p) for p in planes]).reshape(y.shape).to(y.device)


def second_order(denoiser: Denoiser, x: Tensor, sigma: float) -> dict[str, float]:
    """Mean squared error per pixel beside sigma^2 tr J / n, which are equal for a true posterior mean."""
    found = second_order_residual(denoiser, x, sigma, Rng(range(len(x)), device=x.device))
    return {"sigma": sigma, "error": float(found.error.mean()), "predicted": float(found.predicted.mean())}


def draw(prior: DiffusionPrior, n: int, device: str, chunk: int = 64) -> Tensor:
    """Samples (n, *s) on the CPU, by Heun's method with 20 steps."""
    sampler = Heun(steps=20)
    parts = [sampler(None, prior, Rng([k], rows=chunk, device=device)).cpu() for k in range(math.ceil(n / chunk))]
    return torch.cat(parts)[:n]


def memorisation(drawn: Tensor, test: Tensor, train: Tensor) -> dict[str, float]:
    """Median distance to the nearest training image, in root mean square per pixel, of samples and of test images.

    A prior that copies has samples far nearer to the training set than unseen images are. The
    share of samples nearer than the nearest 1 % of test images says how often that happens.
    """
    ours, theirs = (nearest(x, train) for x in (drawn, test))
    return {
        "samples": float(ours.median()), "test": float(theirs.median()),
        "closer_than_1_percent_of_test": float((ours < theirs.quantile(0.01)).double().mean()),
    }  # fmt: skip


def nearest(x: Tensor, train: Tensor) -> Tensor:
    """Root mean square distance per pixel from each image to the nearest of ``train``, (n,)."""
    flat = train.flatten(1)
    distances = torch.cat([torch.cdist(part.flatten(1), flat).amin(1) for part in x.split(64)])
    return distances / math.sqrt(flat.shape[1])


@torch.no_grad()
def class_histogram(drawn: Tensor, labels: Tensor) -> dict[str, Any]:
    """Class frequencies of samples by the judge, beside those of the training set, and how sure the judge is."""
    probability = load_judge()(drawn).softmax(1)
    counts = torch.bincount(probability.argmax(1), minlength=10) / len(drawn)
    train = torch.bincount(labels, minlength=10) / len(labels)
    return {
        "samples": counts.tolist(), "train": train.tolist(),
        "total_variation": float((counts - train).abs().sum() / 2),
        "expected_total_variation": float((train * (1 - train) / len(drawn) * 2 / math.pi).sqrt().sum() / 2),
        "confident": float((probability.amax(1) > 0.9).double().mean()),
    }  # fmt: skip
