"""From records to the cells of a table: means over seeds, with failures counted and gaps explained."""

import dataclasses
import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from scipy.stats import t as student

from scoreatlas.bench.catalogue import why_not
from scoreatlas.bench.labels import LABELS
from scoreatlas.bench.store import Record, Store
from scoreatlas.bench.suite import BENCHMARKS, Entry, Suite, TableSpec, load, suites
from scoreatlas.bench.tasks import task
from scoreatlas.bench.worlds import outline
from scoreatlas.errors import AtlasError
from scoreatlas.metrics.estimate import Estimate, mean_interval

Place = tuple[str, str, str]  # world, task, metric


class Shown(NamedTuple):
    """One cell of a table.

    Attributes:
        estimate: mean over seeds; None if there is no number.
        seeds: how many gave one.
        failed: how many raised or were not finite.
        note: why there is no number, else empty.
    """

    estimate: Estimate | None
    seeds: int
    failed: int
    note: str

    @property
    def text(self) -> str:
        """As a table prints it."""
        if self.estimate is None:
            return f"failed ({self.failed} of {self.failed})" if self.failed else self.note
        mark = f" ({self.failed} of {self.failed + self.seeds} failed)" if self.failed else ""
        return number(self.estimate) + mark


@dataclass(frozen=True)
class Grid:
    """A table before it is written down, in one profile.

    Attributes:
        spec: what is shown.
        suite: the suite it belongs to.
        profile: of all its records.
        records: of the suite in this profile, by key.
    """

    spec: TableSpec
    suite: Suite
    profile: str
    records: dict[str, Record]

    @cached_property
    def entries(self) -> list[Entry]:
        """The rows: what the table asks for and applies somewhere in it."""
        wanted = self.spec.solvers
        chosen = [e for e in self.suite.at(self.profile) if not wanted or type(e.solver).__name__ in wanted]
        return [e for e in chosen if any(self.of(e, w, t) or not _reason(e, w, t) for w, t in self.pairs)]

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """(world, task) of the columns."""
        s = self.spec
        return [
            (w, t)
            for w, t in self.suite.pairs(self.profile)
            if (not s.worlds or w in s.worlds) and (not s.tasks or t in s.tasks)
        ]

    @cached_property
    def places(self) -> list[Place]:
        """The columns: metrics that no record of a (world, task) has are left out there."""
        seen = {(r.world, r.task, name) for r in self.shown for name in (*r.metrics, *(f"cost.{c}" for c in r.cost))}
        return [(w, t, name) for w, t in self.pairs for name in self.spec.metrics if (w, t, name) in seen]

    @cached_property
    def shown(self) -> list[Record]:
        """The records behind the table."""
        reprs, pairs = {repr(e.solver) for e in self.entries}, set(self.pairs)
        return [r for r in self.records.values() if r.solver["repr"] in reprs and (r.world, r.task) in pairs]

    def of(self, entry: Entry, world_name: str, task_name: str) -> list[Record]:
        """The records of one row in one (world, task), by seed."""
        seeds = self.suite.profile(self.profile).seeds
        keys = [f"{world_name}/{task_name}/{entry.solver!r}/{seed}" for seed in seeds]
        return [self.records[key] for key in keys if key in self.records]

    def cell(self, entry: Entry, place: Place) -> Shown:
        """One cell, Student's t: over the images of all seeds where a record is a mean over images, else over seeds."""
        world_name, task_name, metric = place
        records = self.of(entry, world_name, task_name)
        failed = sum(r.status != "ok" for r in records)
        found = [e for r in records if r.status == "ok" and (e := value(r, metric)) is not None]
        if found:
            estimate = pooled(found, self.suite.profile(self.profile).problems)
            return Shown(estimate, len(found), failed, "")
        if records:
            return Shown(None, 0, failed, "" if failed else "no value")
        return Shown(None, 0, 0, _reason(entry, world_name, task_name) or "not run")

    def floor(self, place: Place) -> Shown:
        """The metric between two exact sample sets, mean over seeds."""
        world_name, task_name, metric = place
        by_seed = {
            r.seed: r.floor[metric]
            for r in self.shown
            if (r.world, r.task) == (world_name, task_name) and metric in r.floor
        }
        values = [v for v in by_seed.values() if v is not None]
        return Shown(mean_interval(values) if values else None, len(values), 0, "" if values else "no exact posterior")


