"""Build the site from executed chapters; nothing is executed here."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from scoreatlas.book import generated, links
from scoreatlas.book.chapters import find
from scoreatlas.book.keys import runs
from scoreatlas.book.seed import seed
from scoreatlas.errors import AtlasError

SITE = Path("_build") / "html"
LOG = Path("_build") / "sphinx.log"
BUILT = Path("_build") / "built.json"
MADE_OF = ("_toc.yml", "_config.yml", "references.bib", "book", "notebooks", "src", "benchmarks")
JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"  # it cannot be run with -m


def build(root: Path, profile: str, device: str, fresh: bool = False, say: Callable[[str], None] = print) -> Path:
    """Build the site and check it; returns its first page.

    Args:
        root: the checkout.
        profile: which executions and records the pages show.
        device: on which they were made.
        fresh: forget what Sphinx remembers of earlier builds.
        say: receives a line for each stage.

    Raises:
        AtlasError: a chapter has not been executed, Sphinx warns, the site is empty or a link leads nowhere.
    """
    began = time.monotonic()
    (root / BUILT).unlink(missing_ok=True)
    if fresh:
        shutil.rmtree(root / "_build" / ".doctrees", ignore_errors=True)
        shutil.rmtree(root / SITE, ignore_errors=True)
    chapters = find(root)
    seed(root, runs(chapters, profile, device))
    generated.write(root, profile)
    when = time.time()  # what is edited from here on is newer than the site
    say(f"building {len(chapters)} chapters and the pages around them")
    sphinx(root, profile)
    index = root / SITE / "index.html"
    if not index.exists() or index.stat().st_size == 0:
        raise AtlasError(f"{index} is missing or empty although the build reported no error; see {root / LOG}")
    broken = links.check(root / SITE)
    if broken:
        raise AtlasError("\n".join(broken))
    mark(root, profile, device, when)
    say(f"built in {time.monotonic() - began:.1f} s, all links hold: {index}")
    return index


def mark(root: Path, profile: str, device: str, when: float) -> None:
    """Note that the site shows this profile and device as they were at ``when``, in seconds of the epoch."""
    (root / BUILT).write_text(json.dumps({"profile": profile, "device": device}))
    os.utime(root / BUILT, (when, when))


def is_current(root: Path, profile: str, device: str) -> bool:
    """Whether the site was built last for this profile and device, and nothing that it is made of is newer."""
    built = root / BUILT
    if not built.exists() or json.loads(built.read_text()) != {"profile": profile, "device": device}:
        return False
    parts = [root / SITE / "index.html", *(run.stored for run in runs(find(root), profile, device))]
    if not all(part.exists() for part in parts):
        return False
    return max(path.stat().st_mtime for path in (*parts[1:], *_sources(root))) <= built.stat().st_mtime


def _sources(root: Path) -> Iterator[Path]:
    """Files that pages are made of, and their folders, which change when a file goes."""
    for path in (root / name for name in MADE_OF if (root / name).exists()):
        yield path
        yield from (p for p in path.rglob("*") if "__pycache__" not in p.parts)


def sphinx(root: Path, profile: str) -> None:
    """Run Jupyter Book strictly: an unresolved reference or any other warning fails the build.

    Raises:
        AtlasError: with Sphinx's own lines.
    """
    log = root / LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", JUPYTER_BOOK, "build", "-n", "-W", "--keep-going", str(root)]
    with log.open("w") as file:
        code = subprocess.run(
            command, cwd=root, env=os.environ | {"SCOREATLAS_PROFILE": profile},
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, check=False,
        ).returncode  # fmt: skip
    if code == 0:
        return
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace"))
    # Forget this build: the next one would skip the pages that warned, and be green and wrong.
    shutil.rmtree(root / "_build" / ".doctrees", ignore_errors=True)
    told = [line for line in text.split("\n") if re.search(r"WARNING|ERROR|[Ee]rror:", line)]
    told = list(dict.fromkeys(told)) or text.strip().split("\n")[-1:]
    raise AtlasError("\n".join([*told[:20], f"Sphinx failed ({len(told)} messages); all of it is in {log}"]))
