"""A book of two chapters with a package of its own, in a temporary folder."""

from collections.abc import Callable
from pathlib import Path

import pytest

HEADER = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

"""
PARAMETERS = """```{code-cell} python
:tags: [parameters]
profile = "quick"
seed = 0
device = "cpu"
```
"""
ALPHA = """(alpha)=
# Alpha

Prose of alpha.

```{code-cell} python
:tags: [hide-input]
import sys
print("profile is", profile)
```

```{math}
:label: eq-alpha
a = 1
```

```{code-cell} python
def late():
    import scoreatlas.one
```
"""
BETA = """# Beta

Prose of beta: {eq}`eq-alpha`.

```{code-cell} python
if False:
    from scoreatlas import data, two
    from scoreatlas.bench import report
    report.frame("suite-toy")
```
"""
SOURCES = {
    "__init__": "",
    "base": "x = 1\n",
    "one": "from .base import x\n",
    "two": "y = 2\n",
    "unused": "z = 3\n",
    "data/__init__": "",
    "bench/__init__": "",
    "bench/report": "",
}
CONFIG = """title: Mini
author: Nobody
only_build_toc_files: true
execute: {execute_notebooks: cache, cache: _build/.jupyter_cache}
html: {baseurl: "https://example.org/"}
sphinx:
  recursive_update: true
  extra_extensions: [scoreatlas.book.directives, scoreatlas.book.pages, scoreatlas.book.numbering]
  config:
    atlas_report: fake_report
    atlas_numbers: {notebooks/alpha: "4.0", notebooks/beta: "A.1"}
    numfig_secnum_depth: 2
"""
TOC = """format: jb-book
root: book/intro
parts:
  - numbered: true
    chapters:
      - file: notebooks/alpha
      - file: notebooks/beta
"""


def chapter(body: str) -> str:
    """A chapter's text."""
    return HEADER + body.replace("\n\n", f"\n\n{PARAMETERS}\n", 1)


def write(path: Path, text: str) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    write(tmp_path / "_toc.yml", TOC)
    write(tmp_path / "_config.yml", CONFIG)
    write(tmp_path / "book/intro.md", "# Mini\n\nSee {ref}`alpha`.\n")
    write(tmp_path / "notebooks/alpha.md", chapter(ALPHA))
    write(tmp_path / "notebooks/beta.md", chapter(BETA))
    for name, code in SOURCES.items():
        write(tmp_path / f"src/scoreatlas/{name}.py", code)
    write(tmp_path / "src/scoreatlas/data/files/manifest.json", "{}")
    write(tmp_path / "benchmarks/results/quick/toy/1.json", "{}")
    return tmp_path


@pytest.fixture
def edit() -> Callable[[Path, str, str], None]:
    """Replaces a piece of a file that must be there."""

    def replace(path: Path, old: str, new: str) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return replace
