"""What a step of a solver costs beyond the network: operations, synchronisations, memory, time.

Counts are taken below autograd, so they are the same on every machine. The denoiser stands between
two marks, forwards and backwards, and nothing between them counts as an operation: a null-cost
denoiser and a large network give the same number.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from scoreatlas.bench import counting
from scoreatlas.bench.ledger import Ledger, Unseen
from scoreatlas.errors import AtlasError
from scoreatlas.linalg import rows as per_row
from scoreatlas.measurement import Measurement
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver


def null(x: Tensor, sigma: Tensor, /) -> Tensor:
    """The denoiser of a standard normal prior, (b, *s) and sigma () or (b,): as good as free."""
    return x / per_row(1 + sigma**2, x)


@final
@dataclass(frozen=True)
class Cost:
    """What one more step costs; ``setup`` is what a run costs without any step.

    Attributes:
        calls, vjps: of the denoiser.
        operator_calls: as counted by :class:`~scoreatlas.bench.counting.Counter`.
        operations: aten operations outside the denoiser, forwards and backwards, those of the
            operator and views included.
        views: how many of them are views.
        syncs: stalls of the host, see :class:`Ledger`.
        names: operations by name.
        stalls: synchronisations by name.
        setup: operations at no steps, the intercept of the line through the two runs.
        peak_mb: largest live memory of the longer run beyond its inputs, MB (10^6 bytes).
    """

    calls: float
    vjps: float
    operator_calls: float
    operations: float
    views: float
    syncs: float
    names: dict[str, float]
    stalls: dict[str, float]
    setup: float
    peak_mb: float


def operations(
    solver: Solver[Any, Any],
    m: Measurement[Any, Any] | None,
    prior: Any,
    seeds: Sequence[int] = (0,),
    rows: int | None = None,
    steps: tuple[int, int] = (20, 40),
) -> Cost:
    """The cost of a step, as the difference of two runs that differ in their number of steps.

    Args:
        solver: with a field ``steps`` or ``iterations``, which is replaced.
        m: measurement; None for samplers.
        prior: what the solver takes; only a diffusion prior's calls are counted and left out.
        seeds: one problem each, with its own random stream: more seeds, more draws.
        rows: samples a problem; by default as many as the measurement has rows for each.
        steps: lengths of the two runs. Where the solver travels back in time, multiples of its jump.

    Raises:
        AtlasError: the solver has no number of steps.
    """
    runs = [_count(with_steps(solver, n), m, prior, seeds, rows) for n in (steps[0], *steps)][1:]  # the first warms up
    (a, first), (b, second) = runs
    span = steps[1] - steps[0]
    slope = lambda x, y: {k: (y[k] - x[k]) / span for k in sorted(x | y) if y[k] != x[k]}  # noqa: E731
    names, stalls = slope(a.operations, b.operations), slope(a.stalls, b.stalls)
    total = sum(names.values())
    return Cost(
        calls=(second.denoiser - first.denoiser) / span,
        vjps=(second.vjps - first.vjps) / span,
        operator_calls=(second.operator - first.operator) / span,
        operations=total,
        views=(b.views - a.views) / span,
        syncs=sum(stalls.values()),
        names=names,
        stalls=stalls,
        setup=a.operations.total() - steps[0] * total,
        peak_mb=b.peak / 1e6,
    )


def with_steps(solver: Solver[Any, Any], n: int) -> Solver[Any, Any]:
    """The same method with ``n`` steps.

    Raises:
        AtlasError: it has no number of steps.
    """
    assert dataclasses.is_dataclass(solver)
    for name in ("steps", "iterations"):
        if name in {f.name for f in dataclasses.fields(solver)}:
            return dataclasses.replace(solver, **{name: n})
    raise AtlasError(f"{type(solver).__name__} has no field steps or iterations: it costs no step")


def _count(
    solver: Solver[Any, Any], m: Measurement[Any, Any] | None, prior: Any, seeds: Sequence[int], rows: int | None
) -> tuple[Ledger, counting.Counter]:
    ledger, counter = Ledger(), counting.Counter()
    if m is not None:
        m = dataclasses.replace(m, A=counting.counted_operator(m.A, counter))
    if isinstance(prior, DiffusionPrior):
        prior = dataclasses.replace(prior, denoiser=Unseen(prior.denoiser, ledger, counter))
    rng = _streams(m, seeds, rows)
    with ledger.open():
        solver(m, prior, rng)
    return ledger, counter


def _streams(m: Measurement[Any, Any] | None, seeds: Sequence[int], rows: int | None) -> Rng:
    if m is None:
        return Rng(seeds, rows or 1)
    dtype = m.y.dtype.to_real()
    return Rng(seeds, rows or len(m.y) // len(seeds), device=m.y.device, dtype=dtype)


class Timing(NamedTuple):
    """Milliseconds, medians over repeats; of what clock, see :func:`seconds`.

    Attributes:
        step: of one step, network included.
        network: of the denoiser calls of one step in a bare loop, without gradients.
    """

    step: float
    network: float

    @property
    def over(self) -> float:
        """How many times the bare network loop."""
        return self.step / self.network


def timing(
    solver: Solver[Any, Any],
    m: Measurement[Any, Any] | None,
    prior: DiffusionPrior,
    seeds: Sequence[int] = (0,),
    steps: tuple[int, int] = (4, 12),
    repeats: int = 3,
    rows: int | None = None,
) -> Timing:
    """Time of a step by differencing two runs, beside a bare loop of as many denoiser calls.

    The two are timed in turn, so that a busy machine slows both. Arguments as :func:`operations`.
    """
    short, long = (with_steps(solver, n) for n in steps)
    span, rng = steps[1] - steps[0], _streams(m, seeds, rows)
    calls = _calls(long, m, prior, rng) - _calls(short, m, prior, rng)  # warms up as well
    x = prior.initial(rng)
    sigma = x.new_full((), 1.0)

    @torch.no_grad()
    def loop() -> None:
        for _ in range(calls):
            prior.denoiser(x, sigma)

    whole, bare = [], []
    for _ in range(repeats):
        few = seconds(lambda: short(m, prior, _streams(m, seeds, rows)), x.device)
        many = seconds(lambda: long(m, prior, _streams(m, seeds, rows)), x.device)
        whole.append((many - few) / span)
        bare.append(seconds(loop, x.device) / span)
    return Timing(1e3 * statistics.median(whole), 1e3 * statistics.median(bare))


def _calls(solver: Solver[Any, Any], m: Measurement[Any, Any] | None, prior: DiffusionPrior, rng: Rng) -> int:
    counter = counting.Counter()
    solver(m, counting.counted_prior(prior, counter), rng)
    return counter.denoiser


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """How long ``work`` takes: the clock on the wall for a GPU; on a CPU processor time, which other people's work on a
    shared machine does not lengthen as much."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    began = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - began
