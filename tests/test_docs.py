"""The pages at the top of the repository say what is true: names exist, examples run, numbers match."""

import re
import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import bibtexparser
import pytest
import torch
import yaml

from scoreatlas import data
from scoreatlas.bench.catalogue import hypotheses, solvers
from scoreatlas.bibliography import problems
from scoreatlas.linalg import dot, norm
from scoreatlas.measurement import Gaussian, simulate
from scoreatlas.operators.inpainting import Inpainting, random_mask
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.gaussian_field import GaussianField
from scoreatlas.rng import Rng
from scoreatlas.schedules import VP

ROOT = Path(__file__).parents[1]
README, CONTRIBUTING, DATA = ((ROOT / f"{name}.md").read_text() for name in ("README", "CONTRIBUTING", "DATA"))


def block(text: str, before: str) -> str:
    """The first code block after a marker."""
    return re.search(re.escape(before) + r".*?```\w+\n(.*?)```", text, re.S)[1]


@pytest.fixture
def example(tmp_path: Path):
    """A function that imports one of the files printed in CONTRIBUTING.md."""
    names = []

    def load(path: str) -> ModuleType:
        file = tmp_path / Path(path).name
        file.write_text(block(CONTRIBUTING, f"<!-- file: {path} -->"))
        spec = spec_from_file_location(f"example_{file.stem}", file)
        module = module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up
        names.append(spec.name)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in names:
        del sys.modules[name]


def test_readme_names_every_solver():
    assert [name for name in solvers() if f"`{name}`" not in README] == []


def test_readme_names_no_class_that_does_not_exist():
    table = README[README.index("## What is in it") : README.index("## Run one chapter again")]
    code = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    named = re.findall(r"`([A-Z]\w+)`", table)
    assert len(named) > 20
    assert [name for name in named if f"class {name}" not in code] == []


def test_readme_links_every_chapter_and_nothing_else():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    chapters = {c["file"] for part in toc["parts"] for c in part["chapters"] if c["file"].startswith("notebooks/")}
    linked = set(re.findall(r"\((notebooks/[\w/-]+)\.md\)", README))
    assert linked == chapters


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "DATA.md", "CHANGELOG.md"])
def test_local_links_exist(page):
    targets = re.findall(r"\]\((?!https?://)([^)#]+)\)", (ROOT / page).read_text())
    assert [t for t in targets if not (ROOT / t).exists()] == []


def test_readme_example_runs():
    space: dict = {}
    exec(compile(block(README, "**A catalogue**"), "README.md", "exec"), space)
    assert space["samples"].shape == (8, 1, 32, 32)
    residual = (space["m"].y - space["m"].A(space["samples"])).square().mean((1, 2, 3)).sqrt() / 0.1
    assert (residual < 2).all()  # 1 is right; measured 1.1 ... 1.4 with 20 steps


def test_example_solver_keeps_rows_apart_and_forgets_the_data(example):
    """What CONTRIBUTING.md says of it: rows are independent, and from ``start`` = 1 it samples the prior.

    What is left of the data there is alpha_1 = 0.0066 times a contraction: 1 % of what the middle leaves is ample.
    """
    cls = example("src/scoreatlas/solvers/projection/sdedit.py").SDEdit
    assert hypotheses(cls).operator[0].__name__ == "Diagonalised"
    field = GaussianField.power_law((1, 8, 8), 2.0, 0.5, torch.float64)
    A = Inpainting(random_mask((1, 8, 8), 0.5, Rng([9])), torch.float64)
    truth = field.sample(Rng([0, 1, 2], dtype=torch.float64))
    m = simulate(truth, A, Gaussian(0.1), Rng([3, 4, 5], dtype=torch.float64))
    prior = DiffusionPrior(field, VP(), field.shape)

    def solved(y: torch.Tensor, start: float, *seeds: int) -> torch.Tensor:
        return cls(20, start)(type(m)(y, A, m.noise), prior, Rng(seeds, dtype=torch.float64))

    x = solved(m.y, 0.5, 6, 7, 8)
    assert (x[1] - solved(m.y[1:2], 0.5, 7)[0]).abs().max() < 1e-10
    left = [norm(solved(m.y, start, 6, 7, 8) - solved(-m.y, start, 6, 7, 8)).max() for start in (0.5, 1.0)]
    assert left[1] < 0.01 * left[0]


def test_example_operator_has_its_adjoint(example):
    A = example("src/scoreatlas/operators/grey.py").Grey((3, 8, 8))
    rng = Rng([0, 1], dtype=torch.float64)
    x, y = rng.normal(3, 8, 8), rng.normal(1, 8, 8)
    assert torch.allclose(dot(A(x), y), dot(x, A.adjoint(y)), atol=1e-12 * float(norm(x).max() * norm(y).max()))


def test_example_entry_is_valid():
    library = bibtexparser.parse_string(block(CONTRIBUTING, "## Add an entry"))
    assert [e.key for e in library.entries] == ["meng2022sdedit"]
    assert problems(library, "CONTRIBUTING.md", imports=False) == []


def test_data_page_has_the_numbers_of_the_manifest():
    for name, entry in data.manifest().items():
        if name.endswith(".png"):
            split = name.removesuffix(".png").rpartition("_")[2]
            assert re.search(rf"^\| {split} \| {entry['shape'][0]:,} \|", DATA, re.M), name
    for line in re.findall(r"^\| .* \| `scoreatlas\.data\.(\w+)` \| .* \| ([\d.]+) MB \|$", DATA, re.M):
        stem, size = line
        size_on_disk = sum(e["bytes"] for name, e in data.manifest().items() if name.startswith(stem)) / 1e6
        assert f"{size_on_disk:.1f}" == size, stem


def test_versions_agree():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
