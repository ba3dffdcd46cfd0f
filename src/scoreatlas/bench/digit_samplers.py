"""Samplers on the learned digit prior: distance to held-out digits against network calls, recorded.

Not a suite: a suite solves measurements, and nothing is measured here. ``python -m scoreatlas.bench.digit_samplers``
computes what is missing or stale, one JSON file a row in ``benchmarks/results/quick/samplers``, whole or not at all.
"""

import datetime
import hashlib
import json
import math
import time
from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scoreatlas import data
from scoreatlas.bench.compute import _commit
from scoreatlas.bench.counting import Counter, counted_prior
from scoreatlas.bench.evidence import nearest
from scoreatlas.bench.fingerprint import source_hash
from scoreatlas.bench.suite import BENCHMARKS
from scoreatlas.metrics.frechet import features, frechet
from scoreatlas.metrics.judge import load_judge
from scoreatlas.priors.gaussian_field import GaussianField
from scoreatlas.priors.pretrained import load_pretrained
from scoreatlas.rng import Rng
from scoreatlas.samplers.ancestral import DDIM, DDPM
from scoreatlas.samplers.dlg import DLG
from scoreatlas.samplers.dpm_ot import DPMOT, Expressway
from scoreatlas.samplers.dpm_solver import DPMSolver
from scoreatlas.samplers.dpm_solver_pp import DPMSolverPP
from scoreatlas.samplers.ode import Euler, Heun, Karras
from scoreatlas.samplers.predictor_corrector import PredictorCorrector
from scoreatlas.solvers.base import Solver

RESULTS = BENCHMARKS / "results" / "quick" / "samplers"
IMAGES, CHUNK, SEED = 500, 100, 0
TARGETS, FIT_STEPS, FIT_BATCH = 1000, 300, 1000  # of DPM-OT


class Row(NamedTuple):
    """One row of the record.

    Attributes:
        name: of the method, as the table shows it.
        kind: its class.
        make: the sampler, built when it is needed.
        answers: samples that each row of noise gives, taken from the states of the sampler.
        note: what is special.
    """

    name: str
    kind: type[Solver]
    make: Callable[[], Solver]
    answers: int = 1
    note: str = ""


