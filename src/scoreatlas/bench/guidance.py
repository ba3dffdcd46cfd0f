"""Guidance on the digits: class accuracy against diversity, for the tables of chapter 2.3.

``python -m scoreatlas.bench.guidance`` draws digits with classifier-free and with classifier guidance, judges them,
and writes ``benchmarks/results/PROFILE/guidance/digits.json``. A killed run resumes with the missing lines.

Every line costs the same number of network calls an image: classifier-free guidance makes two a step, so it takes half
the steps. Gradients of the classifier come on top and cost much less. The judge shares nothing with either network.
"""

import argparse
import datetime
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from scoreatlas import data
from scoreatlas.bench.compute import _commit
from scoreatlas.bench.fingerprint import source_hash
from scoreatlas.bench.suite import BENCHMARKS
from scoreatlas.errors import AtlasError
from scoreatlas.metrics.judge import load_judge
from scoreatlas.nn.classifier import Classifier
from scoreatlas.priors import zoo
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.guided import EVERYWHERE, Chosen, ClassifierFree, ClassifierGuided, Guided, Labelled
from scoreatlas.priors.pretrained import load_pretrained
from scoreatlas.rng import Rng
from scoreatlas.samplers.ancestral import DDIM
from scoreatlas.schedules import VP

MODULES = [
    "scoreatlas.priors.guided", "scoreatlas.samplers.ancestral", "scoreatlas.nn.precondition",
    "scoreatlas.nn.noisy_classifier", "scoreatlas.nn.classifier",
]  # fmt: skip
SEEDS = (0, 1, 2)
PER_CLASS = {"quick": 10, "full": 100}  # samples of each class and seed
CALLS = 36  # of the network, for each image
WEIGHTS = (0.0, 1.0, 2.0, 4.0, 8.0)  # Ho & Salimans' w; the scale is w + 1
INTERVAL = (0.2, 2.0)  # noise levels with guidance, in the line of that name; not tuned
CLEAN = 0.01  # noise level at which the clean classifier was trained


@final
@dataclass(frozen=True)
class Line:
    """What is run: a kind of guidance at a weight, with a seed."""

    kind: str
    w: float
    seed: int


def lines() -> Iterator[Line]:
    """Every line of the record, the cheapest question first."""
    for seed in SEEDS:
        for w in WEIGHTS:
            yield Line("classifier-free", w, seed)
            yield Line("classifier", w, seed)
        for w in WEIGHTS[2:]:
            yield Line("interval", w, seed)
        for w in (0.0, 2.0, 8.0):
            yield Line("clean classifier", w, seed)


def denoiser(kind: str, w: float, label: Tensor) -> Guided:
    """The guided denoiser of a line.

    Raises:
        AtlasError: no such kind.
    """
    net = load_pretrained("digits").denoiser
    if kind in ("classifier-free", "interval"):
        interval = INTERVAL if kind == "interval" else EVERYWHERE
        return ClassifierFree.extra(Labelled(net, label), net, w, interval)
    noisy, clean = zoo.load("digits-classifier").net, zoo.load("digits-classifier-clean").net

    def unprepared(x: Tensor, sigma: Tensor) -> Tensor:
        """The clean classifier, at the scale it knows and believing that its image is clean."""
        d = net.sigma_data
        return clean(d / (sigma**2 + d**2).sqrt() * x, x.new_full((), CLEAN))

    if kind not in ("classifier", "clean classifier"):
        raise AtlasError(f"no guidance of the kind {kind!r}")
    return ClassifierGuided(net, Chosen(noisy if kind == "classifier" else unprepared, label), 1 + w)


def draw(line: Line, per_class: int) -> tuple[Tensor, Tensor]:
    """Digits (10 per_class, 1, 32, 32) and the classes that were asked for."""
    label = torch.arange(10).repeat(per_class)
    steps = CALLS // 2 if line.kind in ("classifier-free", "interval") else CALLS
    prior = DiffusionPrior(denoiser(line.kind, line.w, label), VP(), (1, 32, 32))
    return DDIM(steps)(None, prior, Rng([line.seed], len(label))), label


@torch.no_grad()
def judged(x: Tensor, label: Tensor, judge: Classifier, real: Tensor, of: Tensor) -> dict[str, float]:
    """What the judge and a ruler say of digits.

    Args:
        x, label: digits and the classes asked for.
        judge: the independent classifier.
        real, of: held-out digits and their classes.
    """
    probability, feature, truth = judge(x).softmax(1), judge.features(x), judge.features(real)
    spread, usual, distance = 0.0, 0.0, 0.0
    for c in range(10):
        ours, theirs = feature[label == c], truth[of == c]
        spread += float(ours.var(0).sum())
        usual += float(theirs.var(0).sum())
        distance += energy(ours, theirs) / 10
    return {
        "accuracy": float((probability.argmax(1) == label).double().mean()),
        "confidence": float(probability.gather(1, label[:, None]).double().mean()),
        "spread": spread / usual,
        "distance": distance,
        "beyond": float((x.abs() > 1.05).double().mean()),
        "largest": float(x.abs().amax()),
        "ink": float((x > 0).double().mean()),
    }


