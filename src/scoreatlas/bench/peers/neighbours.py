"""Does an answer depend on what else is in the batch? A small record beside the table of the comparison.

Each solver restores one digit twice, in batches of two: the random numbers, the first digit and its data are the same,
the second digit is another. A method whose rows are independent gives the first digit the same answer both times.
``python -m scoreatlas.bench.peers.neighbours`` measures and writes the record; it needs the extra ``peers``.
"""

from pathlib import Path
from typing import Any

import torch

from scoreatlas.bench import store
from scoreatlas.bench.cell import instance
from scoreatlas.bench.peers.record import PROFILE
from scoreatlas.bench.suite import BENCHMARKS
from scoreatlas.bench.tasks import task
from scoreatlas.bench.worlds import world
from scoreatlas.errors import AtlasError
from scoreatlas.measurement import Measurement
from scoreatlas.metrics.distortion import psnr
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver

REMEDY = "python -m scoreatlas.bench.peers.neighbours"
TASK, STEPS = "sr4", 50
NAMES = ("AzulaDPS", "DeepinvDPS", "DPS")


def path(root: Path = BENCHMARKS) -> Path:
    """Where the record is."""
    return root / "results" / PROFILE / "peers" / "neighbours.json"


def load(root: Path = BENCHMARKS) -> dict[str, Any]:
    """The record.

    Raises:
        AtlasError: it is missing, truncated or altered.
    """
    if not path(root).exists():
        raise AtlasError(f"{path(root)} is missing: run `{REMEDY}`")
    return store.read(path(root), f"delete it and run `{REMEDY}`")


def dependence(solver: Solver[Any, Any]) -> dict[str, Any]:
    """Answers for the first digit beside either neighbour, their root mean square difference, and the PSNR of each."""
    w = world("digits")
    problems = instance(w, task(TASK), 0, 3)
    answers = []
    for other in (1, 2):
        m = Measurement(problems.m.y[[0, other]], problems.m.A, problems.m.noise)
        answers.append(solver(m, w.priors[0], Rng([0, 1], dtype=w.dtype))[0])
    a, b = answers
    return {
        "difference": float((a - b).square().mean().sqrt()),
        "psnr": [float(psnr(x[None], problems.truth[:1])) for x in answers],
        "answers": [[[round(float(v), 3) for v in row] for row in x[0]] for x in answers],
    }


def measure() -> dict[str, Any]:
    """The record's content: one entry a solver, and where it comes from."""
    from scoreatlas.peers.azula import AzulaDPS
    from scoreatlas.peers.deepinv import DeepinvDPS
    from scoreatlas.solvers.guidance.dps import DPS

    solvers: dict[str, Solver[Any, Any]] = {
        "AzulaDPS": AzulaDPS(steps=STEPS), "DeepinvDPS": DeepinvDPS(steps=STEPS), "DPS": DPS(steps=STEPS),
    }  # fmt: skip
    found = {name: dependence(solver) for name, solver in solvers.items()}
    return {"solvers": found, "task": TASK, "steps": STEPS, "torch": torch.__version__}


if __name__ == "__main__":
    store.write(path(), measure())
