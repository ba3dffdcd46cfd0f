"""A table between its records and its form: every kind of table becomes one, and all forms are made of it."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import pandas as pd

from scoreatlas.bench.aggregate import Shown
from scoreatlas.bench.labels import LABELS
from scoreatlas.bench.suite import TableSpec


class Column(NamedTuple):
    """A column of numbers.

    Attributes:
        title: what a page calls it.
        world, task, metric: what it is; the metric has a label.
    """

    title: str
    world: str
    task: str
    metric: str


class Line(NamedTuple):
    """A row.

    Attributes:
        words: under the heads of the table.
        told: under the heads of the file, in full.
        cells: one a column.
        ranked: whether it competes for the best of a column.
        place: world and task, where they belong to the row and not to the columns.
    """

    words: tuple[str, ...]
    told: tuple[str, ...]
    cells: list[Shown]
    ranked: bool = True
    place: tuple[str, str] | None = None


@dataclass(frozen=True)
class Sheet(ABC):
    """A table in one profile.

    Attributes:
        spec: id, caption and what is shown.
        profile: of all its records.
        heads: columns of words, on a page.
        told_heads: columns of words, in a file.
    """

    spec: TableSpec
    profile: str
    heads: ClassVar[tuple[str, ...]]
    told_heads: ClassVar[tuple[str, ...]]

    @property
    @abstractmethod
    def columns(self) -> list[Column]:
        """The columns of numbers."""

    @property
    @abstractmethod
    def lines(self) -> list[Line]:
        """The rows; none if there are no records."""

    @property
    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Where the numbers come from, in words and counts: profile, commit, dates and records among them."""

    @cached_property
    def best(self) -> list[int | None]:
        """In each column, the row nearest to the target among those that compete and never failed."""
        return [
            _best([line.cells[j] if line.ranked else None for line in self.lines], LABELS[column.metric].target)
            for j, column in enumerate(self.columns)
        ]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """As it is printed; ``attrs["raw"]`` has the bare numbers, ``attrs["best"]`` marks the best of each column."""
        if not self.lines:
            return pd.DataFrame()
        names, words = [*self.heads, *(c.title for c in self.columns)], len(self.heads)
        text = [[*line.words, *(s.text for s in line.cells)] for line in self.lines]
        blank: list[float | None] = [None] * words
        raw = [[*blank, *(s.estimate.value if s.estimate else None for s in line.cells)] for line in self.lines]
        marks = [[False] * words + [i == b for b in self.best] for i in range(len(self.lines))]
        frame = pd.DataFrame(text, columns=names)
        frame.attrs["raw"] = pd.DataFrame(raw, columns=names, dtype=object)
        frame.attrs["best"] = pd.DataFrame(marks, columns=names)
        return frame


def titles(places: list[tuple[str, str, str]]) -> list[str]:
    """World, task and label of each column, without what all columns share."""
    parts = [(w, t, LABELS[m].text) for w, t, m in places]
    varies = [len({p[i] for p in parts}) > 1 for i in range(3)]
    varies[2] = varies[2] or not any(varies)
    return [" ".join(p[i] for i in range(3) if varies[i]) for p in parts]


def _best(column: list[Shown | None], target: float) -> int | None:
    distance = {
        i: -s.estimate.value if math.isinf(target) else abs(s.estimate.value - target)
        for i, s in enumerate(column)
        if s is not None and s.estimate is not None and not s.failed
    }
    return min(distance, key=distance.__getitem__) if distance and not math.isnan(target) else None
