"""The table of a suite: a sheet made of its records."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, final

from scoreatlas.bench.aggregate import Grid, brief, grid, settings
from scoreatlas.bench.sheet import Column, Line, Sheet, titles
from scoreatlas.bench.suite import BENCHMARKS, Entry


@final
@dataclass(frozen=True)
class SuiteSheet(Sheet):
    """A table of a suite.

    Words of a row: solver, settings (steps and what differs from the defaults, with its source; files
    give all of them), calls (network calls of one chain, and vjps). One column per world, task and
    metric: mean ± half of the 95 % interval over seeds (over images, if a record is a mean over
    images), with failures counted, or why there is nothing.

    Attributes:
        grid: the records in rows and columns.
    """

    grid: Grid
    heads: ClassVar[tuple[str, ...]] = ("solver", "settings", "calls")
    told_heads: ClassVar[tuple[str, ...]] = ("solver", "settings", "source")

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
            Line(
                (type(e.solver).__name__, brief(e), _calls(g, e)),
                (type(e.solver).__name__, settings(repr(e.solver)), e.source),
                [g.cell(e, place) for place in g.places],
            )
            for e in g.entries
        ]
        if g.spec.floor:
            words = ("exact samples", "", "")
            lines.append(Line(words, words, [g.floor(place) for place in g.places], ranked=False))
        return lines

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


def sheet(id: str, profile: str = "quick", root: Path = BENCHMARKS) -> SuiteSheet:
    """The table of that id.

    Raises:
        AtlasError: unknown table or profile, or a truncated or altered record.
    """
    g = grid(id, profile, root)
    return SuiteSheet(g.spec, g.profile, g)


def _calls(g: Grid, entry: Entry) -> str:
    """Network calls of one chain, and vjps where there are any; a range if tasks differ."""
    records = [r for w, t in g.pairs for r in g.of(entry, w, t) if r.cost]
    parts = []
    for name, unit in (("denoiser_calls", ""), ("vjps", " vjp")):
        counts = sorted({round(r.cost[name] or 0) for r in records})
        if counts and (counts[-1] or not unit):
            parts.append("–".join(str(c) for c in dict.fromkeys((counts[0], counts[-1]))) + unit)
    return " + ".join(parts)
