"""The Snakefile: what it asks of the package, and whole runs of a small checkout where snakemake is installed."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.main import get_command

from scoreatlas.bench.runner import FailedCells, run
from scoreatlas.bench.store import Record, Store
from scoreatlas.cli import app

ROOT = Path(__file__).parents[1]
SNAKEFILE = (ROOT / "Snakefile").read_text()

SUITE = """
[profiles.quick]
seeds = [0, 1, 2, 3]
problems = 1
samples = 100
max_rows = 100

[[worlds]]
name = "mixture2"
tasks = ["row"]

[[solvers]]
name = "DDRM"
fields = { steps = 30 }
source = "ours"

[[solvers]]
name = "PseudoInverse"
source = "paper"

[[solvers]]
name = "DPS"
fields = { steps = 3, zeta = 1e300 }
source = "ours"
"""
CHAPTER = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A chapter

```{{code-cell}} python
:tags: [parameters]
profile = "quick"
seed = 0
device = "cpu"
```

```{{code-cell}} python
{code}
```
"""
CHAPTERS = {
    "reader": 'from scoreatlas.bench import report\nprint("records:", report.frame("tiny")["solver"].nunique())',
    "plain": 'print("no records here")',
    "broken": "1 / 0",
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
    atlas_numbers: {notebooks/reader: "1.1", notebooks/plain: "1.2", notebooks/broken: "1.3"}
    numfig_secnum_depth: 2
"""
TOC = """format: jb-book
root: book/intro
parts:
  - numbered: true
    chapters: [{file: notebooks/reader}, {file: notebooks/plain}, {file: notebooks/broken}]
"""
# What a cluster does, in small: start the script in the background, print its process id.
SUBMIT = 'sh "$1" >>"{log}" 2>&1 & echo $!\n'


def test_the_package_does_not_know_snakemake() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    assert not re.search(r"^\s*(from|import) snakemake", code, re.M)


def test_jobs_are_commands_with_known_options() -> None:
    calls = re.findall(r"\{ATLAS\} (\w+) (\w+)([^\"]*)", SNAKEFILE)
    assert [call[:2] for call in calls] == [("bench", "run"), ("book", "execute"), ("book", "build")]
    what = re.search(r"^WHAT = f\"(.*)\"$", SNAKEFILE, re.M)[1]
    for group, name, words in calls:
        command = get_command(app).commands[group].commands[name]
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"--[\w-]+", words + what)) <= known


def test_the_page_names_options_targets_and_executors_that_exist() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    commands = re.findall(r"^(?:\.venv/bin/)?(snakemake .*)$", page.replace("\\\n", ""), re.M)
    assert len(commands) >= 6
    options = set(re.findall(r'^    "(\w+)": ', SNAKEFILE, re.M))
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["cluster"]
    plugins = {re.match(r"snakemake-(?:executor|storage)-plugin-([\w-]+)", name) for name in extra} - {None}
    for command in commands:
        config = re.search(r"--config((?: \w+=\S+)+)", command)
        assert not config or set(re.findall(r"(\w+)=", config[1])) <= options, command
        used = re.findall(r"--(?:executor|default-storage-provider) (\S+)", command)
        assert set(used) <= {plugin[1] for plugin in plugins}, command
        targets = re.findall(r" ([a-z]+)(?= *(?:#|$))", re.sub(r"#.*|--\S+(?: [^-]\S*)*|-j \d+", "", command))
        assert all(f"rule {target}:" in SNAKEFILE for target in targets), command


needs_snakemake = pytest.mark.skipif(
    find_spec("snakemake") is None or find_spec("snakemake_executor_plugin_cluster_generic") is None,
    reason="snakemake is not installed: pip install -e '.[cluster]'",
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the code of this one, one suite of 12 cells and three chapters."""
    root = tmp_path / "checkout"
    for folder in ("benchmarks/suites", "notebooks", "book"):
        (root / folder).mkdir(parents=True)
    shutil.copy(ROOT / "Snakefile", root)
    shutil.copytree(ROOT / "profiles", root / "profiles")
    (root / "src").symlink_to(ROOT / "src")
    (root / "benchmarks/suites/tiny.toml").write_text(SUITE)
    for name, code in CHAPTERS.items():
        (root / f"notebooks/{name}.md").write_text(CHAPTER.format(code=code))
    (root / "book/intro.md").write_text("# Mini\n")
    (root / "_config.yml").write_text(CONFIG)
    (root / "_toc.yml").write_text(TOC)
    return root


def start(root: Path, *words: str, config: str = "shard=5") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "snakemake", *words, "--config", config]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    out = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=root, env=env, stdout=out, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def snakemake(root: Path, *words: str, config: str = "shard=5") -> tuple[int, str]:
    process = start(root, *words, config=config)
    told, _ = process.communicate(timeout=600)
    return process.returncode, told


