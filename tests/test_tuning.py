"""Rows marked tuned are what the records of suite tuning say, and those come from validation images alone."""

import pytest

from scoreatlas.bench import commands, tune
from scoreatlas.bench.store import Record, Store
from scoreatlas.bench.suite import load
from scoreatlas.errors import AtlasError

SUITE = """
profiles.quick = { seeds = [0, 1], problems = 1, samples = 1, max_rows = 1 }
[[worlds]]
name = "mixture2"
tasks = ["row"]
[[solvers]]
name = "DPS"
fields = { steps = 10 }
grid = { zeta = [0.1, 0.3, 1.0] }
source = "ours"
"""


def record(suite, entry, seed: int, psnr: float | None) -> Record:
    metrics = {} if psnr is None else {"psnr": {"value": psnr, "low": psnr, "high": psnr}}
    told = {"name": "DPS", "fields": entry.fields, "repr": repr(entry.solver), "source": "ours"}
    status = "failed" if psnr is None else "ok"
    key = f"mixture2/row/{entry.solver!r}/{seed}"
    return Record(key, "tuning", "quick", "mixture2", "row", told, seed, status, None, metrics, {}, {}, {})


def test_the_best_mean_wins_and_a_failure_is_out(tmp_path):
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "tuning.toml").write_text(SUITE)
    suite, store = load("tuning", tmp_path), Store(tmp_path)
    with pytest.raises(AtlasError, match="no record of DPS"):
        tune.choices(root=tmp_path)
    for entry, scores in zip(suite.entries, ([20.0, 22.0], [21.0, 23.0], [30.0, None]), strict=True):
        for seed, score in enumerate(scores):
            store.save(record(suite, entry, seed, score))
    choice = tune.choices(root=tmp_path)["DPS"]
    assert choice.fields == {"steps": 10, "zeta": 0.3} and choice.score == 22.0 and choice.at_edge == ()
    assert sorted(choice.tried.values(), key=lambda v: v or 0) == [None, 21.0, 22.0]
    store.save(record(suite, suite.entries[2], 1, 10.0))  # 20 dB on average now: whole, but not the best
    store.save(record(suite, suite.entries[0], 0, 90.0))
    assert tune.choices(root=tmp_path)["DPS"].at_edge == ("zeta",)


def test_tuning_sees_no_test_image():
    assert all(world.endswith("_validation") for world, _ in load("tuning").pairs("quick"))
    assert all(world.endswith("_validation") for world, _ in load("tuning").pairs("full"))


@pytest.mark.parametrize("name", ["images", "large", "budget"])
def test_tuned_rows_are_the_chosen_ones(name):
    """Where a suite varies the budget, all but the fields that set it."""
    chosen, budget = tune.choices(), {"steps", "inner", "ode", "decay"} if name == "budget" else set()
    rows = [e for e in load(name).at("quick") if e.source == "tuned"]
    assert len(rows) > 10
    for e in rows:
        want = {k: v for k, v in chosen[type(e.solver).__name__].fields.items() if k not in budget}
        assert {k: v for k, v in e.fields.items() if k not in budget} == want, e.solver


def test_the_records_that_chose_are_whole_and_fresh():
    """A choice made by code that has changed since is no choice; the check names the first stale record."""
    assert commands.check("tuning") == "tuning (quick): all records are there and fresh"
