"""The chapters of a book: MyST notebooks under ``notebooks/``."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jupytext
import yaml

from scoreatlas.errors import AtlasError

PROFILES = ("quick", "full")
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Chapter:
    """One executable chapter.

    Attributes:
        root: the checkout.
        name: path below ``notebooks/`` without its ending, e.g. ``appendix/tweedie``.
    """

    root: Path
    name: str

    @property
    def path(self) -> Path:
        return self.root / "notebooks" / f"{self.name}.md"

    @property
    def docname(self) -> str:
        """How Sphinx calls the page."""
        return f"notebooks/{self.name}"

    @cached_property
    def notebook(self) -> Any:
        """The chapter as a notebook without outputs.

        Raises:
            AtlasError: it cannot be read, or not exactly one code cell is tagged ``parameters``.
        """
        try:
            notebook = jupytext.read(self.path, fmt="md:myst")
        except Exception as error:  # the reader raises whatever its YAML and Markdown parsers raise
            raise AtlasError(f"{self.path}: not a MyST notebook ({error}); compare another chapter's header") from error
        tagged = [c for c in code_cells(notebook) if "parameters" in c.metadata.get("tags", [])]
        if len(tagged) != 1:
            raise AtlasError(f"{self.path}: {len(tagged)} code cells are tagged `parameters`; exactly one must be")
        return notebook

    @property
    def title(self) -> str:
        """The first heading."""
        prose = "\n".join(cell.source for cell in self.notebook.cells if cell.cell_type == "markdown")
        return next((line[2:].strip() for line in prose.split("\n") if line.startswith("# ")), self.name)


def code_cells(notebook: Any) -> list[Any]:
    """The code cells, in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def find_root(start: Path) -> Path:
    """The checkout that ``start`` lies in.

    Raises:
        AtlasError: there is no ``_toc.yml`` in it or above it.
    """
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / "_toc.yml").is_file():
            return folder
    raise AtlasError(f"no book at {start}: neither it nor a folder above has a _toc.yml; run this in a checkout")


def is_notebook(path: Path) -> bool:
    """Whether a Markdown file is a MyST notebook: its header says so, as Sphinx wants it to."""
    text = path.read_text(encoding="utf-8")
    if not text.startswith("---\n") or "\n---\n" not in text[4:]:
        return False
    try:
        header = yaml.safe_load(text[4:].split("\n---\n")[0])
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise AtlasError(f"{path}: the header between the --- lines is not YAML ({reason})") from error
    layout = header.get("jupytext", {}).get("text_representation", {}) if isinstance(header, dict) else {}
    return layout.get("format_name") == "myst"


def find(root: Path) -> list[Chapter]:
    """Every chapter of the checkout, in the order of the names of their files."""
    folder = root / "notebooks"
    paths = sorted(p for p in folder.rglob("*.md") if ".ipynb_checkpoints" not in p.parts and is_notebook(p))
    return [Chapter(root, p.relative_to(folder).with_suffix("").as_posix()) for p in paths]


def select(root: Path, names: Sequence[str]) -> list[Chapter]:
    """The named chapters, or all if no name is given.

    A name may be ``appendix/tweedie``, ``tweedie`` or the path of the file.

    Raises:
        AtlasError: a name is unknown or fits several chapters.
    """
    known = find(root)
    if not names:
        return known
    chosen = []
    for name in names:
        short = name.removeprefix("notebooks/").removesuffix(".md")
        found = [c for c in known if short in (c.name, Path(c.name).name)]
        if len(found) != 1:
            problem = "fits several chapters" if found else "is not a chapter"
            raise AtlasError(f"{name!r} {problem}; there are {', '.join(c.name for c in known) or 'none'}")
        chosen += found
    return chosen


def check_profile(profile: str, device: str) -> None:
    """Refuse an unknown profile or device.

    Raises:
        AtlasError: with the known ones.
    """
    if profile not in PROFILES:
        raise AtlasError(f"no profile {profile!r}; there are {' and '.join(PROFILES)}")
    if device not in DEVICES:
        raise AtlasError(f"no device {device!r}; there are {' and '.join(DEVICES)}")