def grid(id: str, profile: str, root: Path = BENCHMARKS) -> Grid:
    """The table of that id.

    Raises:
        AtlasError: there is no such table or profile, or a record is truncated or altered.
    """
    specs = specifications(root)
    if id not in specs:
        raise AtlasError(f"no table {id!r}; there are {', '.join(sorted(specs)) or 'none'}")
    suite = load(specs[id].suite, root)
    suite.profile(profile)
    return Grid(specs[id], suite, profile, Store(root).all(suite.name, profile))


def specifications(root: Path = BENCHMARKS) -> dict[str, TableSpec]:
    """Every table of every suite by id.

    Raises:
        AtlasError: two suites use one id, or a table shows a metric that does not exist.
    """
    found: dict[str, TableSpec] = {}
    for spec in (spec for name in suites(root) for spec in load(name, root).tables):
        if spec.id in found:
            raise AtlasError(f"table id {spec.id!r} is used by suites {found[spec.id].suite} and {spec.suite}")
        if unknown := [m for m in spec.metrics if m not in LABELS]:
            raise AtlasError(f"table {spec.id!r}: no metric {unknown[0]!r}; there are {', '.join(LABELS)}")
        found[spec.id] = spec
    return found


def value(record: Record, metric: str) -> Estimate | None:
    """A metric, or a cost as ``cost.seconds``; None if the record has it not."""
    if metric.startswith("cost."):
        cost = record.cost.get(metric.removeprefix("cost."))
        return None if cost is None else Estimate(cost, math.nan, math.nan)
    if metric not in record.metrics:
        return None
    row = {k: math.nan if v is None else v for k, v in record.metrics[metric].items()}
    return Estimate(row["value"], row["low"], row["high"])


def pooled(found: list[Estimate], size: int) -> Estimate:
    """Mean and 95 % interval of all the values behind several means of ``size`` values each.

    The spread inside each group is read back from its own t interval, the spread between groups from
    the means: together they are the sum of squares of the ``size * len(found)`` values. Groups
    without an interval (one value each, or a cost) count as single values.
    """
    if len(found) == 1:
        return found[0]
    if size < 2 or any(math.isnan(e.low) for e in found):
        return mean_interval([e.value for e in found])
    n, mean = size * len(found), sum(e.value for e in found) / len(found)
    inside = sum(size * (e.half_width / student.ppf(0.975, size - 1)) ** 2 for e in found)  # variances of values
    squares = (size - 1) * inside + size * sum((e.value - mean) ** 2 for e in found)
    half = float(student.ppf(0.975, n - 1)) * math.sqrt(squares / (n - 1) / n)
    return Estimate(mean, mean - half, mean + half)


def _reason(entry: Entry, world_name: str, task_name: str) -> str | None:
    return why_not(entry.solver, outline(world_name), task(task_name))


def brief(entry: Entry) -> str:
    """What a reader needs of the settings: steps, what differs from the class's defaults, and whose choice it is."""
    solver: Any = entry.solver
    told = {f.name: getattr(solver, f.name) for f in dataclasses.fields(solver) if f.name == "steps"}
    told |= {f.name: v for f in dataclasses.fields(solver) if (v := getattr(solver, f.name)) != f.default}
    return " ".join(filter(None, [", ".join(f"{k}={v!r}" for k, v in told.items()), f"({entry.source})"]))


def settings(text: str) -> str:
    """The fields inside the repr of a solver."""
    return re.sub(r"^\w+\((.*)\)$", r"\1", text)


def number(e: Estimate) -> str:
    """Value and half-width, rounded to two digits of the half-width; if there is none, a count or three digits.

    What is below 1e-9 is rounding: a value prints as 0, a half-width not at all.
    """
    half = e.half_width
    if abs(e.value) < 1e-9:
        return "0"
    if not half > 1e-9 * max(1.0, abs(e.value)):  # NaN too
        return f"{e.value:.0f}" if float(e.value).is_integer() else f"{e.value:.3g}"
    digits = max(0, 1 - math.floor(math.log10(half)))
    return f"{e.value:.{digits}f} ± {half:.{digits}f}"
