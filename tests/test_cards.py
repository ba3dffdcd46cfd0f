"""Exactness cards: every solver has one, it says what the records say, and code and catalogue lead to it."""

import inspect
import math
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from scoreatlas import knowledge
from scoreatlas.bench import card, catalogue, commands, report
from scoreatlas.bench.store import Store
from scoreatlas.bench.suite import BENCHMARKS
from scoreatlas.book import cards, generated
from scoreatlas.figures import svg
from scoreatlas.solvers.blind.base import BlindSolver

ROOT = Path(__file__).parents[1]
NAMES = cards.names()


def test_every_solver_has_a_card_where_a_world_allows_one():
    """All but total variation, whose prior no exact world has, blind solvers, whose family none has, and classical
    methods for one instrument that none has.
    """
    blind = {name for name, cls in catalogue.solvers().items() if issubclass(cls, BlindSolver)}
    instruments = {"FilteredBackProjection", "ErrorReduction", "HIO"}
    assert set(catalogue.solvers()) - set(NAMES) == {"PrimalDualTV"} | instruments | blind


def test_every_card_is_in_the_book_and_in_its_docstring():
    text = (ROOT / "_toc.yml").read_text()
    entries = [c for part in yaml.safe_load(text)["parts"] for c in part["chapters"] if c["file"] == "book/cards/index"]
    assert [s["file"] for s in entries[0]["sections"]] == [f"book/cards/{n.lower()}" for n in NAMES]
    for name in NAMES:
        assert f"Exactness card: ``book/cards/{name.lower()}``." in inspect.getdoc(catalogue.solvers()[name]), name


def test_the_catalogue_links_every_card():
    page = knowledge.catalogue_page()
    for system in knowledge.load():
        name = system.implementation.rpartition(".")[2]
        assert (f"(#card-{name.lower()})" in page) >= (name in NAMES and bool(system.implementation)), name


@pytest.mark.parametrize("name", ["DDRM", "DPS"])
def test_series_are_means_over_the_seeds_of_the_records(name):
    records = [
        r for r in Store(BENCHMARKS).all("cards", "quick").values() if r.solver["name"] == name and r.world == "iid16"
    ]
    for s in card.series(name, "iid16"):
        zeta = float(s.label.partition("= ")[2] or 1)
        for i, calls in enumerate(s.calls):
            own = [
                r for r in records if r.cost["denoiser_calls"] == calls and r.solver["fields"].get("zeta", 1) == zeta
            ]
            assert len(own) == 3
            want = np.mean([r.metrics["spread_unobserved"]["value"] for r in own])
            assert s.values["spread_unobserved"][0][i] == pytest.approx(want, rel=1e-12)
        assert s.counts["sbc_observed"] == np.sum([r.counts["sbc_observed"] for r in own], 0).tolist()
        assert sum(s.counts["sbc_observed"]) == 3 * 100


def test_exact_samples_pass_the_code_that_judges_methods():
    """Over all cells the floor of the ranks exceeds its bound in about one of twenty: between 1 and 12 % of cells.

    Cells of one world and seed share their exact samples, so there are 21 independent ones in three quantities.
    """
    from scoreatlas.metrics.calibration import gap_bound

    floors = {}
    for r in Store(BENCHMARKS).all("cards", "quick").values():
        for q in ("sbc_observed", "sbc_unobserved", "sbc_likelihood"):
            if q in r.floor:
                floors[r.world, r.seed, q] = r.floor[q]
    share = np.mean([v > gap_bound(100) for v in floors.values()])
    assert len(floors) > 50 and share < 0.05 + 3 * math.sqrt(0.05 * 0.95 / len(floors))


def test_the_limit_of_ddrm_is_on_its_card():
    """Spread of ((1 + sqrt(1 - eta^2)) / 2)^(1/2) in unseen directions; 300 steps lack 3 % of infinity."""
    (s,) = card.series("DDRM", "iid16")
    limit = math.sqrt((1 + math.sqrt(1 - 0.85**2)) / 2)
    assert s.values["spread_unobserved"][0][-1] == pytest.approx(limit, rel=0.05)


def test_words_say_what_the_records_say():
    text = cards.verdict("DDRM", "quick")
    last = [s.values["spread_observed"][0][-1] for w, _ in card.worlds() for s in card.series("DDRM", w)]
    assert f"{min(last):.2f} to {max(last):.2f} of the right spread" in text
    assert "at 300 network calls" in text and "Over 7 worlds" in text
    assert "Cells that failed or were not finite: 0." in text


def test_a_picture_shows_every_world():
    drawing = svg(card.draw("DDRM"), "card")
    for world, _ in card.worlds():
        assert f">{world}<" in drawing


def test_long_tables_have_a_row_for_each_world_and_setting(tmp_path):
    frame = report.table("card-ddrm")
    worlds = [w for w, _ in card.worlds()]
    assert list(dict.fromkeys(v.partition(",")[0] for v in frame["world, task"])) == worlds
    assert len(frame) == len(worlds) * (4 + 1)  # four numbers of steps and the floor
    raw = frame.attrs["raw"]
    (s,) = card.series("DDRM", "gaussian16")
    row = frame.index[(frame["world, task"] == "gaussian16, half") & (frame["settings"] == "steps=300 (paper)")][0]
    assert raw.loc[row, "spread unseen"] == pytest.approx(s.values["spread_unobserved"][0][-1], rel=1e-12)
    for format, mark in (
        ("latex", r"\toprule"),
        ("csv", "gaussian16,half,spread_unobserved"),
        ("md", "| gaussian16, half |"),
    ):
        assert mark in commands.table("card-ddrm", "quick", format)


def test_pages_are_drawn_again_only_when_something_changed(tmp_path, monkeypatch):
    (tmp_path / "book").mkdir()
    (tmp_path / "_toc.yml").write_text("root: book/intro\nparts:\n- chapters:\n  - file: book/cards/index\n")
    drawn = []
    monkeypatch.setattr(cards, "pages", lambda profile: drawn.append(profile) or {"book/cards/index": "text"})
    monkeypatch.setattr(cards, "state", lambda profile: "one")
    generated.write(tmp_path, "quick")
    generated.write(tmp_path, "quick")
    assert drawn == ["quick"] and (tmp_path / "book/cards/index.md").read_text() == "text"
    monkeypatch.setattr(cards, "state", lambda profile: "two")
    generated.write(tmp_path, "quick")
    assert len(drawn) == 2


def test_a_page_has_its_tables_and_its_label():
    text = cards.page("Wiener", "quick")
    assert text.startswith(cards.NOTE + "(card-wiener)=\n# Wiener")
    assert re.findall(r"\{bench-table\} ([\w-]+)", text) == ["field-wiener"]
