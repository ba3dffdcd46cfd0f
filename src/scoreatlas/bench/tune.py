"""Which of the configurations tried on validation images is best: the rows of suites marked ``tuned``.

Tuning is a suite like any other, ``benchmarks/suites/tuning.toml``: its worlds hold validation images, its rows the
values tried, and ``scoreatlas bench run tuning`` computes what is missing. What is chosen is the configuration with the
greatest PSNR, averaged over all its cells; where a solver failed in a cell, its configuration is out.
"""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, final

from scoreatlas.bench.store import Store
from scoreatlas.bench.suite import BENCHMARKS, load
from scoreatlas.errors import AtlasError

SUITE, METRIC = "tuning", "psnr"


@final
@dataclass(frozen=True)
class Choice:
    """A solver's best configuration.

    Attributes:
        solver: its name.
        fields: the best of those tried.
        score: its PSNR in dB, mean over the cells.
        tried: every configuration by repr, with its score; None where it failed somewhere.
        at_edge: fields whose best value is the first or last of three or more tried: a wider grid might do better.
    """

    solver: str
    fields: dict[str, Any]
    score: float
    tried: dict[str, float | None]
    at_edge: tuple[str, ...]


def choices(profile: str = "quick", root: Path = BENCHMARKS) -> dict[str, Choice]:
    """The best configuration of every solver of the suite ``tuning``, by name.

    Raises:
        AtlasError: records are missing or damaged, or every configuration of a solver failed somewhere.
    """
    suite, records = load(SUITE, root), Store(root).all(SUITE, profile)
    scores: dict[str, list[float | None]] = {}
    for record in records.values():
        value = record.metrics[METRIC]["value"] if record.status == "ok" else None
        scores.setdefault(record.solver["repr"], []).append(value)
    found: dict[str, Choice] = {}
    for name in dict.fromkeys(type(e.solver).__name__ for e in suite.at(profile)):
        entries = {repr(e.solver): e for e in suite.at(profile) if type(e.solver).__name__ == name}
        if missing := [r for r in entries if r not in scores]:
            raise AtlasError(f"no record of {missing[0]}; run `scoreatlas bench run {SUITE}`")
        tried = {r: _mean(scores[r]) for r in entries}
        whole = {r: score for r, score in tried.items() if score is not None}
        if not whole:
            raise AtlasError(f"every configuration of {name} failed somewhere in suite {SUITE}")
        best = max(whole, key=lambda r: whole[r])
        fields = entries[best].fields
        edges = tuple(k for k in fields if _at_edge(k, fields, [e.fields for e in entries.values()]))
        found[name] = Choice(name, fields, whole[best], tried, edges)
    return found


def _mean(values: list[float | None]) -> float | None:
    present = [v for v in values if v is not None]
    return fmean(present) if len(present) == len(values) else None


def _at_edge(field: str, best: dict[str, Any], tried: list[dict[str, Any]]) -> bool:
    values = {fields.get(field) for fields in tried}
    numbers = sorted(v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool))
    return len(numbers) > 2 and best[field] in (numbers[0], numbers[-1])
