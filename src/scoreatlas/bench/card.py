"""Exactness cards: a picture and a sentence for each solver, made of the records of suite ``cards``."""

import math
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scoreatlas.bench.aggregate import settings
from scoreatlas.bench.store import Record, Store
from scoreatlas.bench.suite import BENCHMARKS, load
from scoreatlas.figures import BLUE, GREY, INK, ORANGE, PURPLE, subplots
from scoreatlas.metrics.estimate import mean_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUITE = "cards"
LIMITS = ((0.01, 100.0), (0.03, 30.0), (0.5, 300.0))  # of the axes; what lies outside is cut, and is in the table
STYLES = ("-", "--", ":")
GROUPS = {"observed": BLUE, "unobserved": ORANGE}


class Series(NamedTuple):
    """One setting of a solver in one world, against its network calls.

    Attributes:
        label: what differs from the other settings, without the steps.
        calls: network calls of one chain, rising (n,).
        values: by metric, means over seeds (n,) and half-widths of their 95 % intervals (n,); NaN where there are none.
        counts: rank histograms at the most calls, summed over seeds, by test quantity.
        failed: cells that raised or were not finite.
    """

    label: str
    calls: np.ndarray
    values: dict[str, tuple[np.ndarray, np.ndarray]]
    counts: dict[str, list[int]]
    failed: int


def solvers(root: Path = BENCHMARKS) -> list[str]:
    """Solvers that have a card, in the order of the suite."""
    return list(dict.fromkeys(type(e.solver).__name__ for e in load(SUITE, root).entries))


def worlds(profile: str = "quick", root: Path = BENCHMARKS) -> list[tuple[str, str]]:
    """(world, task) of the cards, in the order of the suite."""
    return load(SUITE, root).pairs(profile)


@cache
def _records(profile: str, root: Path) -> list[Record]:
    return sorted(Store(root).all(SUITE, profile).values(), key=lambda r: (r.key, r.seed))


def series(solver: str, world: str, profile: str = "quick", root: Path = BENCHMARKS) -> list[Series]:
    """What the records say of a solver in a world, a series for each of its settings."""
    mine = [r for r in _records(profile, root) if r.solver["name"] == solver and r.world == world]
    chosen: dict[str, list[Record]] = {}
    for r in mine:
        fields = {k: v for k, v in r.solver["fields"].items() if k not in ("steps", "jump", "resample", "particles")}
        chosen.setdefault(", ".join(f"{k} = {v:g}" for k, v in fields.items()), []).append(r)
    return [_one(label, records) for label, records in sorted(chosen.items())]


def _one(label: str, records: list[Record]) -> Series:
    good = [r for r in records if r.status == "ok"]
    ordered = sorted(good, key=lambda r: (r.cost["denoiser_calls"] or 0, settings(r.solver["repr"])))
    points = [list(g) for _, g in groupby(ordered, key=lambda r: r.cost["denoiser_calls"])]
    names = sorted({name for r in good for name in r.metrics})
    values = {name: _means([[_value(r, name) for r in point] for point in points]) for name in names}
    floors = {f"floor.{name}": _means([[r.floor.get(name) for r in point] for point in points]) for name in names}
    last = points[-1] if points else []
    counts = {k: np.sum([r.counts[k] for r in last], 0).tolist() for k in (last[0].counts if last else {})}
    calls = np.array([point[0].cost["denoiser_calls"] for point in points], dtype=float)
    return Series(label, calls, values | floors, counts, len(records) - len(good))


def _value(record: Record, name: str) -> float | None:
    return record.metrics[name]["value"] if name in record.metrics else None


def _means(points: list[list[float | None]]) -> tuple[np.ndarray, np.ndarray]:
    estimates = [mean_interval([math.nan if v is None else v for v in point]) for point in points]
    return np.array([e.value for e in estimates]), np.array([e.half_width for e in estimates])


def draw(solver: str, profile: str = "quick", root: Path = BENCHMARKS) -> "Figure":
    """The picture of a card: a column for each world; bias, spread and distance against network calls, and ranks."""
    pairs = [(w, t) for w, t in worlds(profile, root) if series(solver, w, profile, root)]
    figure, axes = subplots(4, len(pairs), width=max(3.2, 1.32 * len(pairs) + 0.4), height=6.0)
    figure.set_layout_engine("constrained", w_pad=0.015, h_pad=0.03, wspace=0.02, hspace=0.02)
    for j, (world, task) in enumerate(pairs):
        found = series(solver, world, profile, root)
        axes[0, j].set_title(f"{world}\n{task}", fontsize=8.5)
        for s, style in zip(found, STYLES, strict=False):
            _curves(axes[:3, j], s, style)
        _histogram(axes[3, j], found[0])
    _finish(axes)
    _legend(figure, series(solver, pairs[0][0], profile, root))
    return figure


