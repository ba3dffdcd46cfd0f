"""A hash of the code that a record depends on, blind to comments, docstrings and layout."""

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]


def source_hash(
    modules: Iterable[str],
    functions: Iterable[Callable[..., Any]] = (),
    package: Path = PACKAGE,
    alone: Iterable[str] = (),
) -> str:
    """sha256 over ``modules``, all they import inside the package, single ``functions``, and modules ``alone``.

    ``bench`` is left out, or every record would be stale after a change of a table's layout: what
    it contributes to a result, the factories of worlds and tasks, is passed in ``functions``.

    Args:
        modules: dotted names, beginning with the name of the package.
        functions: hashed by their own source.
        package: folder of the package.
        alone: modules hashed without what they import, those of ``bench`` too: the rulers of a measurement.
    """
    names = sorted(closure(modules, package))
    parts = [f"{name} {_module_hash(_file(name, package))}" for name in names]
    parts += sorted(f"{f.__qualname__} {_code_hash(_code(f))}" for f in functions)
    parts += sorted(f"{name} {_module_hash(_file(name, package))}" for name in alone)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def closure(modules: Iterable[str], package: Path = PACKAGE) -> set[str]:
    """``modules`` and every module of the package that they import, wherever the import stands; ``bench`` excluded."""
    seen: set[str] = set()
    todo = list(modules)
    while todo:
        name = todo.pop()
        if name not in seen and name.split(".")[1:2] != ["bench"]:
            seen.add(name)
            todo += _imports(_file(name, package), package)
    return seen


def imports(module: str, package: Path = PACKAGE) -> list[str]:
    """What one module imports inside the package, ``bench`` excluded."""
    return sorted(n for n in _imports(_file(module, package), package) if n.split(".")[1:2] != ["bench"])


def _file(name: str, package: Path) -> Path:
    path = package.joinpath(*name.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imports(path: Path, package: Path) -> list[str]:
    found = set()
    for module, names in _statements(path, *_stamp(path)):
        found |= {module} if not names else set()
        for name in names:  # a submodule, or a name that the module defines
            submodule = f"{module}.{name}"
            found.add(submodule if _file(submodule, package).exists() else module)
    return [n for n in found if n.split(".")[0] == package.name and _file(n, package).exists()]


@cache
def _statements(path: Path, mtime: int, size: int) -> list[tuple[str, tuple[str, ...]]]:
    """The import statements of a file: (module, names taken from it). A plan asks for each file once per cell."""
    found: list[tuple[str, tuple[str, ...]]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append((node.module, tuple(alias.name for alias in node.names)))
    return found


def _code(function: Callable[..., Any]) -> str:
    """Source of a function, found by its name in the file as it stands.

    By its line, as ``inspect`` finds it, another function would be read once the file is edited under a running suite.
    """
    path = Path(inspect.getfile(function))
    named = _functions(path, *_stamp(path)).get(function.__name__)
    return named or textwrap.dedent(inspect.getsource(function))  # defined inside another function


@cache
def _functions(path: Path, mtime: int, size: int) -> dict[str, str]:
    """Source of each function of a file, the first of a name."""
    text = path.read_text()
    found: dict[str, str] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            found.setdefault(node.name, ast.get_source_segment(text, node) or "")
    return found


def _module_hash(path: Path) -> str:
    return _cached_hash(path, *_stamp(path))


def _stamp(path: Path) -> tuple[int, int]:
    told = path.stat()
    return told.st_mtime_ns, told.st_size


@cache
def _cached_hash(path: Path, mtime: int, size: int) -> str:
    return _code_hash(path.read_text())


def _code_hash(code: str) -> str:
    return hashlib.sha256(repr(_canonical(ast.parse(code))).encode()).hexdigest()


def _canonical(node: Any) -> Any:
    """A syntax tree as nested tuples without docstrings, positions and empty fields.

    ``ast.dump`` would do, but what it prints differs between versions of Python.
    """
    if isinstance(node, list):
        return [_canonical(n) for n in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
        fields["body"] = fields["body"][1:]
    return type(node).__name__, [(k, _canonical(v)) for k, v in sorted(fields.items()) if v is not None and v != []]
