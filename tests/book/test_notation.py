"""The page of notation: every name in it exists, every equation is one of the book, and its block of code runs."""

import dataclasses
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "book" / "notation.md").read_text()
NAMES = sorted(set(re.findall(r"`(scoreatlas\.[\w.]+)`", PAGE)))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_exists(name):
    parts = name.split(".")
    for k in range(len(parts), 0, -1):  # the longest prefix that is a module
        try:
            found = importlib.import_module(".".join(parts[:k]))
            break
        except ModuleNotFoundError:
            continue
    for part in parts[k:]:
        fields = {f.name for f in dataclasses.fields(found)} if dataclasses.is_dataclass(found) else set()
        known = fields | set(getattr(found, "__annotations__", {}))
        if not hasattr(found, part) and part in known:
            return  # a field without a default
        found = getattr(found, part)


def test_every_line_of_a_table_names_code():
    rows = [
        line for line in PAGE.splitlines() if line.startswith("|") and not line.startswith(("|---", "| sign", "| here"))
    ]
    assert len(rows) > 40
    assert [r for r in rows if not re.search(r"`scoreatlas\.[\w.]+` \|$", r)] == []
    assert {r.count(" |") for r in rows} <= {5, 6}


def test_every_equation_is_somewhere_in_the_book():
    text = "\n".join(p.read_text() for p in (ROOT / "notebooks").rglob("*.md"))
    wanted = set(re.findall(r"\{eq\}`([\w-]+)`", PAGE))
    assert len(wanted) > 15 and {w for w in wanted if f":label: {w}\n" not in text} == set()


def test_the_conversions_on_the_page_hold():
    exec(compile(re.search(r"```python\n(.*?)```", PAGE, re.S)[1], "notation.md", "exec"), {})
