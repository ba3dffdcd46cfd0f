"""The tables of the suites: sheets made of their records."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

from scoreatlas.bench.aggregate import Grid, Place, Shown, brief, grid, settings
from scoreatlas.bench.labels import LABELS
from scoreatlas.bench.sheet import Column, Line, Number, Sheet
from scoreatlas.bench.suite import BENCHMARKS, Entry

NOTHING = Shown(None, 0, 0, "")  # a metric that a world does not have


@dataclass(frozen=True)
class SuiteSheet(Sheet):
    """A row for each solver, a column for each world, task and metric.

    Words of a row: solver, settings (steps and what differs from the defaults, with its source; files
    give all of them), calls (network calls of one chain, and vjps). A number is the mean ± half of the
    95 % interval over seeds (over images, if there is one seed), with failures counted, or the reason
    why there is none.

    Attributes:
        grid: the records in rows and columns.
    """

    grid: Grid

    @property
    def heads(self) -> tuple[str, ...]:
        return "solver", "settings", "calls"

    @property
    def columns(self) -> list[Column]:
        places = self.grid.places
        return [Column(title, place[2]) for title, place in zip(_titles(places), places, strict=True)]

    @cached_property
    def lines(self) -> list[Line]:
        g = self.grid
        if not g.shown:
            return []
        lines = [
            Line((type(e.solver).__name__, brief(e), _calls(g, e, g.pairs)), [g.cell(e, place) for place in g.places])
            for e in g.entries
        ]
        if g.spec.floor:
            lines.append(Line(("exact samples", "", ""), [g.floor(place) for place in g.places], ranked=False))
        return lines

    @property
    def file_heads(self) -> tuple[str, ...]:
        return "solver", "settings", "source"

    def numbers(self) -> Iterator[Number]:
        g = self.grid
        for place in g.places:
            for e in g.entries:
                words = type(e.solver).__name__, settings(repr(e.solver)), e.source
                yield Number(words, place, g.cell(e, place))
            if g.spec.floor:
                yield Number(("exact samples", "", ""), place, g.floor(place))

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
class LongSheet(SuiteSheet):
    """A row for each world, task and solver, a column for each metric; nothing is ranked."""

    @cached_property
    def alone(self) -> bool:
        """Whether there is one solver, so that its settings alone tell the rows apart."""
        return len({type(e.solver).__name__ for e in self.grid.entries}) == 1

    @property
    def heads(self) -> tuple[str, ...]:
        return "world, task", "settings" if self.alone else "solver", "calls"

    @property
    def columns(self) -> list[Column]:
        there = {metric for _, _, metric in self.grid.places}
        return [Column(LABELS[m].text, m) for m in self.spec.metrics if m in there]

    @cached_property
    def lines(self) -> list[Line]:
        g, metrics, lines = self.grid, [c.metric for c in self.columns], list[Line]()
        for w, t in g.pairs:
            there = {m for m in metrics if (w, t, m) in g.places}
            for e in g.entries:
                if g.of(e, w, t):
                    name = brief(e) if self.alone else f"{type(e.solver).__name__} {brief(e)}"
                    cells = [g.cell(e, (w, t, m)) if m in there else NOTHING for m in metrics]
                    lines.append(Line((f"{w}, {t}", name, _calls(g, e, [(w, t)])), cells, ranked=False))
            if g.spec.floor and there:
                cells = [g.floor((w, t, m)) if m in there else NOTHING for m in metrics]
                lines.append(Line((f"{w}, {t}", "exact samples", ""), cells, ranked=False))
        return lines


def sheet(id: str, profile: str = "quick", root: Path = BENCHMARKS) -> SuiteSheet:
    """The table of that id.

    Raises:
        AtlasError: unknown table or profile, or a truncated or altered record.
    """
    g = grid(id, profile, root)
    return (LongSheet if g.spec.layout == "long" else SuiteSheet)(g.spec, g.profile, g)


def _calls(g: Grid, entry: Entry, pairs: list[tuple[str, str]]) -> str:
    """Network calls of one chain, and vjps where there are any; a range if tasks differ."""
    records = [r for w, t in pairs for r in g.of(entry, w, t) if r.cost]
    parts = []
    for name, unit in (("denoiser_calls", ""), ("vjps", " vjp")):
        counts = sorted({round(r.cost[name] or 0) for r in records})
        if counts and (counts[-1] or not unit):
            parts.append("–".join(str(c) for c in dict.fromkeys((counts[0], counts[-1]))) + unit)
    return " + ".join(parts)


def _titles(places: list[Place]) -> list[str]:
    """World, task and metric of each column, without what all columns share."""
    parts = [(w, t, LABELS[m].text) for w, t, m in places]
    varies = [len({p[i] for p in parts}) > 1 for i in range(3)]
    varies[2] = varies[2] or not any(varies)
    return [" ".join(p[i] for i in range(3) if varies[i]) for p in parts]
