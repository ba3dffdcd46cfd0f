"""What is measured of each row.

Exactness: the prior N(0, 0.5² I) on [-1, 1], 4 x 4 pixels, every second one seen with noise 0.2;
float64. Quality: learned digits, test images, a missing box and means of 4 x 4 blocks, noise 0.05,
the same data for all; as many steps as make the same number of network calls. Overhead: inpainting
of 32 x 32 pixels, batches of 8, float32, with a denoiser that costs nothing. Times are processor
times of one core.
"""

import dataclasses
import math
import statistics
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import torch

from scoreatlas import data
from scoreatlas.bench.catalogue import why_not
from scoreatlas.bench.cell import Cell, Instance, World, instance
from scoreatlas.bench.compute import solve
from scoreatlas.bench.cost import Cost, null, operations, seconds, timing, with_steps
from scoreatlas.bench.counting import Counter, counted_prior
from scoreatlas.bench.ledger import Ledger
from scoreatlas.bench.peers.rows import Row
from scoreatlas.bench.suite import Profile
from scoreatlas.bench.tasks import task
from scoreatlas.bench.worlds import world
from scoreatlas.errors import AtlasError
from scoreatlas.measurement import Gaussian, Measurement, simulate
from scoreatlas.metrics.distortion import psnr, residual
from scoreatlas.metrics.estimate import Estimate, mean_interval
from scoreatlas.metrics.posterior import bias, split_directions, spread_ratio
from scoreatlas.operators.inpainting import Inpainting, random_mask
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.mixture import gaussian
from scoreatlas.rng import Rng
from scoreatlas.samplers.ancestral import DDIM, DDPM
from scoreatlas.samplers.ode import Heun, Uniform
from scoreatlas.schedules import VP
from scoreatlas.solvers.base import Solver

BUDGET = 100  # network calls
PROBLEMS, SAMPLES = 4, 500  # on the Gaussian, and of each
TASKS, SEEDS, IMAGES = ("inpaint", "sr4"), (0, 1, 2), 4  # images for each seed
STEPS = 50  # of a sampler
REPEATS = 5  # of a timing
SIZE = {
    "budget": BUDGET, "problems": PROBLEMS, "samples": SAMPLES, "images": IMAGES * len(SEEDS), "seeds": len(SEEDS),
    "repeats": REPEATS,
}  # fmt: skip
SHORT, LONG = "half, at the budget", "half, long run"  # tasks on the Gaussian
CPU = torch.device("cpu")
T = TypeVar("T")


def cell(
    place: tuple[str, str, str], e: Estimate | None, seeds: int = 1, failed: int = 0, note: str = "", values: Any = None
) -> dict[str, Any]:
    """One number of the record: world, task, metric, the number with its interval, and the values behind it."""
    number = {"value": None, "low": None, "high": None} if e is None else e._asdict()
    named = dict(zip(("world", "task", "metric"), place, strict=True))
    return named | number | {"seeds": seeds, "failed": failed, "note": note, "values": values}


