"""A table between its records and its form: every kind of table becomes one, and all forms are made of it."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import pandas as pd

from scoreatlas.bench.aggregate import Place, Shown
from scoreatlas.bench.labels import LABELS
from scoreatlas.bench.suite import TableSpec


class Column(NamedTuple):
    """A column of numbers: what a page calls it, and which metric it has, by the name of its label."""

    title: str
    metric: str


class Line(NamedTuple):
    """A row of a page.

    Attributes:
        words: under the heads.
        cells: one a column.
        ranked: whether it competes for the best of a column.
    """

    words: tuple[str, ...]
    cells: list[Shown]
    ranked: bool = True


class Number(NamedTuple):
    """A row of a file: words under its heads, world, task and metric, and the number."""

    words: tuple[str, ...]
    place: Place
    shown: Shown


@dataclass(frozen=True)
class Sheet(ABC):
    """A table in one profile.

    Attributes:
        spec: id, caption and what is shown.
        profile: of all its records.
    """

    spec: TableSpec
    profile: str

    @property
    @abstractmethod
    def heads(self) -> tuple[str, ...]:
        """The columns of words, on a page."""

    @property
    @abstractmethod
    def columns(self) -> list[Column]:
        """The columns of numbers, on a page."""

    @property
    @abstractmethod
    def lines(self) -> list[Line]:
        """The rows of a page; none if there are no records."""

    @property
    @abstractmethod
    def file_heads(self) -> tuple[str, ...]:
        """The columns of words, in a file."""

    @abstractmethod
    def numbers(self) -> Iterator[Number]:
        """The rows of a file."""

    @property
    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Where the numbers come from, in words and counts: commit, dates and records among them."""

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A page's table; ``attrs["raw"]`` has the bare numbers, ``attrs["best"]`` marks the best of each column."""
        if not self.lines:
            return pd.DataFrame()
        names, blank = [*self.heads, *(c.title for c in self.columns)], list[float | None]([None] * len(self.heads))
        best = [self._best(j) for j in range(len(self.columns))]
        text = [[*line.words, *(s.text for s in line.cells)] for line in self.lines]
        raw = [[*blank, *(s.estimate.value if s.estimate else None for s in line.cells)] for line in self.lines]
        marks = [[False] * len(blank) + [i == b for b in best] for i in range(len(self.lines))]
        frame = pd.DataFrame(text, columns=names)
        frame.attrs["raw"] = pd.DataFrame(raw, columns=names, dtype=object)
        frame.attrs["best"] = pd.DataFrame(marks, columns=names)
        return frame

    def _best(self, j: int) -> int | None:
        """Of a column, the row nearest to the target among those that compete and never failed."""
        target = LABELS[self.columns[j].metric].target
        competing = {i: line.cells[j] for i, line in enumerate(self.lines) if line.ranked and not line.cells[j].failed}
        distance = {
            i: -s.estimate.value if math.isinf(target) else abs(s.estimate.value - target)
            for i, s in competing.items()
            if s.estimate is not None
        }
        return min(distance, key=distance.__getitem__) if distance and not math.isnan(target) else None
