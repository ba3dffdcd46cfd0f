"""The record of the comparison: one file with its own sha256, and whether the tree would still write it."""

import json
from pathlib import Path
from typing import Any

from scoreatlas.bench import cell as cells
from scoreatlas.bench import compute, image_worlds, store, tasks, worlds
from scoreatlas.bench.fingerprint import imports, source_hash
from scoreatlas.bench.peers.rows import ROWS
from scoreatlas.bench.plan import Finding
from scoreatlas.bench.suite import BENCHMARKS
from scoreatlas.errors import AtlasError

NAME, PROFILE = "peers", "quick"
REMEDY = "python -m scoreatlas.bench.peers"
RULER = "scoreatlas.bench.peers.measure"
RULERS = (RULER, *(f"scoreatlas.bench.{name}" for name in ("cost", "counting", "ledger")))
WORLD = ("scoreatlas.priors.pretrained", "scoreatlas.operators.superresolution")  # what world and tasks are made of
FACTORIES = (image_worlds.digits, image_worlds._images, tasks.inpaint, tasks.sr4, cells.instance, compute.solve)


def path(root: Path = BENCHMARKS) -> Path:
    """Where the record is."""
    return root / "results" / PROFILE / NAME / "table.json"


def load(root: Path = BENCHMARKS) -> dict[str, Any]:
    """The record.

    Raises:
        AtlasError: it is missing, truncated or altered.
    """
    if not path(root).exists():
        raise AtlasError(f"{path(root)} is missing: run `{REMEDY}`")
    return store.read(path(root), f"delete it and run `{REMEDY}`")


def save(record: dict[str, Any], root: Path = BENCHMARKS) -> Path:
    """Write the record, whole or not at all."""
    store.write(path(root), record)
    return path(root)


def names(profile: str, root: Path = BENCHMARKS) -> list[str]:
    """What can be checked in a profile: the comparison is made in one."""
    return [NAME] if profile == PROFILE else []


def check(name: str = NAME, profile: str = PROFILE, root: Path = BENCHMARKS) -> list[Finding]:
    """What is missing, stale or left over; the libraries need not be there.

    Raises:
        AtlasError: the record is truncated or altered.
    """
    if not path(root).exists():
        return [Finding("the whole record", "missing")]
    record = load(root)
    told, now = record["provenance"], dependencies()
    findings = [Finding("every row", f"stale: {why}") for what, why in WHY.items() if told[what] != now[what]]
    there, wanted = ([json.dumps(asked, sort_keys=True) for asked in rows] for rows in (
        [row["asked"] for row in record["rows"]], [row.asked for row in ROWS],
    ))  # fmt: skip
    findings += [Finding(key, "missing") for key in wanted if key not in there]
    return findings + [Finding(key, "left over: no such row is asked for") for key in there if key not in wanted]


WHY = {
    "source_hash": "the code it depends on has changed",
    "weights_sha256": "the weights of its prior have changed",
    "data_sha256": "its data have changed",
}


def dependencies() -> dict[str, str | None]:
    """What the record depends on: the code of solvers, wrappers and rulers, the weights, the data."""
    modules = {*(row.module for row in ROWS), *imports(RULER), *WORLD}
    w = worlds.world("digits")
    return {
        "source_hash": source_hash(modules, FACTORIES, alone=RULERS),
        "weights_sha256": w.weights_sha256,
        "data_sha256": w.data_sha256,
    }
