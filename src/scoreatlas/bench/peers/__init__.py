"""Ours and theirs in one run: quality, exactness, overhead and seconds of the same methods in several libraries.

``python -m scoreatlas.bench.peers`` measures and writes ``benchmarks/results/quick/peers/table.json``; it
needs the extra ``peers``. Reading, showing and checking the record do not.

Its numbers are for one core of a CPU, so there is one profile, quick.
"""

from scoreatlas.bench.peers.record import REMEDY, check, load, names, path
from scoreatlas.bench.peers.tables import sheet, specifications

__all__ = ["REMEDY", "check", "load", "names", "path", "sheet", "specifications"]
