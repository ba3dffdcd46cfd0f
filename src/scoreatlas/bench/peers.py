"""Ours and theirs in one run: exactness on a Gaussian, operations, synchronisations and milliseconds a step.

``python -m scoreatlas.bench.peers`` measures and writes ``benchmarks/results/PROFILE/peers/table.json``;
it needs the extra ``peers``. Reading the record does not.

Exactness: the prior N(0, 0.5² I) on [-1, 1], which is N(0.5, 0.25² I) on [0, 1], 4 x 4 pixels, every
second one seen with noise 0.2 (0.1 on [0, 1]); float64. Cost: inpainting of 32 x 32 pixels, batches
of 8, float32, with a denoiser that costs nothing; milliseconds of processor time.
"""

import argparse
import datetime
import json
import math
import statistics
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from scoreatlas import peers
from scoreatlas.bench.compute import _commit
from scoreatlas.bench.cost import Cost, null, operations, timing
from scoreatlas.bench.fingerprint import source_hash
from scoreatlas.bench.ledger import Ledger
from scoreatlas.bench.suite import BENCHMARKS
from scoreatlas.errors import AtlasError
from scoreatlas.measurement import Gaussian, Measurement, simulate
from scoreatlas.metrics.posterior import bias, split_directions, spread_ratio
from scoreatlas.operators.inpainting import Inpainting, random_mask
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.mixture import gaussian
from scoreatlas.rng import Rng
from scoreatlas.samplers.ancestral import DDIM, DDPM
from scoreatlas.samplers.ode import Heun, Uniform
from scoreatlas.schedules import VP
from scoreatlas.solvers.base import Solver
from scoreatlas.solvers.guidance.dps import DPS
from scoreatlas.solvers.guidance.pigdm import PiGDM
from scoreatlas.solvers.projection.ddnm import DDNM
from scoreatlas.solvers.projection.ddrm import DDRM
from scoreatlas.solvers.splitting.diffpir import DiffPIR

