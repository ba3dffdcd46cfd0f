"""The table of a suite: a sheet made of its records."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, final

from scoreatlas.bench.aggregate import Grid, Shown, brief, grid, settings
from scoreatlas.bench.labels import LABELS
from scoreatlas.bench.sheet import Column, Line, Sheet, titles
from scoreatlas.bench.suite import BENCHMARKS, Entry

NOTHING = Shown(None, 0, 0, "")  # a metric that a world does not have


@dataclass(frozen=True)
class RecordSheet(Sheet):
    """A table of a suite, in either layout.

    Attributes:
        grid: the records in rows and columns.
    """

    grid: Grid
    told_heads: ClassVar[tuple[str, ...]] = ("solver", "settings", "source")

    @property
    def provenance(self) -> dict[str, Any]:
        records = self.grid.shown
        told = [r.provenance for r in records]
        dates = sorted({p["utc"][:10] for p in told})
        commits = sorted({p["commit"][:10] + ("+changes" if p["dirty"] else "") for p in told})
        join = lambda name: ", ".join(sorted({str(p[name]) for p in told}))  # noqa: E731
        return {
            "profile": self.profile,
            "device": join("device"),
            "dtype": join("dtype"),
            "torch": join("torch"),
            "commit": ", ".join(commits),
            "dates": " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "",
            "records": len(records),
            "failed": sum(r.status != "ok" for r in records),
            "seeds": len({r.seed for r in records}),
        }


@final
@dataclass(frozen=True)
class SuiteSheet(RecordSheet):
    """A row for each solver.

    Words of a row: solver, settings (steps and what differs from the defaults, with its source; files
    give all of them), calls (network calls of one chain, and vjps). One column per world, task and
    metric: mean ± half of the 95 % interval over seeds (over images, if a record is a mean over
    images), with failures counted, or why there is nothing.
    """

    heads: ClassVar[tuple[str, ...]] = ("solver", "settings", "calls")

    @cached_property
    def columns(self) -> list[Column]:
        places = self.grid.places
        return [Column(title, *place) for title, place in zip(titles(places), places, strict=True)]

    @cached_property
    def lines(self) -> list[Line]:
        g = self.grid
        if not g.shown:
            return []
        lines = [
            Line((_name(e), brief(e), _calls(g, e, g.pairs)), _told(e), [g.cell(e, place) for place in g.places])
            for e in g.entries
        ]
        if g.spec.floor:
            words = ("exact samples", "", "")
            lines.append(Line(words, words, [g.floor(place) for place in g.places], ranked=False))
        return lines


@final
@dataclass(frozen=True)
class LongSheet(RecordSheet):
    """A row for each world, task and solver, a column for each metric; nothing competes, as rows are of many worlds."""

    heads: ClassVar[tuple[str, ...]] = ("world, task", "settings", "calls")

    @cached_property
    def columns(self) -> list[Column]:
        there = {name for _, _, name in self.grid.places}
        return [Column(LABELS[m].text, "", "", m) for m in self.grid.spec.metrics if m in there]

    @cached_property
    def lines(self) -> list[Line]:
        g, lines = self.grid, []
        alone = len({_name(e) for e in g.entries}) == 1
        for w, t in g.pairs:
            for e in (e for e in g.entries if g.of(e, w, t)):
                words = (f"{w}, {t}", brief(e) if alone else f"{_name(e)} {brief(e)}", _calls(g, e, [(w, t)]))
                cells = [g.cell(e, (w, t, c.metric)) if self._has(w, t, c) else NOTHING for c in self.columns]
                lines.append(Line(words, _told(e), cells, ranked=False, place=(w, t)))
            if g.spec.floor and lines:
                words = (f"{w}, {t}", "exact samples", "")
                cells = [g.floor((w, t, c.metric)) if self._has(w, t, c) else NOTHING for c in self.columns]
                lines.append(Line(words, ("exact samples", "", ""), cells, ranked=False, place=(w, t)))
        return lines

    def _has(self, world: str, task: str, column: Column) -> bool:
        return (world, task, column.metric) in self.grid.places


def sheet(id: str, profile: str = "quick", root: Path = BENCHMARKS) -> RecordSheet:
    """The table of that id.

    Raises:
        AtlasError: unknown table or profile, or a truncated or altered record.
    """
    g = grid(id, profile, root)
    return (LongSheet if g.spec.layout == "long" else SuiteSheet)(g.spec, g.profile, g)


def _name(entry: Entry) -> str:
    return type(entry.solver).__name__


def _told(entry: Entry) -> tuple[str, ...]:
    return _name(entry), settings(repr(entry.solver)), entry.source


def _calls(g: Grid, entry: Entry, pairs: list[tuple[str, str]]) -> str:
    """Network calls of one chain, and vjps where there are any; a range if tasks differ."""
    records = [r for w, t in pairs for r in g.of(entry, w, t) if r.cost]
    parts = []
    for name, unit in (("denoiser_calls", ""), ("vjps", " vjp")):
        counts = sorted({round(r.cost[name] or 0) for r in records})
        if counts and (counts[-1] or not unit):
            parts.append("–".join(str(c) for c in dict.fromkeys((counts[0], counts[-1]))) + unit)
    return " + ".join(parts)
