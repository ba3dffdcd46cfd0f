"""The parts of the benchmarks: catalogue, counting, fingerprints, instances, suite files."""

import dataclasses
import importlib
import textwrap
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from scoreatlas.bench import aggregate, catalogue, suite
from scoreatlas.bench.cell import Cell, Task, instance
from scoreatlas.bench.commands import why
from scoreatlas.bench.compute import solve
from scoreatlas.bench.counting import Counter, counted_operator
from scoreatlas.bench.fingerprint import closure, source_hash
from scoreatlas.bench.suite import Profile
from scoreatlas.bench.tasks import TASKS, task
from scoreatlas.bench.worlds import world
from scoreatlas.errors import AtlasError
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.metrics.estimate import mean_interval
from scoreatlas.operators.base import Diagonalised, Operator
from scoreatlas.operators.inpainting import Inpainting
from scoreatlas.operators.mri import MultiCoilMRI
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver
from scoreatlas.solvers.guidance.dps import DPS
from scoreatlas.solvers.guidance.pigdm import PiGDM
from scoreatlas.solvers.projection.ddrm import DDRM
from scoreatlas.solvers.projection.repaint import RePaint


def test_the_catalogue_finds_solvers_by_their_class_line():
    found = catalogue.solvers()
    assert {"DPS", "DDRM", "DDNM", "PiGDM", "RePaint", "DiffPIR", "PseudoInverse", "Wiener"} <= set(found)
    assert all(issubclass(cls, Solver) and cls is not Solver for cls in found.values())
    assert catalogue.hypotheses(DPS) == ((Operator,), (Gaussian,), (DiffusionPrior,))
    assert catalogue.hypotheses(RePaint).operator == (Inpainting,)
    assert catalogue.hypotheses(found["PseudoInverse"]).prior == (type(None),)


def test_hypotheses_may_be_unions_and_must_be_there():
    @dataclass(frozen=True)
    class Either(Solver[Measurement[Inpainting | MultiCoilMRI, Gaussian], DiffusionPrior | None]):
        def iterate(self, m, prior, rng): ...

    class Silent(Solver):
        def iterate(self, m, prior, rng): ...

    assert catalogue.hypotheses(Either) == ((Inpainting, MultiCoilMRI), (Gaussian,), (DiffusionPrior, type(None)))
    with pytest.raises(AtlasError, match="Silent must say"):
        catalogue.hypotheses(Silent)


def test_why_not_says_what_is_needed_and_what_is_there():
    coils = torch.ones(2, 4, 4, dtype=torch.complex64) / 2**0.5
    mri = Task("mri", lambda shape, generator: MultiCoilMRI(coils, torch.ones(4, 4, dtype=torch.bool)), Gaussian(0.1))
    w = world("gaussian16")
    assert catalogue.why_not(DDRM(), w, mri) == "needs Diagonalised, got MultiCoilMRI"
    assert catalogue.why_not(RePaint(), w, task("row")) == "needs Inpainting, got Dense"
    assert catalogue.why_not(DDRM(), w, task("row")) is None
    reason = "needs a TotalVariation prior, which gaussian16 lacks"
    assert why("PrimalDualTV", "gaussian16", "row") == f"PrimalDualTV on row in gaussian16: {reason}"
    assert why("DPS", "gaussian16", "row").endswith("applies")


def test_build_makes_equal_configurations_equal():
    assert (
        repr(catalogue.build("DPS", {"zeta": 1, "steps": 7})) == repr(DPS(steps=7)) == "DPS(steps=7, zeta=1.0, eta=1.0)"
    )


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("DiffPIRR", {}, "no solver named 'DiffPIRR' .did you mean DiffPIR"),
        ("DPS", {"stepz": 3}, "DPS has no field 'stepz' .did you mean steps.*its fields are steps, zeta, eta"),
        ("DPS", {"steps": "many"}, "DPS.steps must be int, got 'many'"),
        ("DPS", {"steps": True}, "DPS.steps must be int, got True"),
        ("PseudoInverse", {"steps": 3}, "it has none"),
    ],
)
def test_bad_solvers_and_fields_are_refused_in_one_line(name, fields, message):
    with pytest.raises(AtlasError, match=message) as error:
        catalogue.build(name, fields)
    assert "\n" not in str(error.value)


