"""Nobody imports upward: read from the import statements of every module, wherever they stand."""

from pathlib import Path

import pytest

from scoreatlas.book.sources import Sources

# Lowest first; the longest prefix of a module's name decides.
LAYERS = (
    {"errors", "rng", "schedules", "chain", "tensors", "vocabulary"},
    {"operators.base"},
    {"linalg", "smc", "operators", "bibliography", "figures"},
    {"measurement"},
    {"data", "nn", "training"},
    {"priors"},
    {
        "priors.pretrained",
        "priors.zoo",
        "tweedie",
        "gaussian_flow",
        "dialects",
        "elbo",
        "parametrisation",
        "likelihood",
        "gauge",
    },
    {"solvers", "samplers", "priors.train", "priors.train_flows", "priors.train_blind", "priors.classifiers"},
    {"metrics", "knowledge", "peers"},
    {"bench"},
    {"book"},
    {"cli"},
)
SOURCES = Sources(Path(__file__).parents[1] / "src")
MODULES = sorted(m.removeprefix("scoreatlas.") for m in SOURCES.files if m != "scoreatlas")


def layer(module: str) -> int:
    """Height of a module's layer."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        for height, names in enumerate(LAYERS):
            if prefix in names:
                return height
    raise AssertionError(f"{module} has no layer; name it in LAYERS")


def imports(module: str) -> set[str]:
    """What a module imports, without the packages that it lies in or that its imports lie in."""
    found = {m.removeprefix("scoreatlas.") for m in SOURCES.imports(f"scoreatlas.{module}")} - {"scoreatlas"}
    return {m for m in found if not module.startswith(f"{m}.") and not any(o.startswith(f"{m}.") for o in found)}


@pytest.mark.parametrize("module", MODULES)
def test_nobody_imports_upward(module: str) -> None:
    upward = {other for other in imports(module) if layer(other) > layer(module)}
    assert not upward, f"{module} (layer {layer(module)}) imports {upward} from above"


@pytest.mark.parametrize("module", MODULES)
def test_bench_and_book_are_leaves(module: str) -> None:
    top = module.split(".")[0]
    reached = {other.split(".")[0] for other in imports(module)}
    assert top in ("bench", "book", "cli") or "bench" not in reached, f"{module} imports bench"
    assert top in ("book", "cli") or "book" not in reached, f"{module} imports book"


def test_solvers_know_no_samplers_and_samplers_only_the_solver_type() -> None:
    for module in MODULES:
        if module.startswith("solvers."):
            assert not {m for m in imports(module) if m.startswith("samplers")}, module
        if module.startswith("samplers."):
            assert {m for m in imports(module) if m.startswith("solvers")} <= {"solvers.base"}, module
