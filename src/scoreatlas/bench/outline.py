"""What the Gaussian outline costs the learned priors: the measurements of section 2.1, kept on a card.

``scoreatlas priors train outline`` makes ``weights/outline.json``. It holds no weights: what is measured is how far
the learned probability flow is from that of the Gaussian with the same mean and covariance, and what happens to
samples when the Gaussian takes the first steps.
"""

import datetime
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scoreatlas import data
from scoreatlas.gaussian_flow import GaussianFlow
from scoreatlas.metrics.judge import load_judge
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.pretrained import WEIGHTS, load_pretrained, write_card
from scoreatlas.rng import Rng
from scoreatlas.samplers.ode import Heun, Karras
from scoreatlas.samplers.outline import Outline
from scoreatlas.schedules import VE
from scoreatlas.solvers.base import Solver

NAME = "outline"
SCHEDULE = VE(sigma_max=80.0)  # EDM's range of noise
STEPS, REFERENCE = 18, 30  # Heun steps of EDM on CIFAR-10, and of what counts as the exact solution
SKIPPED = (0, 2, 4, 6, 8, 9, 10, 11, 12)
RANK = {"digits": 1024, "chest": 512}
SEEDS, ROWS = (0, 1, 2), {"digits": 20, "chest": 5}


def gaussians(name: str, rank: int | None = None, device: str = "cpu") -> dict[str, GaussianFlow]:
    """The Gaussian of the training images, and the white one with the same mean and total variance."""
    images = {"digits": data.digits, "chest": data.chest}[name]("train")[0].to(device)
    return {
        "gaussian": GaussianFlow.from_images(images, RANK[name] if rank is None else rank),
        "white": GaussianFlow.from_images(images, 0),
    }


def measure(name: str, device: str = "cpu") -> dict[str, Any]:
    """Paths, and samples with the first steps in closed form, of one prior.

    Where nothing is skipped all walks are one, "shorter". Lists have one value a seed. Distances are root mean
    squares over pixels and samples, in image units.
    """
    prior = load_pretrained(name, device=device).prior(SCHEDULE)
    flows = gaussians(name, device=device)
    began, levels = time.perf_counter(), Karras()(SCHEDULE, REFERENCE)
    path = [prior.initial(_rng(name, device)), *walk(Heun(REFERENCE), prior, name, device)]
    exact = path[-1]
    apart = [
        {"noise": n} | {k: by_seed(z, f.move(path[0], levels[0], n)) for k, f in flows.items()}
        for n, z in zip(levels, path, strict=True)
    ]
    judged, floor = judge(name, exact, device)
    grid, rows = Karras()(SCHEDULE, STEPS), []
    for j in SKIPPED:
        tried: dict[str, Solver[None, DiffusionPrior]] = {"shorter": Heun(STEPS - j)}
        if j:
            tried |= {k: Outline(f, grid[j], STEPS) for k, f in flows.items()}
        found = {k: walk(s, prior, name, device)[-1] for k, s in tried.items()}
        row: dict[str, Any] = {"skipped": j, "noise": grid[j], "calls": 2 * (STEPS - j) - 1}
        rows.append(row | {k: {"distance": by_seed(x, exact), **judged(x)} for k, x in found.items()})
        print(f"{name}: {j} of {STEPS} steps skipped, {time.perf_counter() - began:.0f} s", flush=True)
    unrelated = by_seed(exact, exact.unflatten(0, (len(SEEDS), -1)).roll(1, 1).flatten(0, 1))
    return {
        "samples": len(exact), "reference": judged(exact), "unrelated": unrelated, "floor": floor, "path": apart,
        "skip": rows, "rank": len(flows["gaussian"].variances), "rest": flows["gaussian"].rest,
        "seconds": round(time.perf_counter() - began),
    }  # fmt: skip


def judge(name: str, exact: Tensor, device: str) -> tuple[Any, dict[str, list[float]]]:
    """A function that judges digits: share of changed classes, and energy distance of features to test images.

    Beside it the same distance for training images, which is what a perfect prior would have.
    """
    if name != "digits":
        return lambda x: {}, {}
    net = load_judge(device)
    held, train = data.digits("test")[0].to(device), data.digits("train")[0].to(device)
    with torch.no_grad():
        features, classes = net.features(held), net(exact).argmax(1)

    @torch.no_grad()
    def judged(x: Tensor) -> dict[str, list[float]]:
        changed = (net(x).argmax(1) != classes).float().unflatten(0, (len(SEEDS), -1)).mean(1)
        groups = net.features(x).unflatten(0, (len(SEEDS), -1))
        return {"changed": changed.tolist(), "energy": [energy(g, features) for g in groups]}

    rows = len(exact) // len(SEEDS)
    with torch.no_grad():
        real = [energy(net.features(train[i * rows : (i + 1) * rows]), features) for i in range(20)]
    return judged, {"energy": real}


def energy(x: Tensor, y: Tensor) -> float:
    """Energy distance of samples (n, d) and (m, d), without bias: 0 on average where the laws agree."""
    within = [torch.cdist(a, a).sum() / (len(a) * (len(a) - 1)) for a in (x, y)]
    return float(2 * torch.cdist(x, y).mean() - within[0] - within[1])


def by_seed(a: Tensor, b: Tensor) -> list[float]:
    """Root mean square difference over pixels and the samples of a seed."""
    square = (a - b).square().flatten(1).mean(1)
    return square.unflatten(0, (len(SEEDS), -1)).mean(1).sqrt().tolist()


def walk(solver: Solver[None, DiffusionPrior], prior: DiffusionPrior, name: str, device: str) -> list[Tensor]:
    """The states of the walk of every seed."""
    return [state.x for state in solver.run(None, prior, _rng(name, device))]


def train(name: str, checkpoints: Path, device: str = "cpu", seconds: float | None = None) -> None:
    """Measure both priors and write the card; a prior that was measured already is read from ``checkpoints``."""
    checkpoints.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    for prior in RANK:
        kept = checkpoints / f"{name}-{prior}-{weights_hash(prior)[:12]}.json"
        if not kept.exists():
            write_card(kept, measure(prior, device))
        found[prior] = json.loads(kept.read_text())
    write_card(WEIGHTS / f"{name}.json", {
        "name": name, "schedule": repr(SCHEDULE), "steps": STEPS, "reference_steps": REFERENCE, "seeds": list(SEEDS),
        "weights": {prior: weights_hash(prior) for prior in RANK}, "device": device, "torch": torch.__version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(), "evidence": found,
    })  # fmt: skip


def weights_hash(prior: str) -> str:
    """sha256 of a prior's weights."""
    return hashlib.sha256((WEIGHTS / f"{prior}.safetensors").read_bytes()).hexdigest()


def _rng(name: str, device: str) -> Rng:
    return Rng(SEEDS, ROWS[name], device=device)