def test_unknown_worlds_tasks_tables_and_suites_are_refused():
    with pytest.raises(AtlasError, match="no world named 'gaussian17'; there are"):
        world("gaussian17")
    with pytest.raises(AtlasError, match="no task named 'inpainting'; there are"):
        task("inpainting")
    with pytest.raises(AtlasError, match="no suite named 'exactt'"):
        suite.load("exactt")
    with pytest.raises(AtlasError, match="no table 'psnr'; there are"):
        aggregate.grid("psnr", "quick")
    with pytest.raises(AtlasError, match="has no profile 'fast'; there are quick, full"):
        suite.load("exact").profile("fast")


def test_the_suites_of_the_repository_are_valid():
    assert {"exact", "images"} <= set(suite.suites())
    assert all(suite.load(name).entries for name in suite.suites())
    assert aggregate.specifications()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"mixture2"', '"mixture3"', "no world named 'mixture3'"),
        ('"half"', '"halves"', "no task named 'halves'"),
        ('"DDNM"', '"DDNN"', "no solver named 'DDNN'"),
        ("steps = 50,", "step = 50,", "RePaint has no field 'step'"),
        ("samples = 1000", "sample = 1000", "has an unknown key 'sample'"),
        ("problems = 1", "", "lacks 'problems'"),
        ('source = "code"', 'source = "blog"', "must be one of paper, code, tuned, ours"),
        ('"sliced_w2"', '"w2"', "no metric 'w2'"),
        ("samples = 1000", 'samples = "many"', "samples must be of type int"),
        ("samples = 1000", "samples = 150", "samples must be at most 100 or a multiple of it"),
        ('profiles = ["quick"]', 'profiles = ["fast"]', "no profile 'fast'"),
        ("[[tables]]", "[[tables]", "is not TOML"),
    ],
)
def test_mistakes_in_a_suite_file_are_refused_in_one_line(tmp_path, old, new, message):
    text = (suite.BENCHMARKS / "suites" / "exact.toml").read_text()
    assert old in text
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "exact.toml").write_text(text.replace(old, new))
    with pytest.raises(AtlasError, match=message) as error:
        aggregate.specifications(tmp_path)
    assert "\n" not in str(error.value)


COUNTS = [
    (DPS(steps=5), 5, 5, 10),  # A and its vjp in each step
    (PiGDM(steps=5), 5, 5, None),
    (DDRM(steps=5), 5, 0, None),
    (RePaint(steps=6, jump=2, resample=2), 6 + 2 * 2, 0, None),  # jump * (resample - 1) * ceil((steps - jump) / jump)
]


@pytest.mark.parametrize(("solver", "calls", "vjps", "operator"), COUNTS, ids=lambda v: repr(v))
def test_calls_are_counted_and_counting_changes_nothing(solver, calls, vjps, operator):
    w, t, size = world("gaussian16"), task("half"), Profile("tiny", (0,), 1, 40, 40)
    problems = instance(w, t, 0, 1)
    x, cost = solve(Cell(w, t, solver, 0), problems, size, "cpu")
    assert (cost["denoiser_calls"], cost["vjps"]) == (calls, vjps)
    assert operator is None or cost["operator_calls"] == operator
    plain = solver(problems.m.repeat(40), w.priors[0], Rng([0], 40, dtype=w.dtype))
    assert torch.equal(x, plain)


def test_a_counted_operator_is_what_it_was():
    A = task("half").operator((8,), np.random.default_rng(0))
    counter = Counter()
    counted = counted_operator(A, counter)
    assert isinstance(counted, Inpainting) and isinstance(counted, Diagonalised)
    assert type(counted).__name__ == "Inpainting" and type(A) is Inpainting
    x = torch.arange(8.0)[None]
    assert torch.equal(counted.pinv(counted(x)), A.pinv(A(x))) and counter.operator == 2  # what pinv calls is inside
    counted.v(counted.vt(x))
    assert counter.operator == 3  # a pair of transforms is one application


