"""Suite files: plain data, read strictly, so that a misspelt word is an error and not a default."""

import itertools
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

from scoreatlas.bench.catalogue import build
from scoreatlas.bench.tasks import task
from scoreatlas.bench.worlds import check_name
from scoreatlas.errors import AtlasError
from scoreatlas.solvers.base import Solver

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
SOURCES = ("paper", "code", "tuned", "ours")
LAYOUTS = ("wide", "long")
STREAM = 100  # samples that share a random stream; chunks are whole streams, so results do not depend on memory


@final
@dataclass(frozen=True)
class Profile:
    """How large a run is.

    Attributes:
        name: "quick" or "full".
        seeds: one cell each.
        problems: problems in a cell: 1 where the posterior is exact, else images.
        samples: samples of each problem.
        max_rows: rows computed at a time; memory grows with it, results do not change.
        calibration: problems, and samples of each, for simulation-based calibration; None for none.
    """

    name: str
    seeds: tuple[int, ...]
    problems: int
    samples: int
    max_rows: int
    calibration: tuple[int, int] | None = None

    @property
    def size(self) -> dict[str, Any]:
        """What a record depends on."""
        size: dict[str, Any] = {"problems": self.problems, "samples": self.samples}
        return size | ({"calibration": list(self.calibration)} if self.calibration else {})


class Pair(NamedTuple):
    """A task in a world, and the profiles where it runs."""

    world: str
    task: str
    profiles: tuple[str, ...]


@final
@dataclass(frozen=True)
class Entry:
    """A row of a suite.

    Attributes:
        solver: with its hyper-parameters.
        fields: as the suite wrote them.
        source: whose values they are: paper, code (official), tuned (on validation data) or ours.
        profiles: where it runs.
    """

    solver: Solver[Any, Any]
    fields: dict[str, Any]
    source: str
    profiles: tuple[str, ...]


@final
@dataclass(frozen=True)
class TableSpec:
    """A table with a stable id.

    Attributes:
        id: what is cited; never reused.
        suite: name of the suite it shows.
        caption: one sentence.
        metrics: names of metrics, or of costs as ``cost.seconds``.
        worlds, tasks, solvers: what is shown; empty means all of the suite.
        floor: whether to add the row "exact against exact".
        layout: "wide" has a row for each solver and a column for each world, task and metric; "long" has a row
            for each world, task and solver and a column for each metric.
    """

    id: str
    suite: str
    caption: str
    metrics: tuple[str, ...]
    worlds: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    solvers: tuple[str, ...] = ()
    floor: bool = False
    layout: str = "wide"


@final
@dataclass(frozen=True)
class Suite:
    """What is to be run.

    Attributes:
        name: stem of its file.
        profiles: sizes by name.
        all_pairs: worlds and tasks, and the profiles that have them.
        entries: solvers.
        tables: what is shown of it.
    """

    name: str
    profiles: dict[str, Profile]
    all_pairs: tuple[Pair, ...]
    entries: tuple[Entry, ...]
    tables: tuple[TableSpec, ...]

    def profile(self, name: str) -> Profile:
        """The profile of that name.

        Raises:
            AtlasError: there is none.
        """
        if name not in self.profiles:
            raise AtlasError(f"suite {self.name} has no profile {name!r}; there are {', '.join(self.profiles)}")
        return self.profiles[name]

    def pairs(self, profile: str) -> list[tuple[str, str]]:
        """(world, task) names of a profile."""
        return [(p.world, p.task) for p in self.all_pairs if profile in p.profiles]

    def at(self, profile: str) -> list[Entry]:
        """The entries that run in a profile."""
        return [e for e in self.entries if profile in e.profiles]


def suites(root: Path = BENCHMARKS) -> list[str]:
    """Names of the suites under ``root``."""
    return sorted(path.stem for path in (root / "suites").glob("*.toml"))


def load(name: str, root: Path = BENCHMARKS) -> Suite:
    """Read ``suites/<name>.toml``.

    Raises:
        AtlasError: there is no such suite, the file is not TOML, or it names a world, task, solver,
            field or key that does not exist.
    """
    path = root / "suites" / f"{name}.toml"
    if not path.exists():
        raise AtlasError(f"no suite named {name!r} in {path.parent}; there are {', '.join(suites(root)) or 'none'}")
    try:
        data = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise AtlasError(f"{path} is not TOML: {error}") from error
    try:
        return _read(name, data)
    except AtlasError as error:
        raise AtlasError(f"{path}: {error}") from error


