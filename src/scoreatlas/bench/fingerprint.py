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
    modules: Iterable[str], functions: Iterable[Callable[..., Any]] = (), package: Path = PACKAGE
) -> str:
    """sha256 over ``modules``, all they import inside the package, and single ``functions``.

    ``bench`` is left out, or every record would be stale after a change of a table's layout: what
    it contributes to a result, the factories of worlds and tasks, is passed in ``functions``.

    Args:
        modules: dotted names, beginning with the name of the package.
        functions: hashed by their own source.
        package: folder of the package.
    """
    names = sorted(closure(modules, package))
    parts = [f"{name} {_module_hash(_file(name, package))}" for name in names]
    parts += sorted(f"{f.__qualname__} {_code_hash(textwrap.dedent(inspect.getsource(f)))}" for f in functions)
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


def _file(name: str, package: Path) -> Path:
    path = package.joinpath(*name.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imports(path: Path, package: Path) -> list[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:  # a submodule, or a name that the module defines
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if _file(submodule, package).exists() else node.module)
    return [n for n in found if n.split(".")[0] == package.name and _file(n, package).exists()]


def _module_hash(path: Path) -> str:
    stamp = path.stat()
    return _cached_hash(path, stamp.st_mtime_ns, stamp.st_size)


@cache
def _cached_hash(path: Path, mtime: int, size: int) -> str:
    return _code_hash(path.read_text())


def _code_hash(code: str) -> str:
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
                node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
