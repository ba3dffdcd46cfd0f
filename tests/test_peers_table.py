"""The record of the comparison with other libraries and the tables made of it. None of this needs the libraries."""

import copy
import json
import math
import sys
import tomllib
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
import torch

from scoreatlas import peers as wrappers
from scoreatlas.bench import commands, peers, report, sources
from scoreatlas.bench.aggregate import number
from scoreatlas.bench.cell import instance
from scoreatlas.bench.fingerprint import source_hash
from scoreatlas.bench.peers import __main__ as program
from scoreatlas.bench.peers import measure
from scoreatlas.bench.peers import record as records
from scoreatlas.bench.peers.rows import ROWS
from scoreatlas.bench.peers.tables import TABLES
from scoreatlas.bench.suite import BENCHMARKS
from scoreatlas.bench.tasks import task
from scoreatlas.bench.worlds import world
from scoreatlas.book import tables
from scoreatlas.errors import AtlasError
from scoreatlas.metrics.distortion import psnr
from scoreatlas.metrics.estimate import Estimate, mean_interval
from scoreatlas.solvers.base import State
from scoreatlas.solvers.classical.pseudo_inverse import PseudoInverse

RECORD = peers.load()


@pytest.fixture(autouse=True)
def without_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt to import one of them is an error."""
    for name in wrappers.LIBRARIES:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a fresh copy of the record and no suites."""
    fresh = RECORD | {"provenance": RECORD["provenance"] | records.dependencies()}
    fresh["rows"] = [row | {"asked": asked.asked} for row, asked in zip(RECORD["rows"], ROWS, strict=True)]
    records.save(fresh, tmp_path)
    return tmp_path


def test_a_fresh_record_passes_and_a_missing_one_fails(root: Path, tmp_path: Path) -> None:
    assert commands.check(root=root) == "peers (quick): all records are there and fresh"
    assert commands.check("peers", root=root) == commands.check(root=root)
    assert commands.check(root=root, profile="full") == ""  # it is made in one profile
    peers.path(root).unlink()
    for name in (None, "peers"):
        with pytest.raises(AtlasError) as error:
            commands.check(name, root=root)
        assert str(error.value).split("\n") == [
            "peers (quick): missing: the whole record",
            "1 records need `python -m scoreatlas.bench.peers`",
        ]


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("source_hash", "the code it depends on has changed"),
        ("weights_sha256", "the weights of its prior have changed"),
        ("data_sha256", "its data have changed"),
    ],
)
def test_a_stale_record_fails_the_check(root: Path, what: str, why: str) -> None:
    old = peers.load(root)
    old["provenance"][what] = "0" * 64
    records.save(old, root)
    with pytest.raises(AtlasError, match=f"^peers .quick.: stale: {why}: every row\n1 records need `python -m"):
        commands.check(root=root)


def test_the_hash_covers_solvers_wrappers_and_rulers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}
    monkeypatch.setattr(records, "source_hash", lambda modules, functions, alone: asked.update(m=modules, a=alone))
    records.dependencies()
    wanted = {f"scoreatlas.peers.{name}" for name in wrappers.LIBRARIES} | {"scoreatlas.solvers.guidance.dps"}
    assert wanted | {"scoreatlas.metrics.distortion", "scoreatlas.priors.pretrained"} <= asked["m"]
    assert {"scoreatlas.bench.peers.measure", "scoreatlas.bench.cost", "scoreatlas.bench.ledger"} <= set(asked["a"])


def test_a_module_alone_is_hashed_by_its_code(tmp_path: Path) -> None:
    """Of ``bench`` too, which is left out elsewhere; blind to comments, as everywhere."""
    package = tmp_path / "pack"
    (package / "bench").mkdir(parents=True)

    def after(text: str) -> str:
        (package / "bench" / "ruler.py").write_text(text)
        return source_hash([], package=package, alone=["pack.bench.ruler"])

    first = after("N = 1\n")
    assert first != source_hash([], package=package)
    assert after("# longer\nN = 1\n") == first != after("N = 12\n")


def test_a_row_that_is_not_asked_for_and_one_that_is_missing(root: Path) -> None:
    old = peers.load(root)
    old["rows"][1]["asked"]["fields"] = {"zeta": "7.0"}
    records.save(old, root)
    problems = {f.problem.partition(":")[0]: f.key for f in peers.check(root=root)}
    assert set(problems) == {"missing", "left over"}
    assert json.loads(problems["left over"])["fields"] == {"zeta": "7.0"}
    assert json.loads(problems["missing"])["name"] == "DPS"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "truncated or not a record; delete it and run `python -m"),
        (lambda text: text.replace('"failed": 0', '"failed": 1', 1), "does not match its own sha256: altered; delete"),
        (lambda text: "[]", "truncated or not a record"),
    ],
)
def test_a_damaged_record_is_refused(root: Path, damage, message: str) -> None:
    path = peers.path(root)
    path.write_text(damage(path.read_text()))
    for command in (
        lambda: peers.load(root),
        lambda: commands.check(root=root),
        lambda: report.table("peers", root=root),
        lambda: report.to_csv("peers-cost", root=root),
    ):
        with pytest.raises(AtlasError, match=message) as error:
            command()
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_write_that_fails_leaves_the_old_record(root: Path) -> None:
    before = peers.path(root).read_text()
    with pytest.raises(TypeError):
        records.save({"rows": [object()]}, root)
    assert peers.path(root).read_text() == before and not list(root.rglob("*.partial"))