def _read(name: str, data: dict[str, Any]) -> Suite:
    top = _keys("the suite", data, {"profiles": dict, "worlds": list, "solvers": list}, {"tables": list})
    profiles = {}
    for key, value in top["profiles"].items():
        kinds = {"seeds": list, "problems": int, "samples": int, "max_rows": int}
        row = _keys(f"[profiles.{key}]", value, kinds, {"calibration": list})
        if row["samples"] > STREAM and row["samples"] % STREAM:
            raise AtlasError(
                f"[profiles.{key}]: samples must be at most {STREAM} or a multiple of it, got {row['samples']}"
            )
        pair = row.pop("calibration", None)
        if pair is not None and (len(pair) != 2 or min(pair) < 1 or (pair[1] + 1) % 8):
            rule = "calibration must be [problems, samples] with samples + 1 a multiple of 8"
            raise AtlasError(f"[profiles.{key}]: {rule}, got {pair}")
        profiles[key] = Profile(key, tuple(row.pop("seeds")), calibration=tuple(pair) if pair else None, **row)

    def there(row: dict[str, Any]) -> tuple[str, ...]:
        if unknown := set(row.get("profiles", ())) - set(profiles):
            raise AtlasError(f"{row['name']}: no profile {sorted(unknown)[0]!r}; there are {', '.join(profiles)}")
        return tuple(row.get("profiles", profiles))

    all_pairs = []
    for value in top["worlds"]:
        row = _keys("[[worlds]]", value, {"name": str, "tasks": list}, {"profiles": list})
        check_name(row["name"])
        all_pairs += [Pair(row["name"], task(t).name, there(row)) for t in row["tasks"]]
    entries = []
    for value in top["solvers"]:
        extra: dict[str, type] = {"fields": dict, "grid": dict, "profiles": list}
        row = _keys("[[solvers]]", value, {"name": str, "source": str}, extra)
        if row["source"] not in SOURCES:
            raise AtlasError(f"source of {row['name']} must be one of {', '.join(SOURCES)}, got {row['source']!r}")
        for fields in _grid(row["name"], row.get("fields", {}), row.get("grid", {})):
            entries.append(Entry(build(row["name"], fields), fields, row["source"], there(row)))
    _no_twins(f"solver {e.solver!r} in profile {p}" for e in entries for p in e.profiles)
    optional = {"worlds": list, "tasks": list, "solvers": list, "floor": bool, "layout": str, "each": str}
    tables = []
    for value in top.get("tables", []):
        row = _keys("[[tables]]", value, {"id": str, "caption": str, "metrics": list}, optional)
        if row.get("layout", "wide") not in LAYOUTS:
            raise AtlasError(f"table {row['id']}: layout must be one of {', '.join(LAYOUTS)}, got {row['layout']!r}")
        tables += [TableSpec(suite=name, **values) for values in _each(row, entries)]
    _no_twins(f"table {t.id}" for t in tables)
    return Suite(name, profiles, tuple(all_pairs), tuple(entries), tuple(tables))


def _keys(
    where: str, row: dict[str, Any], required: dict[str, type], optional: dict[str, type] | None = None
) -> dict[str, Any]:
    kinds = required | (optional or {})
    for key in row:
        if key not in kinds:
            raise AtlasError(f"{where} has an unknown key {key!r}; it may have {', '.join(kinds)}")
    for key in required:
        if key not in row:
            raise AtlasError(f"{where} lacks {key!r}")
    for key, value in row.items():
        if type(value) is not kinds[key]:
            raise AtlasError(f"{where}: {key} must be of type {kinds[key].__name__}, got {value!r}")
    return dict(row)


def _grid(name: str, fields: dict[str, Any], grid: dict[str, Any]) -> list[dict[str, Any]]:
    """``fields`` with every combination of the values that ``grid`` lists for further ones; the last varies fastest."""
    for field, values in grid.items():
        if field in fields or not isinstance(values, list) or not values:
            raise AtlasError(f"{name}: grid lists values of fields that are not set yet, got {field} = {values!r}")
    return [fields | dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def _each(row: dict[str, Any], entries: list[Entry]) -> list[dict[str, Any]]:
    """A table, or with ``each = "solver"`` one for every solver: {solver} in id and caption is its name."""
    each = row.pop("each", None)
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
    if each is None:
        return [values]
    if each != "solver":
        raise AtlasError(f"table {row['id']}: each must be 'solver', got {each!r}")
    names = dict.fromkeys(type(e.solver).__name__ for e in entries)
    return [
        values
        | {
            "id": row["id"].replace("{solver}", n.lower()),
            "caption": row["caption"].replace("{solver}", n),
            "solvers": (n,),
        }
        for n in names
    ]


def _no_twins(names: Any) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise AtlasError(f"{name} appears twice")
        seen.add(name)
