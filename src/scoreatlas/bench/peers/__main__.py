"""Measure every row and write the record; needs the extra ``peers``."""

import argparse
import datetime
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import torch

from scoreatlas import peers
from scoreatlas.bench import store
from scoreatlas.bench.aggregate import brief
from scoreatlas.bench.compute import _commit
from scoreatlas.bench.peers import measure
from scoreatlas.bench.peers.record import PROFILE, dependencies, save
from scoreatlas.bench.peers.rows import ROWS, Row
from scoreatlas.bench.suite import BENCHMARKS, Entry
from scoreatlas.errors import AtlasError

BUILD = BENCHMARKS.parent / "_build" / "peers"  # where rows wait for the others


def line(row: Row) -> dict[str, Any]:
    """One row of the record: what was asked, the solver that was run, what it asks for, and its numbers."""
    chosen, curve = measure.tuned(row) if row.tune else ({}, [])
    calls: dict[str, int] = {}
    if row.sampler:
        solver = row.build(steps=measure.STEPS)
        cells = [measure.difference(row.method, solver), *measure.overhead(solver, True, False)]
    elif row.iterative:
        solver = measure.at_budget(row.build(**chosen))
        cells, calls = measure.quality(solver)
        cells += measure.exactness(solver, measure.SHORT)
        cells += (
            measure.exactness(row.build(steps=row.long), measure.LONG)
            if row.long
            else measure.left_out(measure.LONG, "tuned for the budget")
        )
        cells += measure.overhead(solver, False, row.library == "deepinv")
    else:
        solver = row.build()
        cells, calls = measure.quality(solver)
    said = re.sub(r"steps=\d+(, )?", "", brief(Entry(solver, row.fields, row.source, (PROFILE,))))
    words = {"repr": repr(solver), "settings": said.strip()}
    return {"asked": row.asked, **words, "calls": calls, "tuning": curve, "cells": cells}


def kept(row: Row, digest: str) -> dict[str, Any]:
    """The row of the record as an earlier run of the same code, killed, has left it, or measured now."""
    name = hashlib.sha256(json.dumps(row.asked, sort_keys=True).encode()).hexdigest()[:16]
    place = BUILD / digest[:16] / f"{name}.json"
    if not place.exists():
        print(f"{row.method} ({row.library}, {row.source})", file=sys.stderr, flush=True)
        store.write(place, line(row))
    return store.read(place)


def record() -> dict[str, Any]:
    """Every row, and where it was made.

    Raises:
        AtlasError: a library is not installed, or not in the version that its wrapper needs.
    """
    torch.set_num_threads(1)
    if lacking := peers.lacking():
        raise AtlasError(f"not installed: {', '.join(lacking)}; pip install 'scoreatlas[peers]'")
    (head, dirty), told = _commit(), dict[str, Any](dependencies())
    lines = [kept(row, str(told["source_hash"])) for row in ROWS]
    told |= {
        "profile": PROFILE, "device": "cpu", "threads": 1, "dtype": "float32, exactness float64",
        "torch": torch.__version__, "libraries": peers.VERSIONS, "commit": head, "dirty": dirty,
        "size": measure.SIZE, "bare": measure.bare(), "instances": measure.digests(),
        "utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    floor = [c for name in (measure.SHORT, measure.LONG) for c in measure.exactness(None, name)]
    return {"rows": lines, "floor": floor, "provenance": told}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m scoreatlas.bench.peers", description="Ours and theirs in one run.")
    parser.parse_args(arguments)
    try:
        print(save(record()))
        shutil.rmtree(BUILD)
    except AtlasError as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