def test_results_do_not_depend_on_how_many_rows_fit_into_memory():
    w, t = world("mixture2"), task("row")
    cell, problems = Cell(w, t, DDRM(steps=4), 1), instance(w, t, 1, 1)
    whole, parts = (solve(cell, problems, Profile("p", (1,), 1, 300, rows), "cpu") for rows in (300, 100))
    assert (whole[0] - parts[0]).abs().max() < 1e-12  # rounding of a matrix product may differ with its size
    assert whole[1]["denoiser_calls"] == parts[1]["denoiser_calls"] == 4


def test_instances_are_paired_over_solvers_and_share_the_truth_over_tasks():
    w = world("gaussian16")
    a, again, other = (instance(w, TASKS["row"], s, 2) for s in (0, 0, 1))
    assert a.digest == again.digest != other.digest
    assert torch.equal(a.truth, instance(w, TASKS["half"], 0, 2).truth)
    r = (a.m.y - a.m.A(a.truth)) / 0.3
    assert 0 < r.abs().max() < 5  # noise of the size that the task says


def test_the_key_is_the_configuration():
    cell = Cell(world("mixture2"), task("row"), DDRM(steps=5), 3)
    assert cell.key == "mixture2/row/DDRM(steps=5, eta=0.85, eta_b=1.0)/3"
    assert dataclasses.replace(cell, solver=DDRM(steps=6)).key != cell.key


@pytest.fixture
def package(tmp_path):
    root = tmp_path / "atlas"
    (root / "bench").mkdir(parents=True)
    (root / "__init__.py").write_text("")
    (root / "solver.py").write_text("from atlas.tools import half\nfrom atlas import other\nimport atlas.bench.x\n")
    (root / "tools.py").write_text(
        textwrap.dedent('''
        """Tools."""

        def half(x):
            """Half."""
            return x / 2  # a comment
        ''')
    )
    (root / "other.py").write_text("def f():\n    import atlas.late\n")
    (root / "late.py").write_text("VALUE = 1\n")
    (root / "bench" / "x.py").write_text("1\n")
    return root


def test_a_fingerprint_follows_imports_but_not_the_bench(package):
    names = {"atlas.solver", "atlas.tools", "atlas.other", "atlas.late"}
    assert closure(["atlas.solver"], package) == names


@pytest.mark.parametrize(
    ("file", "old", "new", "changes"),
    [
        ("tools.py", "a comment", "another comment", False),
        ("tools.py", "Half.", "One half,\n    of x.", False),
        ("tools.py", "def half(x):", "def half(\n    x,\n):", False),
        ("tools.py", "x / 2", "x / 3", True),
        ("late.py", "1", "2", True),
        ("bench/x.py", "1", "2", False),
    ],
)
def test_a_fingerprint_changes_with_code_and_not_with_prose(package, file, old, new, changes):
    before = source_hash(["atlas.solver"], package=package)
    path = package / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert (source_hash(["atlas.solver"], package=package) != before) == changes


def test_pooled_intervals_are_those_of_all_values():
    """Three means of four values each, with their own intervals, give back the interval of the twelve values."""
    values = np.random.default_rng(3).normal(20, 4, (3, 4)) + np.array([[0.0], [2.0], [-1.0]])
    together = aggregate.pooled([mean_interval(row) for row in values], 4)
    assert together == pytest.approx(mean_interval(values.flatten()), rel=1e-12)


def test_a_factory_is_hashed_by_its_name_whatever_line_it_moved_to(tmp_path, monkeypatch):
    """A suite that runs while somebody edits the file above a factory must not hash its neighbour."""
    module = tmp_path / "edited_factories.py"
    module.write_text("def first(x):\n    return x\n\n\ndef second(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    second = importlib.import_module("edited_factories").second
    before = source_hash([], [second])
    module.write_text('"""Six lines\n\n\n\n\nmore."""\n' + module.read_text())
    assert source_hash([], [second]) == before
    module.write_text(module.read_text().replace("2 * x", "3 * x"))
    assert source_hash([], [second]) != before
