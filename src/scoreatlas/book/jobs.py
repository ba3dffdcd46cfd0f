"""What is left to do until records, chapters and site are whole, in pieces for several machines.

It is read from the records, the executed chapters and the site themselves. So nobody has to remember what ran: work
done by hand counts, and a run that was killed goes on where it stopped. The Snakefile makes jobs of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from scoreatlas.bench.commands import cells
from scoreatlas.bench.shards import shards
from scoreatlas.bench.suite import suites
from scoreatlas.book.build import is_current
from scoreatlas.book.chapters import check_profile, find
from scoreatlas.book.keys import modules_of, runs, source_folder, suites_read
from scoreatlas.book.sources import Sources


@final
@dataclass(frozen=True)
class Left:
    """What is left.

    Attributes:
        shards: the keys of the cells of each shard, by suite and number.
        chapters: the chapters to execute, and for each the suites that it reads and that have shards.
        site: whether the site is to be built.
    """

    shards: dict[str, dict[str, list[str]]]
    chapters: dict[str, list[str]]
    site: bool

    def __str__(self) -> str:
        pieces = [keys for suite in self.shards.values() for keys in suite.values()]
        told = [f"{sum(map(len, pieces))} cells in {len(pieces)} shards"] * bool(pieces)
        told += [f"{len(self.chapters)} chapters"] * bool(self.chapters) + ["the site"] * self.site
        return ", ".join(told) or "nothing"


def left(root: Path, profile: str, device: str, only: Sequence[str] = (), size: int = 40) -> Left:
    """What is left to do in a checkout.

    Args:
        root: the checkout.
        profile, device: of records, chapters and site.
        only: the suites to run; all if none is given.
        size: cells in a shard, at most.

    Raises:
        AtlasError: bad input, or a damaged record.
    """
    check_profile(profile, device)
    pieces = {}
    for suite in only or suites(root / "benchmarks"):
        if missing := cells(suite, profile, root / "benchmarks"):
            pieces[suite] = {f"{i:03}": keys for i, keys in enumerate(shards(missing, size))}
    chapters, sources = {}, Sources(source_folder(root))
    for run in runs(find(root), profile, device):
        awaited = suites_read(run.chapter, modules_of(run.chapter, sources), pieces)
        if awaited or not run.stored.exists():  # new records give a chapter that reads them a new key
            chapters[run.chapter.name] = awaited
    return Left(pieces, chapters, bool(pieces or chapters) or not is_current(root, profile, device))