def test_without_the_libraries_measuring_ends_in_one_line(monkeypatch, capsys: pytest.CaptureFixture) -> None:
    before = peers.path().read_bytes()
    monkeypatch.setattr(wrappers, "lacking", lambda: ["deepinv==0.5.0"])
    with pytest.raises(SystemExit) as exit:
        program.main([])
    assert exit.value.code == 1 and peers.path().read_bytes() == before
    assert capsys.readouterr().err == "error: not installed: deepinv==0.5.0; pip install 'scoreatlas[peers]'\n"


def test_a_library_in_another_version_is_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrappers, "_version", lambda name: "0.0.1")
    assert wrappers.lacking() == [f"{name}=={wanted}" for name, wanted in wrappers.VERSIONS.items()]


def test_the_extra_pins_what_the_wrappers_and_the_record_say() -> None:
    project = tomllib.loads((BENCHMARKS.parent / "pyproject.toml").read_text())["project"]
    pinned = dict(line.split("==") for line in project["optional-dependencies"]["peers"])
    assert {k: v for k, v in pinned.items() if k != "torchvision"} == wrappers.VERSIONS
    assert RECORD["provenance"]["libraries"] == wrappers.VERSIONS


def test_the_tables_stand_beside_those_of_the_suites() -> None:
    found = report.tables()
    assert {id for id, spec in found.items() if spec.suite == "peers"} == set(TABLES)
    assert "exact-gaussian" in found and set(TABLES) <= set(tables.ids())


def test_an_id_is_used_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLES, "exact-gaussian", TABLES["peers"])
    with pytest.raises(AtlasError, match="table id 'exact-gaussian' is used by exact and peers"):
        report.tables()


@pytest.mark.parametrize("id", TABLES)
def test_a_table_shows_the_numbers_of_the_record(id: str) -> None:
    """On the page, in every file: the value that the record has for that row, world, task and metric, or its reason."""
    sheet, frame, csv = sources.sheet(id), report.table(id), pd.read_csv(StringIO(report.to_csv(id)))
    places, words, shown = TABLES[id].places, len(sheet.heads), 0
    kept = [
        row for row in RECORD["rows"] if {(c["world"], c["task"], c["metric"]) for c in row["cells"]} >= set(places)
    ]
    cells = [row["cells"] for row in kept] + ([RECORD["floor"]] if sheet.spec.floor else [])
    assert len(cells) == len(sheet.lines) > 0 and len(csv) == len(cells) * len(places)
    for i, found in enumerate(cells):
        for j, place in enumerate(places):
            (c,) = [c for c in found if (c["world"], c["task"], c["metric"]) == tuple(place)]
            text, raw = frame.iloc[i, words + j], frame.attrs["raw"].iloc[i, words + j]
            row = csv.iloc[j * len(cells) + i]
            assert (row["world"], row["task"], row["metric"]) == tuple(place)
            if i < len(kept):
                asked = kept[i]["asked"]
                assert (row["method"], row["library"], row["source"]) == tuple(
                    asked[k] for k in ("method", "library", "source")
                )
            if c["value"] is None:
                assert raw is None and math.isnan(row["value"])
                assert text == c["note"] != ""
                continue
            low, high = (math.nan if c[end] is None else c[end] for end in ("low", "high"))
            assert raw == row["value"] == c["value"]
            assert text.startswith(number(Estimate(c["value"], low, high)))
            shown += 1
    assert shown > len(cells)
    latex, markdown = report.to_latex(id), report.to_markdown(id)
    assert latex.count(r" \\") == len(cells) + 1 and f"\\label{{tab:{id}}}" in latex
    assert markdown.count("\n|") == len(cells) + 2
    assert report.to_bibtex(id).startswith(f"@misc{{scoreatlas-{id}-quick,\n")


def test_an_interval_is_that_of_the_values_behind_it() -> None:
    """Means and Student's intervals over 12 images, 4 problems or 6 runs, computed again."""
    again = [c for cells in (*(row["cells"] for row in RECORD["rows"]), RECORD["floor"]) for c in cells if c["values"]]
    assert {len(c["values"]) for c in again} >= {4, 6, 12}
    for c in again:
        wanted = mean_interval(c["values"])
        assert (c["value"], c["low"], c["high"]) == pytest.approx(tuple(wanted), rel=1e-9)