def _curves(axes: Any, s: Series, style: str) -> None:
    marker = "o" if len(s.calls) > 1 and style == "-" else "." if len(s.calls) > 1 else "D"
    calls = np.maximum(s.calls, 1)
    for name, colour in GROUPS.items():
        for ax, metric in zip(axes, (f"bias_{name}", f"spread_{name}"), strict=False):
            if metric in s.values:
                value, half = s.values[metric]
                low = np.maximum(value - half, 1e-9)  # an interval that holds 0 reaches the bottom of the axis
                ax.fill_between(calls, low, value + half, color=colour, alpha=0.13, linewidth=0)
                ax.plot(calls, value, style, color=colour, marker=marker, ms=3, lw=1.3)
    floor = s.values["floor.bias_observed"][0]
    axes[0].plot(calls, floor, color=GREY, lw=0.9)
    ratio = s.values["sliced_w2"][0] / s.values["floor.sliced_w2"][0]
    axes[2].plot(calls, ratio, style, color=PURPLE, marker=marker, ms=3, lw=1.3)


def _histogram(ax: Any, s: Series) -> None:
    for name, colour in GROUPS.items():
        if counts := s.counts.get(f"sbc_{name}"):
            total, bins = sum(counts), len(counts)
            edges = np.arange(bins + 1)
            share = np.array(counts) * bins / total
            if name == "observed":
                ax.bar(edges[:-1] + 0.5, share, width=0.92, color=colour, alpha=0.75)
            else:
                ax.stairs(share, edges, color=colour, lw=1.6)
            half = 1.96 * math.sqrt((bins - 1) / total)
            ax.axhspan(1 - half, 1 + half, color=GREY, alpha=0.25, linewidth=0, zorder=0)
    ax.set(xticks=[], ylim=(0, 4))


def _finish(axes: Any) -> None:
    names = ("bias, in std", "spread ratio", "SW₂ / floor", "rank density")
    for row, (ax_row, name) in enumerate(zip(axes, names, strict=True)):
        ax_row[0].set_ylabel(name, fontsize=8.5)
        lows, highs = zip(*(_span(ax) for ax in ax_row), strict=True)
        for j, ax in enumerate(ax_row):
            if row < 3:
                bounds = LIMITS[row]
                ax.set(
                    xscale="log", yscale="log", xlim=(0.8, 1500), xticks=[10, 100, 1000], xticklabels=["10", "", "10³"]
                )
                ax.set_ylim(max(bounds[0], min(0.7 * min(lows), 0.8)), min(bounds[1], max(1.4 * max(highs), 1.3)))
                ax.minorticks_off()
                if row:
                    ax.axhline(1, color=INK, lw=0.7)
            ax.tick_params(labelsize=7, length=2)
            if j:
                ax.set_yticklabels([])
    for ax in axes[2]:
        ax.set_xlabel("network calls", fontsize=7.5, labelpad=1)
    for ax in axes[3]:
        ax.set_xlabel("rank of the truth", fontsize=7.5, labelpad=2)


def _span(ax: Any) -> tuple[float, float]:
    """Smallest and largest positive value of the curves; their shades may be cut by the axis."""
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in ax.lines] or [np.ones(1)])
    shown = values[np.isfinite(values) & (values > 0)]
    return (float(shown.min()), float(shown.max())) if len(shown) else (1.0, 1.0)


def _legend(figure: "Figure", found: list[Series]) -> None:
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=BLUE, label="seen directions"),
        Line2D([], [], color=ORANGE, label="unseen"),
        Line2D([], [], color=GREY, label="exact samples"),
    ]
    if len(found) > 1:
        lines += [
            Line2D([], [], color=INK, ls=style, label=s.label or "paper")
            for s, style in zip(found, STYLES, strict=False)
        ]
    figure.legend(handles=lines, ncols=len(lines), loc="outside upper center", fontsize=8)