def energy(x: Tensor, y: Tensor) -> float:
    """Energy distance of two samples (n, d), (m, d) over the mean distance in the second.

    The unbiased statistic of Szekely & Rizzo (2013): expectation 0 if they are equal in law, even if they are small.
    """
    within = lambda z: float(torch.cdist(z, z).sum()) / (len(z) * (len(z) - 1))  # noqa: E731
    return (2 * float(torch.cdist(x, y).mean()) - within(x) - within(y)) / within(y)


def measure(profile: str, partial: Path) -> dict[str, Any]:
    """The record: every line, sets of real digits, and where it was made."""
    torch.set_num_threads(1)
    told = provenance(profile)
    found = _kept(partial, told["source_hash"])
    judge, (real, of) = load_judge(), data.digits("test")
    for line in lines():
        if any(row["line"] == asdict(line) for row in found):
            continue
        began = time.process_time()
        x, label = draw(line, PER_CLASS[profile])
        row = {"line": asdict(line), **judged(x, label, judge, real, of), "seconds": time.process_time() - began}
        found.append(row)
        partial.write_text(json.dumps({"rows": found, "source_hash": told["source_hash"]}))
        print(f"{line.kind} w={line.w:g} seed={line.seed}: {row['accuracy']:.2f} {row['spread']:.2f}", flush=True)
    real_sets = [judged(x, label, judge, real, of) for x, label in sets(PER_CLASS[profile])]
    return {"rows": found, "real": real_sets, "provenance": told}


def sets(per_class: int, most: int = 10) -> Iterator[tuple[Tensor, Tensor]]:
    """Disjoint sets of validation digits, each as large as a line's, for what the measures say of real digits.

    They are taken far apart: neighbours in the file share a writer.
    """
    images, labels = data.digits("validation")
    of_class = [(labels == c).nonzero()[:, 0] for c in range(10)]
    count = min(len(index) for index in of_class) // per_class
    for i in range(min(most, count)):
        few = torch.cat([index[i::count][:per_class] for index in of_class])
        yield images[few], labels[few]


def provenance(profile: str) -> dict[str, Any]:
    """Where a record is made."""
    commit, dirty = _commit()
    cards = {name: zoo.load(name).card["sha256"] for name in ("digits-classifier", "digits-classifier-clean")}
    return {
        "profile": profile, "commit": commit, "dirty": dirty,
        "source_hash": source_hash(MODULES, [denoiser, draw, judged, energy]),
        "weights": cards | {"digits": load_pretrained("digits").card["sha256"]}, "calls": CALLS, "seeds": SEEDS,
        "per_class": PER_CLASS[profile], "interval": INTERVAL,
        "torch": torch.__version__, "device": "cpu", "threads": 1,
        "utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }  # fmt: skip


def path(profile: str, root: Path = BENCHMARKS) -> Path:
    """Where the record of a profile is."""
    return root / "results" / profile / "guidance" / "digits.json"


def load(profile: str = "quick", root: Path = BENCHMARKS) -> dict[str, Any]:
    """The record of a profile.

    Raises:
        AtlasError: there is none, or it cannot be read.
    """
    source = path(profile, root)
    remedy = f"run `python -m scoreatlas.bench.guidance --profile {profile}`"
    try:
        return json.loads(source.read_text())
    except FileNotFoundError as error:
        raise AtlasError(f"{source} is missing: {remedy}") from error
    except ValueError as error:
        raise AtlasError(f"{source} is truncated or altered: {remedy}") from error


def stale(record: dict[str, Any]) -> bool:
    """Whether a sampler, a network or the judging has changed since."""
    told = provenance(record["provenance"]["profile"])
    return any(record["provenance"][k] != told[k] for k in ("source_hash", "weights"))


def _kept(partial: Path, digest: str) -> list[dict[str, Any]]:
    """Lines of a run that was stopped, if the code is still the same."""
    if not partial.exists():
        return []
    found = json.loads(partial.read_text())
    return found["rows"] if found["source_hash"] == digest else []


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write, or check what is written."""
    parser = argparse.ArgumentParser(prog="python -m scoreatlas.bench.guidance", description="Guided digits, judged.")
    parser.add_argument("--profile", choices=list(PER_CLASS), default="quick")
    parser.add_argument("--check", action="store_true", help="only say whether the record is there and fresh")
    options = parser.parse_args(arguments)
    target = path(options.profile)
    try:
        if options.check:
            if stale(load(options.profile)):
                raise AtlasError(f"{target} is stale: run `python -m scoreatlas.bench.guidance` again")
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".partial")
        record = measure(options.profile, partial)
        done = target.with_suffix(".done")
        done.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
        done.replace(target)
        partial.unlink(missing_ok=True)
        print(target)
    except AtlasError as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
