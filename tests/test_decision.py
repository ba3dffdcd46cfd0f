"""The decision table says what the records say."""

import dataclasses

import pandas as pd
import pytest

from scoreatlas.bench.aggregate import Grid
from scoreatlas.bench.catalogue import build
from scoreatlas.bench.decide import Decision
from scoreatlas.bench.store import Record
from scoreatlas.bench.suite import Entry, Pair, Profile, Suite, TableSpec
from scoreatlas.book.decision import deviations

PAIR = ("digits", "sr4")
# name: PSNR, half-width, LPIPS, residual, coverage, calls
TOLD = {
    "DPS": (20.0, 0.5, 0.30, 1.5, 1.0, 1000),
    "DDNM": (21.0, 0.8, 0.40, 1.0, 0.7, 100),
    "DDRM": (20.4, 0.7, 0.50, 1.05, 0.8, 20),
    "PiGDM": (18.0, 0.2, 0.20, 0.5, 1.0, 5),
}


def asked(broken: str | None = None) -> Decision:
    profile = Profile("quick", (0,), 4, 2, 8)
    entries = [Entry(build(name, {}), {}, "paper", ("quick",)) for name in TOLD]
    records = {}
    for e in entries:
        name = type(e.solver).__name__
        psnr, half, lpips, residual, coverage, calls = TOLD[name]
        means = {"psnr": psnr, "lpips": lpips, "residual": residual, "range_coverage": coverage}
        metrics = {k: {"value": v, "low": v - half, "high": v + half} for k, v in means.items()}
        key = f"{PAIR[0]}/{PAIR[1]}/{e.solver!r}/0"
        status = "failed" if name == broken else "ok"
        records[key] = Record(
            key, "images", "quick", *PAIR, {"name": name, "fields": {}, "repr": repr(e.solver), "source": "paper"}, 0,
            status, None, metrics if status == "ok" else {}, {}, {"denoiser_calls": calls}, {},
        )  # fmt: skip
    suite = Suite("images", {"quick": profile}, (Pair(*PAIR, ("quick",)),), tuple(entries), ())
    return Decision(Grid(TableSpec("t", "images", "", ("psnr",)), suite, "quick", records))


def name(pick) -> str:
    return type(pick.entry.solver).__name__


def test_choices_are_those_of_a_data_frame():
    frame = pd.DataFrame(TOLD, index=["psnr", "half", "lpips", "residual", "coverage", "calls"]).T
    d = asked()
    best = d.best(PAIR, "psnr", True)
    assert name(best) == frame.psnr.idxmax() == "DDNM"
    others = frame.drop(index="DDNM")
    assert best.tied == int((others.psnr + others.half >= frame.psnr.max()).sum()) == 1
    assert name(d.best(PAIR, "lpips", False)) == frame.lpips.idxmin() == "PiGDM"
    near = frame[frame.psnr > frame.psnr.max() - 1]
    assert name(d.cheapest(PAIR)) == near.calls.idxmin() == "DDRM"
    fair = frame[frame.residual.between(0.9, 1.1)]
    assert name(d.sampler(PAIR)) == (fair.coverage - 1).abs().idxmin() == "DDRM"  # PiGDM fits noise, DPS ignores data


def test_a_method_that_failed_is_not_chosen():
    assert name(asked("DDNM").best(PAIR, "psnr", True)) == "DDRM"


def test_deviations_are_read_from_the_header(tmp_path, monkeypatch):
    (tmp_path / "headed.py").write_text(
        '"""A title.\n\nDeviations:\n    - One, over\n      two lines.\n    - Two.\n\nMore.\n"""\n'
    )
    (tmp_path / "bare.py").write_text('"""A title."""\n')
    monkeypatch.syspath_prepend(tmp_path)
    assert deviations("headed") == ["One, over two lines.", "Two."]
    assert deviations("bare") == []


def test_the_grid_of_a_row_is_the_product(tmp_path):
    from scoreatlas.bench.suite import load
    from scoreatlas.errors import AtlasError

    head = "profiles.quick = { seeds = [0], problems = 1, samples = 1, max_rows = 1 }\n"
    head += "[[worlds]]\nname = 'mixture2'\ntasks = ['row']\n[[solvers]]\nname = 'DPS'\nsource = 'ours'\n"
    (tmp_path / "suites").mkdir()
    file = tmp_path / "suites" / "s.toml"
    row = "fields = { steps = 10 }\ngrid = { zeta = [0.1, 1], eta = [0, 0.5, 1] }\n"
    file.write_text(head + row)
    found = [(e.solver.zeta, e.solver.eta) for e in load("s", tmp_path).entries]
    assert found == [(0.1, 0.0), (0.1, 0.5), (0.1, 1.0), (1.0, 0.0), (1.0, 0.5), (1.0, 1.0)]
    assert all(dataclasses.asdict(e.solver)["steps"] == 10 for e in load("s", tmp_path).entries)
    file.write_text(head + row.replace("zeta", "steps"))
    with pytest.raises(AtlasError, match="not set yet"):
        load("s", tmp_path)