def at_budget(solver: Solver[Any, Any]) -> Solver[Any, Any]:
    """The same method with as many steps as make ``BUDGET`` network calls.

    Raises:
        AtlasError: no number of steps near the budget does.
    """
    m, prior = _inpainting(1), DiffusionPrior(null, VP(), (1, 32, 32))
    for steps in (BUDGET, BUDGET + 1, BUDGET - 1, BUDGET // 2):
        trial, counter = with_steps(solver, steps), Counter()
        trial(m, counted_prior(prior, counter), Rng([0]))
        if counter.denoiser == BUDGET:
            return trial
    raise AtlasError(f"no number of steps gives {solver!r} {BUDGET} network calls")


def exactness(solver: Solver[Any, Any] | None, name: str) -> list[dict[str, Any]]:
    """Bias (root mean square, in posterior standard deviations) and spread ratio; without a solver, of exact samples.

    Means over problems with 95 % intervals. Independent samples alone give a bias of about 1 / sqrt(SAMPLES).
    """
    shape, dtype = (1, 4, 4), torch.float64
    p = gaussian(torch.zeros(shape, dtype=dtype), torch.tensor(0.25, dtype=dtype))
    A = Inpainting((torch.arange(16) % 2 == 0).reshape(shape), dtype)
    truth = p.sample(Rng(range(PROBLEMS), dtype=dtype))
    m = simulate(truth, A, Gaussian(0.2), Rng(range(100, 100 + PROBLEMS), dtype=dtype))
    exact = [p.posterior(m, i) for i in range(PROBLEMS)]  # type: ignore[arg-type]
    counter, x = Counter(), torch.cat([e.sample(Rng([200 + i], SAMPLES, dtype=dtype)) for i, e in enumerate(exact)])
    if solver is not None:
        prior = counted_prior(DiffusionPrior(p, VP(), shape), counter)
        x = solver(m.repeat(SAMPLES), prior, Rng(range(PROBLEMS), SAMPLES, dtype=dtype))
    found: dict[str, list[float]] = {}
    for i, e in enumerate(exact):
        mean, covariance, own = e.mean().flatten(), e.covariance(), x[i * SAMPLES : (i + 1) * SAMPLES]
        for group, basis in split_directions(A)._asdict().items():
            found.setdefault(f"bias_{group}", []).append(float(bias(own, mean, covariance, basis)))
            found.setdefault(f"spread_{group}", []).append(float(spread_ratio(own, covariance, basis)))
    cells = [cell(("gaussian", name, metric), mean_interval(v), values=v) for metric, v in found.items()]
    calls = Estimate(counter.denoiser, math.nan, math.nan)
    return [*cells, cell(("gaussian", name, "cost.denoiser_calls"), calls)]


def left_out(name: str, why: str) -> list[dict[str, Any]]:
    """The numbers of :func:`exactness`, with the reason why there are none."""
    names = [f"{what}_{where}" for where in ("observed", "unobserved") for what in ("bias", "spread")]
    return [cell(("gaussian", name, metric), None, 0, note=why) for metric in (*names, "cost.denoiser_calls")]


def quality(solver: Solver[Any, Any]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """PSNR and residual on digits, intervals over images; seconds, intervals over runs; and the calls of one run."""
    w, calls = world("digits"), dict[str, int]()
    cells, spent = list[dict[str, Any]](), list[float]()
    for name in TASKS:
        reason, errors = why_not(solver, w, task(name)), list[str]()
        found: dict[str, list[float]] = {"psnr": [], "residual": []}
        for seed in SEEDS if reason is None else ():
            problems = _instance(w, name, seed)
            try:
                (x, cost), time = _timed(lambda: solve(Cell(w, task(name), solver, seed), problems, _profile(), "cpu"))  # noqa: B023
                if not x.isfinite().all():
                    raise ArithmeticError("not finite")
            except Exception as error:  # a method that fails is a result like any other
                errors.append(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
                continue
            found["psnr"] += psnr(x, problems.truth).tolist()
            found["residual"] += residual(problems.m, x).tolist()
            spent.append(time)
            calls = {k: round(cost[k] or 0) for k in ("denoiser_calls", "vjps")}
        ok = len(SEEDS) - len(errors) if reason is None else 0
        note = reason or "; ".join(sorted(set(errors)))
        for metric, v in found.items():
            place = ("digits", name, metric)
            cells.append(cell(place, mean_interval(v) if v else None, ok, len(errors), note, v))
    place, why = ("digits", "both", "cost.seconds"), "" if spent else "no run"
    cells.append(cell(place, mean_interval(spent) if spent else None, len(SEEDS), note=why, values=spent))
    return cells, calls


def tuned(row: Row) -> tuple[dict[str, float], list[list[float]]]:
    """The value of ``row.tune`` with the highest PSNR on validation images, mean over tasks; and the PSNR of each."""
    assert row.tune is not None
    field, grid = row.tune
    images = data.digits("validation")[0]
    w = dataclasses.replace(world("digits"), truth=lambda n, generator: images[generator.permutation(len(images))[:n]])
    curve = []
    for value in grid:
        solver, found = at_budget(row.build(**{field: value})), []
        for name in TASKS:
            problems = instance(w, task(name), 0, IMAGES)
            x, _ = solve(Cell(w, task(name), solver, 0), problems, _profile(), "cpu")
            found += psnr(x, problems.truth).tolist()
        curve.append([value, statistics.fmean(found)])
    return {field: max(curve, key=lambda point: point[1])[0]}, curve


def overhead(solver: Solver[Any, Any], sampler: bool, theirs: bool) -> list[dict[str, Any]]:
    """Counts and milliseconds for each network call; ``conversions`` are those of our wrapper, and taken off.

    Setup is what a run at the budget costs beyond its calls, in operations.
    """
    m, prior = None if sampler else _inpainting(8), DiffusionPrior(null, VP(), (1, 32, 32))
    cost = operations(solver, m, prior, rows=8)
    spent = timing(solver, m, prior, steps=(10, 60), repeats=REPEATS, rows=8)
    extra = conversions(cost) if theirs else 0.0
    found = {
        "operations": cost.operations - extra, "conversions": extra, "views": cost.views, "syncs": cost.syncs,
        "cost.vjps": cost.vjps, "ms": spent.step - spent.network,
    }  # fmt: skip
    idle = 0.0 if sampler else solver.steps - BUDGET / cost.calls  # type: ignore[attr-defined]
    values = {name: v / cost.calls for name, v in found.items()}
    values["setup"] = cost.setup + idle * cost.operations  # at no calls, where Cost has it at no steps
    place = ("free", "nothing" if sampler else "inpaint")
    return [cell((*place, name), Estimate(v, math.nan, math.nan)) for name, v in values.items()]


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


def difference(name: str, theirs: Solver[Any, Any]) -> dict[str, Any]:
    """Largest difference of a sampler from ours, same grid and noise, float64, eight images of a Gaussian."""
    ours = {"DDPM": DDPM(steps=STEPS), "DDIM": DDIM(steps=STEPS), "Heun": Heun(steps=STEPS, grid=Uniform())}[name]
    p = gaussian(torch.full((1, 4, 4), 0.3, dtype=torch.float64), torch.tensor(0.25, dtype=torch.float64))
    prior = DiffusionPrior(p, VP(), (1, 4, 4))
    a, b = (s(None, prior, Rng([0], 8, dtype=torch.float64)) for s in (ours, theirs))
    return cell(("gaussian", "nothing", "difference"), Estimate(float((a - b).abs().max()), math.nan, math.nan))


def bare() -> float:
    """Seconds of ``BUDGET`` network calls on as many images as a run of :func:`quality` has, and nothing else."""
    prior = world("digits").priors[0]
    x, sigma = Rng(range(IMAGES)).normal(*prior.shape), torch.tensor(1.0)

    @torch.no_grad()
    def loop() -> None:
        for _ in range(BUDGET):
            prior.denoiser(x, sigma)

    return statistics.median(seconds(loop, CPU) for _ in range(len(SEEDS) + 1))


def digests() -> dict[str, str]:
    """sha256 of the data of each task and seed."""
    return {f"{name}/{seed}": _instance(world("digits"), name, seed).digest for name in TASKS for seed in SEEDS}


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    found: list[T] = []
    spent = seconds(lambda: found.append(work()), CPU)
    return found[0], spent


@cache
def _instance(w: World, name: str, seed: int) -> Instance:
    return instance(w, task(name), seed, IMAGES)


def _profile() -> Profile:
    return Profile("quick", SEEDS, IMAGES, 1, IMAGES)


def _inpainting(rows: int) -> Measurement[Any, Any]:
    A = Inpainting(random_mask((1, 32, 32), 0.5, Rng([1])))
    return simulate(torch.zeros(rows, 1, 32, 32), A, Gaussian(0.1), Rng([2], rows))
