"""Records on disk: one JSON file a cell, whole or not at all.

One file a cell, not one a task: writes need no lock, so cells may run on several machines at once,
and two branches that add cells merge without a conflict.
"""

import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, final

from scoreatlas.errors import AtlasError

REMEDY = "delete it and run the suite again"
Status = Literal["ok", "failed", "nonfinite"]


@final
@dataclass(frozen=True)
class Record:
    """What one cell gave. Everything is a JSON value; a number that does not exist is None.

    Attributes:
        key: world/task/repr(solver)/seed.
        suite, profile, world, task, seed: where it belongs.
        solver: {name, fields, repr, source}.
        status: "ok", "failed" (it raised) or "nonfinite" (it gave NaN or infinity).
        error: one line, None if ok.
        metrics: {name: {value, low, high}}, empty unless ok; the interval is 95 %.
        floor: {name: value}, the same metric between two exact sample sets.
        cost: {denoiser_calls, vjps, operator_calls, seconds, peak_mb}.
        provenance: {commit, dirty, source_hash, weights_sha256, data_sha256, instance_hash, torch,
            device, dtype, threads, utc, size}.
        counts: {name: [count, ...]}, rank histograms of simulation-based calibration; empty without it.
    """

    key: str
    suite: str
    profile: str
    world: str
    task: str
    solver: dict[str, Any]
    seed: int
    status: Status
    error: str | None
    metrics: dict[str, dict[str, float | None]]
    floor: dict[str, float | None]
    cost: dict[str, float | None]
    provenance: dict[str, Any]
    counts: dict[str, list[int]] = field(default_factory=dict)


@final
class Store:
    """The records below ``benchmarks/results``.

    Args:
        root: the folder ``benchmarks``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, suite: str, profile: str) -> Path:
        return self.root / "results" / profile / suite

    def path(self, suite: str, profile: str, key: str) -> Path:
        """Where the record of a cell is: named by the first 16 hex digits of the sha256 of its key."""
        return self.folder(suite, profile) / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"

    def save(self, record: Record) -> None:
        """Write the record of a cell."""
        write(self.path(record.suite, record.profile, record.key), asdict(record))

    def load(self, path: Path) -> Record:
        """Read one record.

        Raises:
            AtlasError: the file is truncated or altered, or lies under another cell's name.
        """
        told = path.stat()
        record = _read(path, told.st_mtime_ns, told.st_size)
        if path != self.path(record.suite, record.profile, record.key):
            raise AtlasError(f"{path} holds the record of another cell, {record.key}; {REMEDY}")
        return record

    def paths(self, suite: str, profile: str) -> list[Path]:
        """The record files of a suite in a profile, sorted by name."""
        return sorted(self.folder(suite, profile).glob("*.json"))

    def all(self, suite: str, profile: str) -> dict[str, Record]:
        """Every record of a suite in a profile, by key.

        Raises:
            AtlasError: files are truncated or altered, one line for each.
        """
        records, damage = {}, []
        for path in self.paths(suite, profile):
            try:
                record = self.load(path)
                records[record.key] = record
            except AtlasError as error:
                damage.append(str(error))
        if damage:
            raise AtlasError("\n".join(damage))
        return records


@cache
def _read(path: Path, mtime_ns: int, size: int) -> Record:
    """The record of a file as it stands: a page of tables reads each record many times."""
    body = read(path)
    try:
        return Record(**{f.name: body[f.name] for f in fields(Record) if f.name in body})
    except TypeError as error:
        raise AtlasError(f"{path} is truncated or not a record; {REMEDY}") from error


def write(path: Path, body: dict[str, Any]) -> None:
    """Write JSON values and their sha256 under a temporary name, then rename it: a reader sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = _plain(body)
    text = json.dumps(plain | {"sha256": _digest(plain)}, indent=1, sort_keys=True) + "\n"
    partial = path.with_suffix(".partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read(path: Path, remedy: str = REMEDY) -> dict[str, Any]:
    """What :func:`write` wrote, without the sha256.

    Raises:
        AtlasError: the file is truncated or altered.
    """
    try:
        body = json.loads(path.read_text())
        told = body.pop("sha256")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AtlasError(f"{path} is truncated or not a record; {remedy}") from error
    if told != _digest(body):
        raise AtlasError(f"{path} does not match its own sha256: altered; {remedy}")
    return body


def _digest(body: dict[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _plain(value: Any) -> Any:
    """JSON values: tuples as lists, NaN and infinity as None."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
