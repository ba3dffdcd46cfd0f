"""Which project modules a piece of code imports, directly and through others, found without running it."""

import ast
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path


def parse(code: str) -> ast.Module:
    """The syntax tree of a code cell; lines that begin with ``%`` or ``!`` are notebook commands and are skipped."""
    return ast.parse("\n".join("pass" if line.startswith(("%", "!")) else line for line in code.split("\n")))


@dataclass(frozen=True)
class Sources:
    """The modules below a source folder.

    Attributes:
        folder: the folder that holds the packages, e.g. ``src``.
    """

    folder: Path
    _imports: dict[str, frozenset[str]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def files(self) -> dict[str, Path]:
        """File of each module by its dotted name; a package is its ``__init__``."""
        files = {}
        for path in sorted(self.folder.rglob("*.py")):
            parts = path.relative_to(self.folder).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if name and all(p.isidentifier() for p in parts):
                files[name] = path
        return files

    @cached_property
    def digests(self) -> dict[str, str]:
        """sha256 of each module's file."""
        return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in self.files.items()}

    def named_in(self, code: str, package: str = "") -> frozenset[str]:
        """Modules of the project that ``code`` names in its import statements, wherever they stand.

        Parents count, because importing ``a.b`` runs ``a``. Code that imports ``pkgutil`` finds modules while it
        runs, so everything below the packages that it imports counts as well.

        Args:
            code: Python source, or a code cell.
            package: what relative imports refer to.
        """
        names: set[str] = set()
        for node in ast.walk(parse(code)):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = ".".join(package.split(".")[: package.count(".") + 2 - node.level]) if node.level else ""
                module = ".".join(part for part in (base, node.module) if part)
                names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
        searches = "pkgutil" in names
        known = {".".join(name.split(".")[: i + 1]) for name in names for i in range(name.count(".") + 1)}
        known &= self.files.keys()
        if searches:
            deepest = {n for n in known & names if self.files[n].name == "__init__.py"}
            known |= {m for m in self.files for n in deepest if m.startswith(f"{n}.")}
        return frozenset(known)

    def imports(self, name: str) -> frozenset[str]:
        """Modules that the module ``name`` imports directly."""
        if name not in self._imports:
            path = self.files[name]
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            self._imports[name] = self.named_in(path.read_text(encoding="utf-8"), package)
        return self._imports[name]

    def closure(self, names: Iterable[str]) -> frozenset[str]:
        """``names`` and everything they import, directly or not."""
        seen: set[str] = set()
        todo = list(names)
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo += self.imports(name)
        return frozenset(seen)