def test_every_row_is_shown_and_a_failure_says_why() -> None:
    quality, samplers = sources.sheet("peers-quality"), sources.sheet("peers-samplers")
    assert len(quality.lines) + len(samplers.lines) == len(ROWS)
    for line in quality.lines:
        assert all(shown.estimate or shown.note for shown in line.cells)
    told = dict(zip([line.words[:2] for line in quality.lines], quality.lines, strict=True))
    assert told["DDRM", "deepinv"].cells[2].text == "needs Inpainting, got BlockAverage"


def test_the_best_of_a_column_is_marked_where_rows_compete() -> None:
    """By hand: the highest PSNR, the spread nearest to 1, and the quickest that calls the network at all."""
    marks = {id: report.table(id).attrs["best"].any() for id in TABLES}
    assert not marks["peers-cost"].any() and not marks["peers-samplers"].any()
    frame = report.table("peers-quality")
    raw, best = frame.attrs["raw"], frame.attrs["best"]
    assert raw["inpaint PSNR"][best["inpaint PSNR"]].item() == max(raw["inpaint PSNR"])
    assert raw["seconds"].astype(float).idxmin() == 0 and raw["seconds"][best["seconds"]].item() == min(
        raw["seconds"][1:]
    )
    exact = report.table("peers-exactness")
    spread = exact.attrs["raw"]["spread seen"][:-1].astype(float)
    assert exact.attrs["best"]["spread seen"].idxmax() == (spread - 1).abs().idxmin()  # exact samples do not compete


def test_all_rows_have_the_budget_and_the_same_data() -> None:
    for row in RECORD["rows"]:
        if row["asked"]["name"] != "PseudoInverse" and row["calls"]:
            assert row["calls"]["denoiser_calls"] == measure.BUDGET, row["repr"]
    assert RECORD["provenance"]["instances"] == measure.digests()


def test_the_tuned_value_is_the_best_of_its_curve() -> None:
    rows = [row for row in RECORD["rows"] if row["tuning"]]
    assert len(rows) == sum(row.tune is not None for row in ROWS) > 0
    for row in rows:
        field, values = row["asked"]["tune"]
        assert [v for v, _ in row["tuning"]] == values
        best = max(row["tuning"], key=lambda point: point[1])[0]
        assert f"{field}={best!r}" in row["repr"]


def test_the_line_under_a_table_says_where_it_comes_from() -> None:
    told, shown = RECORD["provenance"], tables.load("peers", "quick")
    assert shown.provenance["commit"].startswith(told["commit"][:10]) and not told["dirty"]
    assert {k: shown.provenance[k] for k in wrappers.VERSIONS} == wrappers.VERSIONS
    assert (shown.provenance["profile"], shown.provenance["dates"]) == ("quick", told["utc"][:10])
    assert shown.provenance["records"] == len(shown.rows)
    with pytest.raises(AtlasError, match="^table 'peers' has no records in profile 'full': it is made in .*'quick'"):
        tables.load("peers", "full")


def test_exact_samples_have_spread_1_and_the_bias_of_their_number() -> None:
    """Spread within 5 standard errors of 1, sqrt(1 / 2 n k); bias^2 of k = 8 directions is chi^2 / k n."""
    cells = {c["metric"]: c["values"] for c in measure.exactness(None, measure.SHORT)}
    for group in ("observed", "unobserved"):
        for spread in cells[f"spread_{group}"]:
            assert abs(spread - 1) < 5 / math.sqrt(2 * measure.SAMPLES * 8)
        for bias in cells[f"bias_{group}"]:
            assert bias * math.sqrt(measure.SAMPLES) < math.sqrt(30.6 / 8)  # 99.98 % of chi^2 with 8 degrees of freedom


def test_quality_is_that_of_the_shared_data() -> None:
    """The pseudo-inverse by hand; a method that raises is counted, with its reason, and hides nothing."""
    cells, calls = measure.quality(PseudoInverse())
    found = {(c["task"], c["metric"]): c["values"] for c in cells}
    for name in measure.TASKS:
        byhand = []
        for seed in measure.SEEDS:
            p = instance(world("digits"), task(name), seed, measure.IMAGES)
            byhand += psnr(p.m.A.pinv(p.m.y), p.truth).tolist()
        assert found[name, "psnr"] == pytest.approx(byhand, abs=1e-4)  # dB; float32
    assert calls == {"denoiser_calls": 0, "vjps": 0}


def test_a_method_that_fails_is_shown_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def iterate(self, m, prior, rng):
        x = m.A.pinv(m.y)
        x[0] = torch.nan
        yield State(x, x)

    monkeypatch.setattr(PseudoInverse, "iterate", iterate)
    cells, _ = measure.quality(PseudoInverse())
    first = next(c for c in cells if c["metric"] == "psnr")
    assert (first["value"], first["seeds"], first["failed"]) == (None, 0, 3)
    assert first["note"] == "ArithmeticError: not finite"
    row = copy.deepcopy(RECORD["rows"][0]) | {"cells": cells}
    sheet = type(sources.sheet("peers-quality"))(report.tables()["peers-quality"], "quick", RECORD | {"rows": [row]})
    assert sheet.frame.iloc[0, 4] == "failed (3 of 3)" and sheet.provenance["failed"] == 1
