"""A table as it is printed, and where its numbers come from."""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from scoreatlas.bench.aggregate import Grid, Place, Shown, brief, grid
from scoreatlas.bench.labels import LABELS
from scoreatlas.bench.longtable import long_table
from scoreatlas.bench.suite import BENCHMARKS, Entry


def table(id: str, profile: str = "quick", root: Path = BENCHMARKS) -> pd.DataFrame:
    """A table as it is printed; empty if there are no records.

    Columns: solver, settings (steps and what differs from the defaults, with its source; exports give
    all of them), calls (network calls of one chain, and vjps), then one per world, task
    and metric: mean ± half of the 95 % interval over seeds (over images, if there is one seed),
    with failures counted, or why there is nothing. ``frame.attrs["raw"]`` has the bare numbers and
    ``frame.attrs["best"]`` marks the best of each column, in frames of the same shape. A table of layout "long" has a
    row for each world, task and solver instead, and marks nothing.

    Raises:
        AtlasError: unknown table or profile, or a truncated or altered record.
    """
    g = grid(id, profile, root)
    if not g.shown:
        return pd.DataFrame()
    if g.spec.layout == "long":
        calls = {(i, w, t): _calls(g, e, [(w, t)]) for i, e in enumerate(g.entries) for w, t in g.pairs}
        return long_table(g, calls)
    rows = [[g.cell(e, place) for place in g.places] for e in g.entries]
    heads = [[type(e.solver).__name__, brief(e), _calls(g, e, g.pairs)] for e in g.entries]
    best = [_best([row[j] for row in rows], place) for j, place in enumerate(g.places)]
    if g.spec.floor:
        rows.append([g.floor(place) for place in g.places])
        heads.append(["exact samples", "", ""])
    columns = ["solver", "settings", "calls", *_titles(g.places)]
    plain: list[list[float | None]] = [[s.estimate.value if s.estimate else None for s in row] for row in rows]
    marks = [[i == b for b in best] for i in range(len(rows))]
    frame = pd.DataFrame([h + [s.text for s in row] for h, row in zip(heads, rows, strict=True)], columns=columns)
    frame.attrs["raw"] = pd.DataFrame([[None, None, None, *p] for p in plain], columns=columns, dtype=object)
    frame.attrs["best"] = pd.DataFrame([[False] * 3 + m for m in marks], columns=columns)
    return frame


def provenance(id: str, profile: str = "quick", root: Path = BENCHMARKS) -> dict[str, Any]:
    """Where the numbers of a table come from, in words and counts."""
    records = grid(id, profile, root).shown
    told = [r.provenance for r in records]
    dates = sorted({p["utc"][:10] for p in told})
    commits = sorted({p["commit"][:10] + ("+changes" if p["dirty"] else "") for p in told})
    join = lambda name: ", ".join(sorted({str(p[name]) for p in told}))  # noqa: E731
    return {
        "profile": profile,
        "device": join("device"),
        "dtype": join("dtype"),
        "torch": join("torch"),
        "commit": ", ".join(commits),
        "dates": " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "",
        "records": len(records),
        "failed": sum(r.status != "ok" for r in records),
        "seeds": len({r.seed for r in records}),
    }


def _calls(g: Grid, entry: Entry, pairs: list[tuple[str, str]]) -> str:
    """Network calls of one chain, and vjps where there are any; a range if tasks differ."""
    records = [r for w, t in pairs for r in g.of(entry, w, t) if r.cost]
    parts = []
    for name, unit in (("denoiser_calls", ""), ("vjps", " vjp")):
        counts = sorted({round(r.cost[name] or 0) for r in records})
        if counts and (counts[-1] or not unit):
            parts.append("–".join(str(c) for c in dict.fromkeys((counts[0], counts[-1]))) + unit)
    return " + ".join(parts)


def _best(column: list[Shown], place: Place) -> int | None:
    """Row nearest to the target among those that never failed."""
    target = LABELS[place[2]].target
    distance = {
        i: -s.estimate.value if math.isinf(target) else abs(s.estimate.value - target)
        for i, s in enumerate(column)
        if s.estimate is not None and not s.failed
    }
    return min(distance, key=distance.__getitem__) if distance and not math.isnan(target) else None


def _titles(places: list[Place]) -> list[str]:
    """World, task and metric of each column, without what all columns share."""
    parts = [(w, t, LABELS[m].text) for w, t, m in places]
    varies = [len({p[i] for p in parts}) > 1 for i in range(3)]
    varies[2] = varies[2] or not any(varies)
    return [" ".join(p[i] for i in range(3) if varies[i]) for p in parts]