PROBLEMS = 4
SAMPLES = {"quick": 500, "full": 5000}  # of each problem
HOST = "keeps its constants on the host, where reading them waits for nothing: an upper bound"


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        method: what it is called.
        library: "ours", or whose.
        solver: what is run.
        note: what a reader should know, else empty.
    """

    method: str
    library: str
    solver: Solver[Any, Any]
    note: str = ""


def rows() -> list[Row]:
    """The lines of the table, ours before theirs.

    Raises:
        AtlasError: a library of the extra is missing.
    """
    there = peers.available()
    if missing := [n for n in peers.LIBRARIES if not any(c.__module__.endswith(n) for c in there.values())]:
        raise AtlasError(f"not installed: {', '.join(missing)}; pip install 'scoreatlas[peers]'")
    make = lambda name, **fields: there[name](**fields)  # noqa: E731
    return [
        Row("DPS", "ours", DPS()),
        Row("DPS", "deepinv", make("DeepinvDPS"), "ignores the data at its default weight"),
        Row("DPS", "deepinv", make("DeepinvDPS", guidance="annealed"), "the step knows sigma_y"),
        Row("DPS", "azula", make("AzulaDPS", steps=1000), "norm over the batch"),
        Row("ΠGDM", "ours", PiGDM(steps=1000)),
        Row("ΠGDM", "ours", PiGDM(steps=1000, prior_std=0.5), "told the prior's standard deviation"),
        Row("ΠGDM", "deepinv", make("DeepinvPiGDM")),
        Row("ΠGDM", "azula", make("AzulaPGDM", steps=1000), "takes no sigma_y"),
        Row("MMPS", "deepinv", make("DeepinvMMPS")),
        Row("MMPS", "azula", make("AzulaMMPS", steps=1000)),
        Row("TMPD", "azula", make("AzulaTMPD", steps=1000)),
        Row("ALD", "deepinv", make("DeepinvALD")),
        Row("ILVR", "deepinv", make("DeepinvILVR")),
        Row("DDRM", "ours", DDRM(steps=100)),
        Row("DDRM", "deepinv", make("DeepinvDDRM"), "noise divided by √2"),
        Row("DDNM+", "ours", DDNM()),
        Row("DiffPIR", "ours", DiffPIR()),
        Row("DiffPIR", "deepinv", make("DeepinvDiffPIR")),
        Row("DiffPIR", "azula", make("AzulaDiffPIR", steps=100)),
        Row("DDPM", "ours", DDPM(steps=50)),
        Row("DDPM", "diffusers", make("DiffusersDDPM", steps=50), HOST),
        Row("DDIM", "ours", DDIM(steps=50)),
        Row("DDIM", "diffusers", make("DiffusersDDIM", steps=50), HOST),
        Row("Heun", "ours", Heun(steps=50, grid=Uniform())),
        Row("Heun", "diffusers", make("DiffusersHeun", steps=50)),
    ]


def exactness(solver: Solver[Any, Any], samples: int, seed: int = 0) -> dict[str, float]:
    """Bias (in posterior standard deviations, root mean square) and spread ratio on the Gaussian world.

    Means over problems. Independent samples alone give a bias of 1 / sqrt(samples), the ``floor``.
    """
    shape, dtype = (1, 4, 4), torch.float64
    p = gaussian(torch.zeros(shape, dtype=dtype), torch.tensor(0.25, dtype=dtype))
    A = Inpainting((torch.arange(16) % 2 == 0).reshape(shape), dtype)
    truth = p.sample(Rng(range(seed, seed + PROBLEMS), dtype=dtype))
    m = simulate(truth, A, Gaussian(0.2), Rng(range(seed + 100, seed + 100 + PROBLEMS), dtype=dtype))
    x = solver(m.repeat(samples), DiffusionPrior(p, VP(), shape), Rng(range(PROBLEMS), samples, dtype=dtype))
    found: dict[str, list[float]] = {}
    for i in range(PROBLEMS):
        exact = p.posterior(m, i)  # type: ignore[arg-type]
        mean, covariance, own = exact.mean().flatten(), exact.covariance(), x[i * samples : (i + 1) * samples]
        for name, basis in split_directions(A)._asdict().items():
            found.setdefault(f"bias_{name}", []).append(float(bias(own, mean, covariance, basis)))
            found.setdefault(f"spread_{name}", []).append(float(spread_ratio(own, covariance, basis)))
    return {name: statistics.fmean(values) for name, values in found.items()} | {"floor": 1 / math.sqrt(samples)}


def parity(name: str, theirs: Solver[Any, Any]) -> float:
    """Largest difference of a sampler from ours, same grid and noise, float64, eight images of a mixture."""
    ours = {"DDPM": DDPM(steps=50), "DDIM": DDIM(steps=50), "Heun": Heun(steps=50, grid=Uniform())}[name]
    p = gaussian(torch.full((1, 4, 4), 0.3, dtype=torch.float64), torch.tensor(0.25, dtype=torch.float64))
    prior = DiffusionPrior(p, VP(), (1, 4, 4))
    a, b = (s(None, prior, Rng([0], 8, dtype=torch.float64)) for s in (ours, theirs))
    return float((a - b).abs().max())


def price(row: Row, repeats: int) -> dict[str, Any]:
    """Counts and milliseconds of a step; ``conversions`` are those of our wrapper and already taken off."""
    m: Measurement | None = None
    if row.method not in ("DDPM", "DDIM", "Heun"):
        A = Inpainting(random_mask((1, 32, 32), 0.5, Rng([1])))
        m = simulate(torch.zeros(8, 1, 32, 32), A, Gaussian(0.1), Rng([2], 8))
    prior = DiffusionPrior(null, VP(), (1, 32, 32))
    cost = operations(row.solver, m, prior, rows=8)
    spent = timing(row.solver, m, prior, steps=(10, 60), repeats=repeats, rows=8)
    extra = conversions(cost) if row.library == "deepinv" else 0.0
    return {
        "calls": cost.calls, "vjps": cost.vjps, "operations": cost.operations - extra, "conversions": extra,
        "views": cost.views, "syncs": cost.syncs, "stalls": cost.stalls, "setup": cost.setup,
        "peak_mb": cost.peak_mb, "ms": spent.step - spent.network,
    }  # fmt: skip


def conversions(cost: Cost) -> float:
    """Operations of a step that turn [-1, 1] into deepinv's [0, 1] and back: there and, for a vjp, again."""
    from scoreatlas.peers.deepinv import UnitRange

    unit = UnitRange(lambda x, sigma: x, torch.float32)
    x, sigma = torch.zeros(8, 1, 4, 4), torch.ones(8, 1, 1, 1)
    there, back = Ledger(), Ledger()
    with there.open(), torch.no_grad():
        unit(x, sigma)
    x.requires_grad_()
    out = unit(x, sigma)
    with back.open():
        torch.autograd.grad(out, x, torch.ones_like(out))
    return cost.calls * there.operations.total() + cost.vjps * (back.operations.total() - 1)  # less ones_like