def rows() -> dict[str, Row]:
    """Every row, by the name of its file, in the order of computation: about ten calls, twenty, five, forty."""
    found = {}
    for some in ("10", "20", "5", "40"):
        n = int(some)
        half = n // 2 + (some == "5")  # steps of a method with two calls a step
        found[f"ddim-{some}"] = Row("DDIM", DDIM, partial(DDIM, n))
        found[f"dpmpp-2m-{some}"] = Row("DPM-Solver++(2M)", DPMSolverPP, partial(DPMSolverPP, n))
        found[f"heun-{some}"] = Row("Heun", Heun, partial(Heun, half))
        if n > 5:
            found[f"ddpm-{some}"] = Row("DDPM", DDPM, partial(DDPM, n))
        if n < 40:
            found[f"dpm-2-{some}"] = Row("DPM-Solver-2", DPMSolver, partial(DPMSolver, half, 2))
        if n in (10, 20):
            found[f"dpm-3-{some}"] = Row("DPM-Solver-3", DPMSolver, partial(DPMSolver, 1 + n // 3, 3))
            found[f"euler-{some}"] = Row("Euler, Karras grid", Euler, partial(Euler, n, Karras()))
            found[f"pc-{some}"] = Row("predictor–corrector", PredictorCorrector, partial(PredictorCorrector, half))
        if n == 10:
            for level in (0.028, 0.4):
                note = f"{TARGETS} targets, noised by σ = {level:g}"
                found[f"dpm-ot-{level:g}"] = Row("DPM-OT", DPMOT, partial(dpm_ot, level), note=note)
            for eta in (3.2, 0.8):
                note = f"η = {eta:g}; 10 samples a chain"
                found[f"dlg-{eta:g}"] = Row("DLG", DLG, partial(dlg, eta), 10, note)
    return found


def dlg(eta: float) -> DLG:
    """DLG with few steps; it reads the level off a stationary field with the spectrum of the training digits."""
    return DLG(GaussianField.from_images(data.digits("train")[0]), samples=10, skip=5, steps=3, eta=eta)


def dpm_ot(level: float) -> DPMOT:
    """DPM-OT with ten Langevin steps from a level."""
    return DPMOT(expressway(level), 10)


def expressway(level: float) -> Expressway:
    """DPM-OT's map to training digits with noise of this level."""
    clean = data.digits("train")[0][:TARGETS]
    noise = Rng([SEED + 1], TARGETS).normal_like(clean)
    return Expressway.fit(clean + level * noise, level, Rng([SEED + 2], FIT_BATCH), FIT_STEPS)


def draw(sampler: Solver, answers: int) -> tuple[Tensor, float]:
    """Images (IMAGES, 1, 32, 32) and network calls per image."""
    counter = Counter()
    prior = counted_prior(load_pretrained("digits").prior(), counter)
    chains = IMAGES // answers
    parts = []
    for first in range(0, chains, CHUNK):
        states = list(sampler.run(None, prior, Rng([SEED + first], min(CHUNK, chains - first))))
        parts += [state.x for state in states[-answers:]]
    return torch.cat(parts), counter.denoiser / (math.ceil(chains / CHUNK) * answers)


def measure(images: Tensor) -> dict[str, Any]:
    """Distances of images to parts of the test set of equal size, class shares, nearness to the training set."""
    judge, train = load_judge(), data.digits("train")
    ours, parts = features(judge, images), _parts()
    found = [frechet(ours, part) for part in parts]
    with torch.no_grad():
        label = torch.cat([judge(part) for part in images.split(CHUNK)]).argmax(1)
    share, truth = (torch.bincount(v, minlength=10) / len(v) for v in (label, train[1]))
    return {
        "frechet": sum(found) / len(found),
        "lowest": min(found),
        "highest": max(found),
        "class_total_variation": float((share - truth).abs().sum() / 2),
        "nearest_training_image": float(nearest(images[:200], train[0]).median()),
    }


def floor() -> dict[str, Any]:
    """Distances between parts of the test set, that of the validation split to them, and how near the test set comes to
    the training set."""
    found = [frechet(a, b) for a, b in combinations(_parts(), 2)]
    other = measure(data.digits("validation")[0][:IMAGES])["frechet"]
    near = float(nearest(data.digits("test")[0][:200], data.digits("train")[0]).median())
    return {
        "frechet": sum(found) / len(found),
        "lowest": min(found),
        "highest": max(found),
        "validation": other,
        "nearest_training_image": near,
    }


def _parts() -> list[Tensor]:
    """Features of the test set in parts of IMAGES."""
    judge = load_judge()
    return [features(judge, part) for part in data.digits("test")[0].split(IMAGES)]


def fingerprint(row: Row) -> str:
    """Hash of the code behind a row."""
    modules = ["priors.pretrained", "metrics.frechet", "metrics.judge"]
    return source_hash(
        [row.kind.__module__, *(f"scoreatlas.{name}" for name in modules)], [draw, measure, dlg, dpm_ot, expressway]
    )


def provenance() -> dict[str, Any]:
    """Where, when and with what a row was computed."""
    commit, dirty = _commit()
    return {
        "commit": commit, "dirty": dirty, "torch": torch.__version__, "device": "cpu", "dtype": "float32",
        "threads": torch.get_num_threads(), "weights_sha256": load_pretrained("digits").card["sha256"],
        "utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }  # fmt: skip


def read(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """The records that are there, in the order of :func:`rows`, each compared with its own sha256.

    Raises:
        ValueError: a record was altered.
    """
    found = []
    for name in ["floor", *rows()]:
        path = folder / f"{name}.json"
        if path.exists():
            record = json.loads(path.read_text())
            if record.pop("sha256") != _digest(record):
                raise ValueError(f"{path} does not match its own sha256: delete it and compute it again")
            found.append(record)
    return found


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _write(name: str, record: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{name}.partial"
    partial.write_text(json.dumps(record | {"sha256": _digest(record)}, indent=1, sort_keys=True) + "\n")
    partial.replace(folder / f"{name}.json")


def main(folder: Path = RESULTS) -> None:
    """Compute what is missing or stale."""
    torch.set_num_threads(1)
    there = {record["key"]: record for record in read(folder)}
    if "floor" not in there:
        _write("floor", {
            "key": "floor", "name": "held-out digits", "images": IMAGES, "metrics": floor(), "provenance": provenance(),
        }, folder)  # fmt: skip
    for key, row in rows().items():
        code = fingerprint(row)
        if key in there and there[key]["provenance"]["source_hash"] == code:
            continue
        began = time.perf_counter()
        sampler = row.make()
        images, calls = draw(sampler, row.answers)
        _write(key, {
            "key": key, "name": row.name, "sampler": repr(sampler), "note": row.note, "calls": calls, "images": IMAGES,
            "seconds": time.perf_counter() - began, "metrics": measure(images),
            "provenance": provenance() | {"source_hash": code},
        }, folder)  # fmt: skip
        print(key, calls, json.loads((folder / f"{key}.json").read_text())["metrics"], flush=True)


if __name__ == "__main__":
    main()
