"""Shards: the missing cells of a suite in pieces, each the work of one job.

Most cells take less than a second, where a job costs seconds before its first (an interpreter, torch, the worlds of the
suite) and more until its end is noticed. A shard is a run of neighbours in the order of the plan, so that its cells
share instances and the exact samples they are compared with.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from scoreatlas.errors import AtlasError


def shards(keys: Sequence[str], size: int) -> list[list[str]]:
    """``keys`` in as few pieces of at most ``size`` as there can be; their lengths differ by one at most.

    Raises:
        AtlasError: ``size`` is not positive.
    """
    if size < 1:
        raise AtlasError(f"a shard of {size} cells: at least 1 is needed")
    n = -(-len(keys) // size)
    cuts = [len(keys) * i // n for i in range(n + 1)] if n else [0]
    return [list(keys[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]


def write(path: Path, keys: Sequence[str]) -> None:
    """Write keys as ``scoreatlas bench plan --json`` prints them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(keys)) + "\n", encoding="utf-8")


def read(path: Path) -> list[str]:
    """The keys in a file.

    Raises:
        AtlasError: there is no such file, or it is not a JSON list of keys.
    """
    try:
        keys = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AtlasError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise AtlasError(f"{path} is not JSON; write it with `scoreatlas bench plan SUITE --json`") from error
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise AtlasError(f"{path} is not a list of keys; write it with `scoreatlas bench plan SUITE --json`")
    return keys
