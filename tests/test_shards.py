"""Shards hold the missing cells exactly, and a job computes the cells of its file and no others."""

import json
from pathlib import Path

import pytest

from scoreatlas.bench import commands
from scoreatlas.bench.shards import read, shards, write
from scoreatlas.bench.store import Store
from scoreatlas.cli import main
from scoreatlas.errors import AtlasError

SUITE = """
[profiles.quick]
seeds = [0, 1, 2]
problems = 1
samples = 100
max_rows = 100

[[worlds]]
name = "mixture2"
tasks = ["row"]

[[solvers]]
name = "PseudoInverse"
source = "paper"

[[solvers]]
name = "DPS"
fields = { steps = 3, zeta = 1e300 } # gives NaN
source = "ours"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites/tiny.toml").write_text(SUITE)
    return tmp_path


@pytest.mark.parametrize("size", [1, 2, 3, 7, 40, 1000])
@pytest.mark.parametrize("n", [0, 1, 2, 6, 7, 8, 40, 41, 385])
def test_shards_are_a_partition_in_order(n: int, size: int) -> None:
    keys = [f"world/task/Solver(steps={i})/0" for i in range(n)]
    pieces = shards(keys, size)
    assert [key for piece in pieces for key in piece] == keys
    lengths = sorted(map(len, pieces))
    assert all(1 <= length <= size for length in lengths) and len(pieces) == -(-n // size)
    assert not pieces or lengths[-1] - lengths[0] <= 1
    assert shards(keys, size) == pieces


def test_a_shard_of_no_cells_is_refused() -> None:
    with pytest.raises(AtlasError, match="a shard of 0 cells: at least 1 is needed"):
        shards(["a"], 0)


def test_jobs_compute_their_own_cells_and_together_all_of_them(root: Path) -> None:
    missing = commands.cells("tiny", root=root)
    assert [key.rpartition("/")[2] for key in missing] == list("001122")
    file, (first, second) = root / "job" / "keys.json", shards(missing, 4)
    write(file, first)
    assert read(file) == first
    said = commands.run("tiny", root=root, keys=file, failed_ok=True)
    assert said.startswith("tiny (quick): 1 of 3 cells failed and are recorded as such; the first: mixture2/row/DPS")
    assert set(Store(root).all("tiny", "quick")) == set(first)
    assert commands.cells("tiny", root=root) == second  # in the order of the plan
    assert commands.run("tiny", root=root, keys=file) == "tiny (quick): nothing to compute"

    write(file, second)
    with pytest.raises(AtlasError, match="^2 of 3 cells failed and are recorded as such"):
        commands.run("tiny", root=root, keys=file)
    assert set(Store(root).all("tiny", "quick")) == set(missing) and commands.cells("tiny", root=root) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        ("mixture2/row", "is not JSON; write it with `scoreatlas bench plan SUITE --json`"),
        ('{"a": 1}', "is not a list of keys"),
        ("[1]", "is not a list of keys"),
        ('["mixture2/row/DPS()/9"]', "1 keys are of no cell of suite tiny .quick.; the first: mixture2/row/DPS../9"),
    ],
)
def test_a_bad_file_of_keys_is_refused_in_one_line(root: Path, text: str | None, message: str) -> None:
    file = root / "keys.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(AtlasError, match=message) as error:
        commands.run("tiny", root=root, keys=file)
    assert "\n" not in str(error.value) and not Store(root).paths("tiny", "quick")


def test_the_command_line_lists_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "scoreatlas.bench.commands.cells", lambda suite, profile: [f"{suite}/{profile}/{i}" for i in "ab"]
    )
    monkeypatch.setattr("sys.argv", ["scoreatlas", "bench", "plan", "exact", "--profile", "full", "--json"])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert json.loads(capsys.readouterr().out) == ["exact/full/a", "exact/full/b"]
