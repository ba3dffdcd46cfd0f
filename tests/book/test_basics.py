"""The systems of section 2.1: each is cited there, and each that is a method points to code that the section runs."""

import re
from pathlib import Path

from scoreatlas import knowledge

TEXT = (Path(__file__).parents[2] / "notebooks" / "2-foundations" / "basics.md").read_text()
SYSTEMS = [s for s in knowledge.load() if s.chapter == "2.1"]


def test_every_system_is_cited():
    cited = {key for keys in re.findall(r"\{cite:[pt]\}`([^`]+)`", TEXT) for key in keys.split(",")}
    assert len(SYSTEMS) >= 5 and {s.key for s in SYSTEMS} <= cited


def test_every_method_points_to_code_that_the_section_runs():
    for s in SYSTEMS:
        if s.key == "yang2024survey":  # a taxonomy: there is nothing to run
            continue
        assert s.implementation, s.key
        module, _, name = s.implementation.rpartition(".")
        assert re.search(
            rf"from {module} import .*\b{name}\b|\b{module.rpartition('.')[2]}\.{name}\b|{name}\.iterate", TEXT
        ), s.key
