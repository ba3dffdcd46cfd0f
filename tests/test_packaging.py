"""The lock file, the workflows and the pages name only what exists."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from scoreatlas.cli import app

ROOT = Path(__file__).parents[1]
LOCK = [line for line in (ROOT / "requirements.lock").read_text().split("\n") if line]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FILES = [
    *WORKFLOWS,
    *(ROOT / name for name in ("Makefile", "README.md", "CONTRIBUTING.md", "book/how-to-read.md", "book/tables.md")),
]


def name(requirement: str) -> str:
    """A distribution's normalised name."""
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~\[; ]", requirement)[0]).lower()


def test_lock_pins_versions_and_names_no_address() -> None:
    assert [line for line in LOCK if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line)] == []
    assert "torch==2.13.0" in LOCK


def test_lock_covers_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    never_needed = ("peers", "cluster")  # compared with; for the Snakefile
    extras = {k: v for k, v in project["optional-dependencies"].items() if k not in never_needed}
    wanted = project["dependencies"] + [r for extra in extras.values() for r in extra]
    assert {name(r) for r in wanted} - {name(line) for line in LOCK} == set()


def commands(text: str) -> list[list[str]]:
    """Arguments of every call of the command line in a file."""
    calls = re.findall(r"(?:\$\(BIN\)/|\.venv/bin/|^)scoreatlas ([a-z][^\n#|)`]*)", text, re.M)
    return [shlex.split(re.sub(r"\$\([A-Z]+\)|\$[A-Z]+", "1", call)) for call in calls]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_commands_exist(path: Path) -> None:
    calls = commands(path.read_text())
    assert calls
    for call in calls:
        command = get_command(app)
        while call and call[0] in getattr(command, "commands", {}):
            command, call = command.commands[call[0]], call[1:]
        known = {option for p in command.params for option in p.opts}
        assert not getattr(command, "commands", None), f"{path.name}: {call} is no command"
        assert {word for word in call if word.startswith("--")} <= known, f"{path.name}: {call}"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_workflow_jobs_need_existing_jobs(path: Path) -> None:
    jobs = yaml.safe_load(path.read_text())["jobs"]
    for job in jobs.values():
        needs = job.get("needs", [])
        assert set([needs] if isinstance(needs, str) else needs) <= set(jobs)
        assert "timeout-minutes" in job


def test_ci_runs_the_two_commands() -> None:
    lines = (ROOT / ".ci/run").read_text().split("\n")
    assert [line for line in lines if line.startswith("make")] == ["make test", "make book"]