def told(record: Record) -> tuple[object, ...]:
    """What must not depend on who ran a cell: seconds, memory and the time of day may."""
    calls = {name: n for name, n in record.cost.items() if name.endswith("calls")}
    where = {
        name: record.provenance[name] for name in ("source_hash", "instance_hash", "torch", "device", "dtype", "size")
    }
    return record.status, record.error, record.metrics, record.floor, calls, where


def records(root: Path) -> dict[str, tuple[object, ...]]:
    return {key: told(record) for key, record in Store(root).all("tiny", "quick").items()}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[object, ...]]:
    """The records that `scoreatlas bench run` writes."""
    root = tmp_path_factory.mktemp("expected")
    (root / "suites").mkdir()
    (root / "suites/tiny.toml").write_text(SUITE)
    with pytest.raises(FailedCells, match="^4 of 12 cells failed"):
        run("tiny", progress=False, root=root)
    return records(root)


def files(root: Path) -> dict[Path, int]:
    """Every file that a run may leave, with its time."""
    kept = [root / "benchmarks", root / "_build"]
    return {p: p.stat().st_mtime_ns for folder in kept for p in folder.rglob("*") if p.is_file()}


@needs_snakemake
def test_records_then_chapters_then_the_site(checkout: Path, expected: dict[str, tuple[object, ...]]) -> None:
    code, output = snakemake(checkout, "-n")
    assert code == 0 and "left to do: 12 cells in 3 shards, 3 chapters, the site\n" in output
    assert re.search(r"^cells\s+3$", output, re.M) and re.search(r"^chapter\s+3$", output, re.M), output
    assert not (checkout / "_build").exists()

    # Four cells give NaN and one chapter raises: both are told, and stop nothing but the site.
    code, output = snakemake(checkout, "-j", "2")
    assert code == 1 and "ZeroDivisionError" in output and output.count("cells failed and are recorded as such") == 3
    assert records(checkout / "benchmarks") == expected
    assert len(list((checkout / "_build/store").glob("*.ipynb"))) == 3  # one of them is the part that ran
    assert not (checkout / "_build/html").exists()

    broken = checkout / "notebooks/broken.md"
    broken.write_text(broken.read_text().replace("1 / 0", "1 / 1"))
    before = files(checkout)
    code, output = snakemake(checkout, "-j", "2")
    assert code == 0 and "left to do: 1 chapters, the site\n" in output, output
    assert "records: 3" in (checkout / "_build/html/notebooks/reader.html").read_text()
    assert {p: t for p, t in before.items() if "benchmarks" in p.parts}.items() <= files(checkout).items()

    before = files(checkout)
    code, output = snakemake(checkout, "-j", "2")
    assert code == 0 and "left to do: nothing\n" in output and not re.search("^rule", output, re.M), output
    assert files(checkout) == before


@needs_snakemake
def test_a_killed_run_on_a_cluster_resumes(checkout: Path, expected: dict[str, tuple[object, ...]]) -> None:
    log, script = checkout / "jobs.log", checkout / "submit.sh"
    script.write_text(SUBMIT.format(log=log))
    words = ("records", "-j", "3", "--executor", "cluster-generic", "--cluster-generic-submit-cmd", f"sh {script}")
    words += ("--seconds-between-status-checks", "1")
    store = Store(checkout / "benchmarks")
    process = start(checkout, *words)
    deadline = time.monotonic() + 300
    while len(store.paths("tiny", "quick")) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)  # the jobs too: they are of its session
    process.communicate()
    kept = {path: path.stat().st_mtime_ns for path in store.paths("tiny", "quick")}
    assert 3 <= len(kept) < 12

    code, output = snakemake(checkout, *words)
    assert code == 0, output + log.read_text()
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    assert records(checkout / "benchmarks") == expected
    (left_by_the_killed,) = (checkout / "_build/snakemake").iterdir()
    assert left_by_the_killed.name in log.read_text()


@needs_snakemake
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("profil=full", "error: no option 'profil'; --config takes profile, device, suites, shard, root"),
        ("profile=huge", "error: no profile 'huge'"),
        ("suites=exakt", "error: no suite named 'exakt'"),
    ],
)
def test_bad_options_end_in_one_line(checkout: Path, option: str, message: str) -> None:
    code, output = snakemake(checkout, "-n", config=option)
    assert code != 0 and message in output and "Traceback" not in output
