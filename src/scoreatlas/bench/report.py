"""Tables and data frames made of records: the face of the benchmarks towards chapters and pages."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from scoreatlas.bench import sources
from scoreatlas.bench.aggregate import settings
from scoreatlas.bench.export import to_bibtex, to_csv, to_latex, to_markdown
from scoreatlas.bench.store import Record, Store
from scoreatlas.bench.suite import BENCHMARKS, TableSpec, load

__all__ = ["frame", "provenance", "table", "tables", "to_bibtex", "to_csv", "to_latex", "to_markdown"]


def tables(root: Path = BENCHMARKS) -> dict[str, TableSpec]:
    """Every table by its id, with suite, caption and metrics."""
    return sources.specifications(root)


def table(id: str, profile: str = "quick", root: Path = BENCHMARKS) -> pd.DataFrame:
    """A table as it is printed; empty if there are no records.

    Columns: those of words, then one per world, task and metric: the number with half of its 95 %
    interval and the count of failures, or why there is nothing. ``frame.attrs["raw"]`` has the bare
    numbers and ``frame.attrs["best"]`` marks the best of each column, in frames of the same shape.

    Raises:
        AtlasError: unknown table or profile, or a truncated or altered record.
    """
    return sources.sheet(id, profile, root).frame


def provenance(id: str, profile: str = "quick", root: Path = BENCHMARKS) -> dict[str, Any]:
    """Where the numbers of a table come from, in words and counts."""
    return sources.sheet(id, profile, root).provenance


def frame(suite: str, profile: str = "quick", root: Path = BENCHMARKS) -> pd.DataFrame:
    """Every record of a suite in long form: one row per cell and metric, costs beside it.

    A cell that failed has one row with an empty metric.

    Raises:
        AtlasError: unknown suite or profile, or a truncated or altered record.
    """
    load(suite, root).profile(profile)
    rows = [row for record in Store(root).all(suite, profile).values() for row in _long(record)]
    return pd.DataFrame(rows)


def _long(record: Record) -> Iterator[dict[str, Any]]:
    told = {
        "suite": record.suite, "profile": record.profile, "world": record.world, "task": record.task,
        "solver": record.solver["name"], "settings": settings(record.solver["repr"]),
        "source": record.solver["source"], **{f"field.{k}": v for k, v in record.solver["fields"].items()},
        "seed": record.seed, "status": record.status, "error": record.error, **record.cost,
    }  # fmt: skip
    for name, e in record.metrics.items():
        yield told | {"metric": name, **e, "floor": record.floor.get(name)}
    if not record.metrics:
        yield told | {"metric": None, "value": math.nan, "low": math.nan, "high": math.nan, "floor": None}
