"""What a page shows of a benchmark table: header, rows, the best cells, the plain numbers and where they come from."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scoreatlas.errors import AtlasError

REPORT = "scoreatlas.bench.report"


@dataclass(frozen=True)
class Shown:
    """A table ready for a page.

    Attributes:
        id: stable name; the page anchor is ``table-<id>``.
        profile: of the records.
        caption: one sentence.
        header: names of the columns.
        rows: text of each cell.
        raw: the number behind each cell, None for text.
        best: whether a cell is the best of its column.
        provenance: profile, device, commit, dates, versions, counts.
    """

    id: str
    profile: str
    caption: str
    header: list[str]
    rows: list[list[str]]
    raw: list[list[float | None]]
    best: list[list[bool]]
    provenance: dict[str, Any]


def ids(report: str = REPORT) -> list[str]:
    """Every table there is."""
    return sorted(importlib.import_module(report).tables())


def load(id: str, profile: str, report: str = REPORT) -> Shown:
    """A table of one profile.

    Raises:
        AtlasError: the table is unknown or has no records for the profile.
    """
    module = importlib.import_module(report)
    if id not in module.tables():
        raise AtlasError(f"no table {id!r}; there are {', '.join(ids(report)) or 'none'}")
    frame = module.table(id, profile)
    if frame.empty:
        raise AtlasError(
            f"table {id!r} has no records in profile {profile!r}; run its suite with `scoreatlas bench run`"
        )
    raw, best = frame.attrs["raw"], frame.attrs["best"]
    return Shown(
        id,
        profile,
        module.tables()[id].caption,
        [str(c) for c in frame.columns],
        [[str(v) for v in row] for row in frame.itertuples(index=False)],
        [[_number(v) for v in row] for row in raw.itertuples(index=False)],
        [[bool(v) for v in row] for row in best.itertuples(index=False)],
        module.provenance(id, profile),
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and value == value else None


def exports(report: str = REPORT) -> dict[str, Callable[[str, str], str]]:
    """The function that writes a table, by the ending of its file."""
    module = importlib.import_module(report)
    return {"csv": module.to_csv, "tex": module.to_latex, "bib": module.to_bibtex}


def number(shown: Shown, row: str, column: str) -> str:
    """One number of a table, for running text, as the table prints it but without its interval.

    Args:
        shown: the table.
        row: comma-separated conditions that one row alone meets: ``solver=DPS`` names a column and its text, a bare
            ``DPS`` the text of any cell of that row.
        column: whose number.

    Raises:
        AtlasError: the column is unknown, or not exactly one row fits.
    """
    if column not in shown.header:
        raise AtlasError(f"table {shown.id!r} has no column {column!r}; there are {', '.join(shown.header)}")
    wanted = [part.strip() for part in row.split(",") if part.strip()]
    hits = [cells for cells in shown.rows if all(_fits(shown.header, cells, part) for part in wanted)]
    if len(hits) != 1:
        raise AtlasError(f"table {shown.id!r}: {len(hits)} rows fit {row!r}; exactly one must")
    text = hits[0][shown.header.index(column)]
    for mark in ("±", "[", "("):
        text = text.split(mark)[0]
    return text.strip()


def _fits(header: list[str], cells: list[str], condition: str) -> bool:
    name, equals, value = condition.partition("=")
    if equals and name.strip() in header:
        return cells[header.index(name.strip())] == value.strip()
    return condition in cells
