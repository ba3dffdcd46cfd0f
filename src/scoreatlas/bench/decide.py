"""Which method when: what the records of a suite say of each problem, and where a method has nothing to say."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

from scoreatlas.bench.aggregate import Grid, Shown, brief, number
from scoreatlas.bench.store import Store
from scoreatlas.bench.suite import BENCHMARKS, Entry, TableSpec, load

Pair = tuple[str, str]  # world, task
WELL = (0.9, 1.1)  # residuals, in units of sigma_y, that neither ignore data nor fit noise


class Pick(NamedTuple):
    """A row of a suite chosen for a problem.

    Attributes:
        entry: the row.
        shown: its number.
        calls: network calls of one chain.
        tied: how many further rows have intervals that reach this one's value.
    """

    entry: Entry
    shown: Shown
    calls: float
    tied: int

    @property
    def text(self) -> str:
        """Solver, settings that differ from the defaults, number, ties."""
        assert self.shown.estimate is not None
        others = f", {self.tied} tied" if self.tied else ""
        return f"**{type(self.entry.solver).__name__}** {number(self.shown.estimate)}{others}"


@final
@dataclass(frozen=True)
class Decision:
    """The records of one suite, asked.

    Attributes:
        grid: its records in rows and columns.
    """

    grid: Grid

    def pairs(self) -> list[Pair]:
        """Problems with a record."""
        there = {(r.world, r.task) for r in self.grid.records.values()}
        return [p for p in self.grid.pairs if p in there]

    def shown(self, entry: Entry, pair: Pair, metric: str) -> Shown:
        """One number, or the reason why there is none."""
        return self.grid.cell(entry, (*pair, metric))

    def calls(self, entry: Entry, pair: Pair) -> float:
        """Network calls of one chain."""
        found = [r.cost.get("denoiser_calls") or 0 for r in self.grid.of(entry, *pair) if r.cost]
        return max(found, default=0)

    def rows(self, pair: Pair, metric: str) -> list[Pick]:
        """Every row that has the metric on a problem and never failed there."""
        found = []
        for entry in self.grid.entries:
            shown = self.shown(entry, pair, metric)
            if shown.estimate is not None and not shown.failed:
                found.append(Pick(entry, shown, self.calls(entry, pair), 0))
        return found

    def best(self, pair: Pair, metric: str, largest: bool) -> Pick | None:
        """The row with the greatest (or least) mean, and how many cannot be told from it by their intervals."""
        rows = self.rows(pair, metric)
        if not rows:
            return None
        sign = 1 if largest else -1
        best = max(rows, key=lambda r: sign * _value(r))
        tied = sum(_reaches(r, _value(best), sign) for r in rows if r.entry is not best.entry)
        return best._replace(tied=tied)

    def cheapest(self, pair: Pair, within: float = 1.0) -> Pick | None:
        """Of the rows within so many dB of the best PSNR, the one with the fewest network calls."""
        best = self.best(pair, "psnr", True)
        if best is None:
            return None
        near = [r for r in self.rows(pair, "psnr") if _value(r) > _value(best) - within]
        return min(near, key=lambda r: (r.calls, -_value(r)))

    def sampler(self, pair: Pair) -> Pick | None:
        """Of the rows that fit the data as the truth does, the one whose samples cover the truth most nearly as often
        as they should: what to take if the spread matters."""
        fair = {id(r.entry) for r in self.rows(pair, "residual") if WELL[0] <= _value(r) <= WELL[1]}
        rows = [r for r in self.rows(pair, "range_coverage") if id(r.entry) in fair and _value(r) > 0]
        return min(rows, key=lambda r: abs(_value(r) - 1), default=None)


def decision(suite: str = "images", profile: str = "quick", root: Path = BENCHMARKS) -> Decision:
    """What a suite's records say.

    Raises:
        AtlasError: there is no such suite or profile, or a record is truncated or altered.
    """
    loaded = load(suite, root)
    loaded.profile(profile)
    spec = TableSpec("decision", suite, "", ("psnr",))
    return Decision(Grid(spec, loaded, profile, Store(root).all(suite, profile)))


def label(entry: Entry) -> str:
    """A row's name with what differs from its class's defaults."""
    return f"{type(entry.solver).__name__} {brief(entry)}"


def _value(pick: Pick) -> float:
    assert pick.shown.estimate is not None
    return pick.shown.estimate.value


def _reaches(pick: Pick, value: float, sign: int) -> bool:
    e = pick.shown.estimate
    assert e is not None
    return (e.high if sign > 0 else -e.low) >= sign * value