def measure(profile: str, repeats: int = 5) -> dict[str, Any]:
    """The record: every row, and where it was made."""
    torch.set_num_threads(1)
    lines = []
    for row in rows():
        sampler = row.method in ("DDPM", "DDIM", "Heun")
        line: dict[str, Any] = {"method": row.method, "library": row.library, "note": row.note}
        line["solver"] = repr(row.solver)
        line["exact"] = None if sampler else exactness(row.solver, SAMPLES[profile])
        line["parity"] = parity(row.method, row.solver) if sampler and row.library != "ours" else None
        line["cost"] = price(row, repeats)
        lines.append(line)
        print(f"{row.method} ({row.library})", flush=True)
    modules = sorted({type(row.solver).__module__ for row in rows()})
    commit, dirty = _commit()
    told = {
        "profile": profile, "commit": commit, "dirty": dirty, "source_hash": source_hash(modules), "modules": modules,
        "versions": {n: _version(n) for n in ("torch", "torchvision", *peers.LIBRARIES)}, "device": "cpu", "threads": 1,
        "problems": PROBLEMS, "samples": SAMPLES[profile], "repeats": repeats,
        "utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    return {"rows": lines, "provenance": told}


def path(profile: str, root: Path = BENCHMARKS) -> Path:
    """Where the record of a profile is."""
    return root / "results" / profile / "peers" / "table.json"


def save(record: dict[str, Any], root: Path = BENCHMARKS) -> Path:
    """Write the record, whole or not at all."""
    target = path(record["provenance"]["profile"], root)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    partial.replace(target)
    return target


def load(profile: str = "quick", root: Path = BENCHMARKS) -> dict[str, Any]:
    """The record of a profile.

    Raises:
        AtlasError: there is none, or it cannot be read.
    """
    source = path(profile, root)
    try:
        return json.loads(source.read_text())
    except FileNotFoundError as error:
        raise AtlasError(f"{source} is missing: run `python -m scoreatlas.bench.peers --profile {profile}`") from error
    except ValueError as error:
        raise AtlasError(f"{source} is truncated or altered: run `python -m scoreatlas.bench.peers` again") from error


def stale(record: dict[str, Any]) -> bool:
    """Whether a solver, ours or a wrapper, has changed since; the libraries need not be there."""
    return record["provenance"]["source_hash"] != source_hash(record["provenance"]["modules"])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write, or check what is written."""
    parser = argparse.ArgumentParser(prog="python -m scoreatlas.bench.peers", description="Ours and theirs in one run.")
    parser.add_argument("--profile", choices=list(SAMPLES), default="quick")
    parser.add_argument("--check", action="store_true", help="only say whether the record is there and fresh")
    options = parser.parse_args(arguments)
    try:
        if not options.check:
            print(save(measure(options.profile)))
        elif stale(load(options.profile)):
            raise AtlasError(f"{path(options.profile)} is stale: run `python -m scoreatlas.bench.peers` again")
    except AtlasError as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
