"""The benchmark commands as functions of plain arguments; they return text and raise :class:`AtlasError`."""

from collections.abc import Iterator
from pathlib import Path

from scoreatlas.bench import catalogue, plan, report, runner, shards, tune
from scoreatlas.bench.sources import SOURCES, owner
from scoreatlas.bench.suite import BENCHMARKS, load
from scoreatlas.bench.tasks import task
from scoreatlas.bench.worlds import world
from scoreatlas.errors import AtlasError

FORMATS = {"csv": report.to_csv, "latex": report.to_latex, "md": report.to_markdown, "bibtex": report.to_bibtex}


def run(
    suite: str,
    profile: str = "quick",
    only: str | None = None,
    device: str = "cpu",
    retry: bool = False,
    root: Path = BENCHMARKS,
    keys: Path | None = None,
    failed_ok: bool = False,
) -> str:
    """Compute the cells of a suite that are missing or stale, all of them or those whose keys are in the file ``keys``.

    With ``failed_ok`` a cell that failed is a result like any other: a job is done when each of its cells has a record.

    Raises:
        AtlasError: bad input, or cells that failed; what was finished is kept.
    """
    chosen = None if keys is None else shards.read(keys)
    try:
        n = runner.run(suite, profile, only, device, retry=retry, root=root, keys=chosen)
    except runner.FailedCells as failed:
        if not failed_ok:
            raise
        return f"{suite} ({profile}): {failed}"
    return f"{suite} ({profile}): {n} cells computed" if n else f"{suite} ({profile}): nothing to compute"


def check(suite: str | None = None, profile: str = "quick", root: Path = BENCHMARKS) -> str:
    """Whether every record of a suite, or all records, are there, whole and fresh; ``peers`` is a name like a suite's.

    Raises:
        AtlasError: with one line per record that is not.
    """
    lines, good, ends = list[str](), list[str](), list[str]()
    for source in SOURCES if suite is None else [owner(suite, profile, root)]:
        before = len(lines)
        for name in [suite] if suite else source.names(profile, root):
            lines += [f"{name} ({profile}): {f.problem}: {f.key}" for f in source.check(name, profile, root)]
            good.append(f"{name} ({profile}): all records are there and fresh")
        if n := len(lines) - before:
            ends.append(f"{n} records need `{source.remedy}`")
    if lines:
        raise AtlasError("\n".join([*lines, "; ".join(ends)]))
    return "\n".join(good)


def cells(suite: str, profile: str = "quick", root: Path = BENCHMARKS) -> list[str]:
    """Keys of the cells whose records are missing or stale, in the order of the plan."""
    return [f.key for f in plan.check(suite, profile, root) if not f.problem.startswith("left over")]


def table(id: str, profile: str = "quick", format: str = "md", root: Path = BENCHMARKS) -> str:
    """A table as csv, latex, md or bibtex.

    Raises:
        AtlasError: unknown table, profile or format, or no records.
    """
    if format not in FORMATS:
        raise AtlasError(f"no format {format!r}; there are {', '.join(FORMATS)}")
    if report.table(id, profile, root).empty:
        raise AtlasError(f"table {id!r} has no records in profile {profile!r}; run its suite first")
    return FORMATS[format](id, profile, root)


def why(solver: str, world_name: str, task_name: str) -> str:
    """Whether a solver applies to a task in a world, and if not, why.

    Raises:
        AtlasError: an unknown name.
    """
    one = catalogue.build(solver, {})
    reason = catalogue.why_not(one, world(world_name), task(task_name))
    return f"{solver} on {task_name} in {world_name}: {reason or 'applies'}"


def left_out(suite: str, profile: str = "quick", root: Path = BENCHMARKS) -> Iterator[str]:
    """Why each solver that a suite leaves out of a task does not apply there, one line each.

    Raises:
        AtlasError: unknown suite or profile.
    """
    chosen = load(suite, root)
    chosen.profile(profile)
    for world_name, task_name in chosen.pairs(profile):
        for entry in chosen.at(profile):
            if reason := catalogue.why_not(entry.solver, world(world_name), task(task_name)):
                yield f"{world_name}/{task_name}/{type(entry.solver).__name__}: {reason}"


def best(profile: str = "quick", root: Path = BENCHMARKS) -> str:
    """The best configuration of each solver of suite ``tuning``, one line each.

    Raises:
        AtlasError: records are missing or damaged.
    """
    lines = []
    for choice in tune.choices(profile, root).values():
        edge = f"; at the edge of what was tried: {', '.join(choice.at_edge)}" if choice.at_edge else ""
        fields = ", ".join(f"{k} = {v!r}" for k, v in choice.fields.items())
        lines.append(f"{choice.solver}: {fields} ({choice.score:.2f} dB, best of {len(choice.tried)}{edge})")
    return "\n".join(lines)
