"""The tables of the comparison: columns chosen from its record."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, final

from scoreatlas.bench.aggregate import Place, Shown, settings
from scoreatlas.bench.labels import LABELS
from scoreatlas.bench.peers.measure import LONG, SHORT, TASKS
from scoreatlas.bench.peers.record import NAME, PROFILE, load
from scoreatlas.bench.sheet import Column, Line, Number, Sheet
from scoreatlas.bench.suite import BENCHMARKS, TableSpec
from scoreatlas.errors import AtlasError
from scoreatlas.metrics.estimate import Estimate

MOMENTS = ("bias_observed", "spread_observed", "spread_unobserved")
SECONDS = ("digits", "both", "cost.seconds")


def _free(task: str, *metrics: str) -> tuple[Place, ...]:
    return tuple(("free", task, metric) for metric in metrics)


class Layout(NamedTuple):
    """What a table shows.

    Attributes:
        caption: one sentence.
        places: of its columns.
        vjps: whether rows say how many vjps come with the network calls.
        floor: whether there is a row of exact samples.
        ranked: whether the best of a column is marked: not where rows that do different things are merely listed.
    """

    caption: str
    places: tuple[Place, ...]
    vjps: bool = False
    floor: bool = False
    ranked: bool = True


TABLES = {
    "peers": Layout(
        "The same methods in several libraries, 100 network calls each: spread over the exact spread on a Gaussian, "
        "PSNR on digits (dB, sigma_y = 0.05), operations for each network call, processor seconds of a run.",
        (("gaussian", SHORT, "spread_observed"), *(("digits", t, "psnr") for t in TASKS),
         *_free("inpaint", "operations"), SECONDS), vjps=True,
    ),
    "peers-quality": Layout(
        "Digits, sigma_y = 0.05, a missing box and super-resolution by 4, 100 network calls: PSNR in dB, residual in "
        "units of sigma_y, means over test images that all rows share, and processor seconds of a run.",
        (*(("digits", t, metric) for t in TASKS for metric in ("psnr", "residual")), SECONDS), vjps=True,
    ),
    "peers-exactness": Layout(
        "A Gaussian whose posterior is known: bias in posterior standard deviations and spread over the exact spread, "
        "at 100 network calls and in a long run.",
        (*(("gaussian", SHORT, m) for m in MOMENTS), *(("gaussian", LONG, m) for m in MOMENTS),
         ("gaussian", LONG, "cost.denoiser_calls")), floor=True,
    ),
    "peers-cost": Layout(
        "What each network call brings with it, beside a denoiser that costs nothing: vjps, operations, views among "
        "them, synchronisations, milliseconds; and the operations of a run that do not depend on its steps.",
        _free("inpaint", "cost.vjps", "operations", "views", "syncs", "ms", "setup"), ranked=False,
    ),
    "peers-samplers": Layout(
        "Samplers beside those of diffusers, on the same grid and noise: largest difference from ours, and the cost of "
        "a network call. The synchronisations of diffusers are an upper bound: it keeps its constants on the host.",
        (("gaussian", "nothing", "difference"), *_free("nothing", "operations", "views", "syncs", "ms")), ranked=False,
    ),
}  # fmt: skip


def specifications(root: Path = BENCHMARKS) -> dict[str, TableSpec]:
    """The tables by id."""
    return {
        id: TableSpec(id, NAME, layout.caption, tuple(dict.fromkeys(p[2] for p in layout.places)), floor=layout.floor)
        for id, layout in TABLES.items()
    }


@final
@dataclass(frozen=True)
class PeersSheet(Sheet):
    """A table of the comparison.

    Attributes:
        record: what was measured.
    """

    record: dict[str, Any]

    @property
    def heads(self) -> tuple[str, ...]:
        return ("method", "library", "settings", "vjps")[: 3 + TABLES[self.spec.id].vjps]

    @property
    def columns(self) -> list[Column]:
        return [Column(_title(*place), place[2]) for place in TABLES[self.spec.id].places]

    @cached_property
    def rows(self) -> list[tuple[dict[str, Any], list[Shown]]]:
        """The rows of the record that all columns concern, and their numbers."""
        found = [(row, self._cells(row["cells"])) for row in self.record["rows"]]
        return [(row, cells) for row, cells in found if cells]

    @cached_property
    def lines(self) -> list[Line]:
        layout, lines = TABLES[self.spec.id], []
        for row, cells in self.rows:
            calls, first = row["calls"], (row["asked"]["method"], row["asked"]["library"], row["settings"])
            words = (*first, str(calls["vjps"])) if layout.vjps else first
            lines.append(Line(words, cells, ranked=layout.ranked and calls.get("denoiser_calls") != 0))
        if self.spec.floor:
            lines.append(Line(("exact samples", "", ""), self._cells(self.record["floor"]), ranked=False))
        return lines

    @property
    def file_heads(self) -> tuple[str, ...]:
        return "method", "library", "solver", "settings", "source", "remark"

    def numbers(self) -> Iterator[Number]:
        floor = self._cells(self.record["floor"])
        for j, place in enumerate(TABLES[self.spec.id].places):
            for row, cells in self.rows:
                asked = row["asked"]
                first = asked["method"], asked["library"], asked["name"]
                yield Number((*first, settings(row["repr"]), asked["source"], asked["note"]), place, cells[j])
            if self.spec.floor:
                yield Number(("exact samples", *("",) * 5), place, floor[j])

    @property
    def provenance(self) -> dict[str, Any]:
        told = self.record["provenance"]
        return {
            "profile": told["profile"],
            "device": f"{told['device']}, {told['threads']} thread",
            "dtype": told["dtype"],
            "torch": told["torch"],
            **told["libraries"],
            "commit": told["commit"][:10] + ("+changes" if told["dirty"] else ""),
            "dates": told["utc"][:10],
            "records": len(self.rows),
            "failed": sum(any(shown.failed for shown in cells) for _, cells in self.rows),
            "seeds": told["size"]["seeds"],
        }

    def _cells(self, found: list[dict[str, Any]]) -> list[Shown]:
        """What a row has for each column; nothing if one of them does not concern it."""
        by = {(c["world"], c["task"], c["metric"]): c for c in found}
        places = TABLES[self.spec.id].places
        return [_shown(by[place]) for place in places] if all(place in by for place in places) else []


def sheet(id: str, profile: str = PROFILE, root: Path = BENCHMARKS) -> PeersSheet:
    """The table of that id.

    Raises:
        AtlasError: another profile than the one there is, or the record is missing, truncated or altered.
    """
    if profile != PROFILE:
        raise AtlasError(f"table {id!r} has no records in profile {profile!r}: it is made in profile {PROFILE!r} alone")
    return PeersSheet(specifications(root)[id], profile, load(root))


def _shown(c: dict[str, Any]) -> Shown:
    if c["value"] is None:
        return Shown(None, 0, c["failed"], c["note"])
    ends = (math.nan if c[end] is None else c[end] for end in ("low", "high"))
    return Shown(Estimate(c["value"], *ends), c["seeds"], c["failed"], c["note"])


def _title(world: str, task: str, metric: str) -> str:
    label = LABELS[metric].text.partition(" (")[0]  # units are in the caption
    return f"{task} {label}" if task in TASKS and world == "digits" else label + ", long" * (task == LONG)
