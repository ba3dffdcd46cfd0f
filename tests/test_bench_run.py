"""Running, resuming, checking and showing benchmarks, on a suite small enough to run in a second."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
import torch

from scoreatlas.bench import catalogue, commands, plan, report
from scoreatlas.bench.runner import run
from scoreatlas.bench.store import Store
from scoreatlas.errors import AtlasError
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Linear
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.mixture import GaussianMixture
from scoreatlas.solvers.base import Solver, State

SUITE = """
[profiles.quick]
seeds = {seeds}
problems = 1
samples = 100
max_rows = 100

[[worlds]]
name = "mixture2"
tasks = {tasks}

{solvers}

[[tables]]
id = "tiny"
caption = "A tiny table_with % signs."
metrics = ["sliced_w2", "spread_unobserved", "cost.denoiser_calls"]
floor = true
"""


@dataclass(frozen=True)
class Oracle(Solver[Measurement[Linear, Gaussian], GaussianMixture]):
    """Samples the exact posterior."""

    def iterate(self, m, prior, rng):
        x = prior.posterior(m).sample(rng)
        yield State(x, x)


@dataclass(frozen=True)
class Diverging(Solver[Measurement[Linear, Gaussian], DiffusionPrior]):
    def iterate(self, m, prior, rng):
        x = prior.initial(rng)
        x[:3] = torch.nan
        yield State(x, x)


@dataclass(frozen=True)
class Raising(Solver[Measurement[Linear, Gaussian], DiffusionPrior]):
    def iterate(self, m, prior, rng):
        raise ValueError("no luck\nat all")
        yield


@pytest.fixture(autouse=True)
def fakes(monkeypatch):
    known = {**catalogue.solvers(), "Oracle": Oracle, "Diverging": Diverging, "Raising": Raising}
    monkeypatch.setattr(catalogue, "solvers", lambda: known)


def write(root: Path, *names: str, seeds: int = 1, fields: str = "{ steps = 3 }", tasks: str = '["row"]') -> Path:
    rows = []
    for name in names:
        line = f"fields = {fields}\n" if name in ("DDRM", "DPS", "RePaint") else ""
        rows.append(f'[[solvers]]\nname = "{name}"\nsource = "paper"\n{line}')
    text = SUITE.format(seeds=list(range(seeds)), tasks=tasks, solvers="\n".join(rows))
    (root / "suites").mkdir(parents=True, exist_ok=True)
    (root / "suites" / "tiny.toml").write_text(text)
    return root


def go(root, **options):
    return run("tiny", progress=False, root=root, **options)


def test_a_record_says_everything(tmp_path):
    go(write(tmp_path, "DPS"))
    (path,) = Store(tmp_path).paths("tiny", "quick")
    raw = json.loads(path.read_text())
    assert raw["key"] == "mixture2/row/DPS(steps=3, zeta=1.0, eta=1.0)/0" and raw["status"] == "ok"
    assert raw["solver"] == {
        "name": "DPS",
        "fields": {"steps": 3},
        "repr": "DPS(steps=3, zeta=1.0, eta=1.0)",
        "source": "paper",
    }
    assert raw["cost"]["denoiser_calls"] == 3 and raw["cost"]["vjps"] == 3 and raw["cost"]["seconds"] > 0
    assert set(raw["metrics"]) == set(raw["floor"])
    e = raw["metrics"]["sliced_w2"]
    assert e["low"] < e["value"] < e["high"] and raw["floor"]["sliced_w2"] > 0
    assert re.fullmatch(r"[0-9a-f]{64}", raw["provenance"]["source_hash"])
    assert (raw["provenance"]["dtype"], raw["provenance"]["torch"]) == ("float64", torch.__version__)
    assert path.name == "7fe5d58d71bda0bd.json"  # the address of a key never changes


def test_exact_samples_are_as_good_as_the_floor(tmp_path):
    go(write(tmp_path, "Oracle", seeds=3))
    for record in Store(tmp_path).all("tiny", "quick").values():
        for group in ("observed", "unobserved"):
            e = record.metrics[f"spread_{group}"]
            assert e["low"] < 1.1 and e["high"] > 0.9
            assert record.metrics[f"bias_{group}"]["value"] < 5 / 10  # five standard errors of 100 samples
        assert record.metrics["sliced_w2"]["value"] < 4 * record.floor["sliced_w2"]
        assert record.metrics["mode_weights"]["value"] < 0.15


def test_only_what_is_missing_runs_again_and_only_filters(tmp_path):
    root = write(tmp_path, "DDRM", "PseudoInverse", seeds=2)
    assert go(root, only="PseudoInverse") == 2
    assert go(root) == 2 and go(root) == 0
    with pytest.raises(AtlasError, match="no cell of suite tiny .quick. has a key with 'DPS'"):
        go(root, only="DPS")


def test_broken_cells_are_recorded_and_the_others_go_on(tmp_path):
    root = write(tmp_path, "Raising", "Diverging", "PseudoInverse")
    with pytest.raises(AtlasError, match="^2 of 3 cells failed and are recorded as such; the first: .*no luck$"):
        go(root)
    told = {r.solver["name"]: (r.status, r.error) for r in Store(root).all("tiny", "quick").values()}
    assert told == {
        "Raising": ("failed", "ValueError: no luck"),
        "Diverging": ("nonfinite", "3 of 100 samples are not finite"),
        "PseudoInverse": ("ok", None),
    }
    shown = report.table("tiny", root=root).set_index("solver")["sliced W2"]
    assert shown["Raising"] == shown["Diverging"] == "failed (1 of 1)"
    assert report.provenance("tiny", root=root)["failed"] == 2
    assert go(root) == 0  # they are results, not gaps
    with pytest.raises(AtlasError, match="^1 of 1 cells failed"):
        go(root, retry=True)
    assert set(report.frame("tiny", root=root)["status"]) == {"ok", "failed", "nonfinite"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "truncated or not a record; delete it"),
        (lambda text: text.replace('"seed": 0', '"seed": 1'), "does not match its own sha256: altered; delete it"),
        (lambda text: "[]", "truncated or not a record"),
    ],
)
def test_damaged_records_are_refused(tmp_path, damage, message):
    root = write(tmp_path, "PseudoInverse")
    go(root)
    (path,) = Store(root).paths("tiny", "quick")
    path.write_text(damage(path.read_text()))
    for command in (
        lambda: go(root),
        lambda: commands.check("tiny", root=root),
        lambda: report.table("tiny", root=root),
    ):
        with pytest.raises(AtlasError, match=message) as error:
            command()
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_check_finds_missing_stale_and_left_over_records(tmp_path, monkeypatch):
    root = write(tmp_path, "DDRM", "PseudoInverse")
    with pytest.raises(AtlasError, match="missing: mixture2/row/DDRM"):
        commands.check("tiny", root=root)
    go(root)
    assert commands.check("tiny", root=root) == "tiny (quick): all records are there and fresh"
    write(root, "PseudoInverse")
    assert [f.problem[:9] for f in plan.check("tiny", root=root)] == ["left over"]
    write(root, "DDRM", "PseudoInverse")
    path = root / "suites" / "tiny.toml"
    path.write_text(path.read_text().replace("samples = 100", "samples = 50"))
    assert all("the profile says {'problems': 1, 'samples': 50}" in f.problem for f in plan.check("tiny", root=root))
    assert go(root) == 2
    monkeypatch.setattr(plan, "source_hash", lambda modules, functions: "another")
    assert {f.problem for f in plan.check("tiny", root=root)} == {"stale: the code it depends on has changed"}
    assert go(root) == 2 and go(root) == 0


def test_a_killed_run_resumes_with_the_missing_cells_only(tmp_path):
    root, store = write(tmp_path, "DDRM", seeds=24, fields="{ steps = 30 }"), Store(tmp_path)
    code = f"from pathlib import Path; from scoreatlas.bench.runner import run; run('tiny', root=Path({str(root)!r}))"
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(catalogue.__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(store.paths("tiny", "quick")) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in store.paths("tiny", "quick")}
    assert 2 <= len(kept) < 24
    assert go(root) == 24 - len(kept)
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    assert len(store.all("tiny", "quick")) == 24 and not list(root.rglob("*.partial"))


def test_a_table_and_its_files(tmp_path):
    root = write(tmp_path, "DDRM", "RePaint", "PrimalDualTV", "Oracle", seeds=2, tasks='["row", "half"]')
    go(root)
    table = report.table("tiny", root=root)
    metrics = ["sliced W2", "spread unseen", "network calls"]
    assert list(table.columns) == [
        "solver",
        "settings",
        "calls",
        *(f"{t} {m}" for t in ("row", "half") for m in metrics),
    ]
    assert list(table["solver"]) == ["DDRM", "RePaint", "Oracle", "exact samples"]  # total variation applies nowhere
    row = table.iloc[0]
    assert (row["calls"], row["row network calls"]) == ("3", "3") and row["settings"] == "steps=3 (paper)"
    assert re.fullmatch(r"[\d.]+ ± [\d.]+", row["row sliced W2"])
    assert table.iloc[1]["row sliced W2"] == "needs Inpainting, got Dense"
    raw, best = (table.attrs[k]["row sliced W2"] for k in ("raw", "best"))
    records = Store(root).all("tiny", "quick").values()
    values = [r.metrics["sliced_w2"]["value"] for r in records if r.key.startswith("mixture2/row/DDRM")]
    assert raw[0] == pytest.approx(sum(values) / 2) and raw[1] is None
    assert list(best) == [False, False, True, False]
    assert report.frame("tiny", root=root)["value"].notna().all()
    csv = pd.read_csv(StringIO(report.to_csv("tiny", root=root)))
    assert csv.query("solver == 'DDRM' and task == 'row' and metric == 'sliced_w2'")["value"].item() == raw[0]
    latex = report.to_latex("tiny", root=root)
    assert r"\toprule" in latex and r"table\_with \% signs" in latex and r"$\pm$" in latex and "±" not in latex
    assert commands.table("tiny", root=root).splitlines()[2].startswith("| solver | settings |")
    assert report.to_bibtex("tiny", root=root).startswith("@misc{scoreatlas-tiny-quick,\n")
    assert report.provenance("tiny", root=root)["records"] == 10


def test_a_table_without_records_and_an_unknown_format_are_refused(tmp_path):
    root = write(tmp_path, "DDRM")
    assert report.table("tiny", root=root).empty
    with pytest.raises(AtlasError, match="no records in profile 'quick'"):
        commands.table("tiny", root=root)
    with pytest.raises(AtlasError, match="no format 'xls'"):
        commands.table("tiny", format="xls", root=root)
