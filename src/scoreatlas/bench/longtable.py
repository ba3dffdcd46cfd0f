"""A table with a row for each world, task and solver and a column for each metric."""

import pandas as pd

from scoreatlas.bench.aggregate import Grid, Shown, brief
from scoreatlas.bench.labels import LABELS
from scoreatlas.bench.suite import Entry

NOTHING = Shown(None, 0, 0, "")  # a metric that a world does not have


def long_table(g: Grid, calls: "dict[tuple[int, str, str], str]") -> pd.DataFrame:
    """The grid in long form; attributes as those of :func:`scoreatlas.bench.tabulate.table`.

    Args:
        g: the table before it is written down.
        calls: what a solver asks of the network, by row of ``g.entries``, world and task.
    """
    metrics = [m for m in g.spec.metrics if any(m == name for _, _, name in g.places)]
    alone = len({type(e.solver).__name__ for e in g.entries}) == 1
    heads, rows = [], []
    for w, t in g.pairs:
        there = [m for m in metrics if (w, t, m) in g.places]
        for i, e in enumerate(g.entries):
            if not g.of(e, w, t):
                continue
            heads.append([f"{w}, {t}", _called(e, alone), calls[i, w, t]])
            rows.append([g.cell(e, (w, t, m)) if m in there else NOTHING for m in metrics])
        if g.spec.floor and there:
            heads.append([f"{w}, {t}", "exact samples", ""])
            rows.append([g.floor((w, t, m)) if m in there else NOTHING for m in metrics])
    columns = ["world, task", "settings" if alone else "solver", "calls", *(LABELS[m].text for m in metrics)]
    frame = pd.DataFrame([h + [s.text for s in row] for h, row in zip(heads, rows, strict=True)], columns=columns)
    nothing: list[float | None] = [None] * 3
    plain = [nothing + [s.estimate.value if s.estimate else None for s in row] for row in rows]
    frame.attrs["raw"] = pd.DataFrame(plain, columns=columns, dtype=object)
    frame.attrs["best"] = pd.DataFrame([[False] * len(columns) for _ in rows], columns=columns)
    return frame


def _called(entry: Entry, alone: bool) -> str:
    return brief(entry) if alone else f"{type(entry.solver).__name__} {brief(entry)}"
