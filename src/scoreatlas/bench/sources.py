"""The kinds of tables there are: those of the suites, and those beside other libraries.

What a kind has to offer is a :class:`Source`; pages, files, the command line and the check see no difference.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

from scoreatlas.bench import aggregate, peers, plan, suite, tabulate
from scoreatlas.bench.plan import Finding
from scoreatlas.bench.sheet import Sheet
from scoreatlas.bench.suite import BENCHMARKS, TableSpec
from scoreatlas.errors import AtlasError


@final
@dataclass(frozen=True)
class Source:
    """A kind of tables, all below one folder ``benchmarks``.

    Attributes:
        names: what of it can be checked in a profile.
        specifications: its tables by id.
        sheet: the table of an id in a profile.
        check: what is wrong with the records of a name in a profile.
        remedy: the command that mends it.
    """

    names: Callable[[str, Path], list[str]]
    specifications: Callable[[Path], dict[str, TableSpec]]
    sheet: Callable[[str, str, Path], Sheet]
    check: Callable[[str, str, Path], list[Finding]]
    remedy: str


def _suites(profile: str, root: Path) -> list[str]:
    return suite.suites(root)


SUITES = Source(_suites, aggregate.specifications, tabulate.sheet, plan.check, "scoreatlas bench run")
PEERS = Source(peers.names, peers.specifications, peers.sheet, peers.check, peers.REMEDY)
SOURCES = (SUITES, PEERS)


def specifications(root: Path = BENCHMARKS) -> dict[str, TableSpec]:
    """Every table by id.

    Raises:
        AtlasError: an id is used twice, or a table shows a metric that does not exist.
    """
    found: dict[str, TableSpec] = {}
    for specs in (source.specifications(root) for source in SOURCES):
        if twins := sorted(found.keys() & specs.keys()):
            raise AtlasError(f"table id {twins[0]!r} is used by {found[twins[0]].suite} and {specs[twins[0]].suite}")
        found |= specs
    return found


def sheet(id: str, profile: str = "quick", root: Path = BENCHMARKS) -> Sheet:
    """The table of that id.

    Raises:
        AtlasError: there is no such table or profile, or a record is truncated or altered.
    """
    for source in SOURCES:
        if id in source.specifications(root):
            return source.sheet(id, profile, root)
    raise AtlasError(f"no table {id!r}; there are {', '.join(sorted(specifications(root))) or 'none'}")


def owner(name: str, profile: str, root: Path = BENCHMARKS) -> Source:
    """Whose records go by that name; the suites', who say that there is none, if nobody's do."""
    return next((source for source in SOURCES if name in source.names(profile, root)), SUITES)
