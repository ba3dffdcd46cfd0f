"""Which solvers there are, what each needs, and why one does not apply. Nothing registers itself."""

import dataclasses
import difflib
import importlib
import inspect
import pkgutil
import types
from functools import cache
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import numpy as np

import scoreatlas.solvers
from scoreatlas.bench.cell import Task, World
from scoreatlas.errors import AtlasError
from scoreatlas.solvers.base import Solver

Kind = tuple[type, ...]


class Hypotheses(NamedTuple):
    """What a solver assumes, read from its class line; several types are alternatives."""

    operator: Kind
    noise: Kind
    prior: Kind


@cache
def solvers() -> dict[str, type[Solver[Any, Any]]]:
    """Every concrete solver of ``scoreatlas.solvers`` by name, sorted.

    Raises:
        AtlasError: two solvers share a name.
    """
    found: dict[str, type[Solver[Any, Any]]] = {}
    for module in pkgutil.walk_packages(scoreatlas.solvers.__path__, f"{scoreatlas.solvers.__name__}."):
        for name, cls in vars(importlib.import_module(module.name)).items():
            here = inspect.isclass(cls) and issubclass(cls, Solver) and cls.__module__ == module.name
            if here and not inspect.isabstract(cls) and not name.startswith("_"):
                if name in found:
                    raise AtlasError(f"two solvers are named {name}: in {found[name].__module__} and {module.name}")
                found[name] = cls
    return dict(sorted(found.items()))


def hypotheses(cls: type[Solver[Any, Any]]) -> Hypotheses:
    """Operator, noise and prior types of ``class X(Solver[Measurement[Operator, Noise], Prior])``.

    Raises:
        AtlasError: the class line does not say them.
    """
    for base in (b for c in cls.__mro__ for b in getattr(c, "__orig_bases__", ())):
        origin = get_origin(base)
        if isinstance(origin, type) and issubclass(origin, Solver) and len(get_args(base)) == 2:
            measurement, prior = get_args(base)
            if len(get_args(measurement)) == 2:
                return Hypotheses(*(_kinds(a) for a in (*get_args(measurement), prior)))
    raise AtlasError(f"{cls.__name__} must say Solver[Measurement[operator, noise], prior] in its class line")


def why_not(solver: Solver[Any, Any] | type[Solver[Any, Any]], world: World, task: Task) -> str | None:
    """Why a solver does not apply to a task in a world, e.g. "needs Diagonalised, got MultiCoilMRI", or None."""
    needs = hypotheses(solver if isinstance(solver, type) else type(solver))
    if not any(isinstance(p, needs.prior) for p in world.priors):
        return f"needs a {_names(needs.prior)} prior, which {world.name} lacks"
    A, noise = task.draw(world.shape, np.random.default_rng(0))
    if not isinstance(noise, needs.noise):
        return f"needs {_names(needs.noise)} noise, got {type(noise).__name__}"
    if not isinstance(A, needs.operator):
        return f"needs {_names(needs.operator)}, got {type(A).__name__}"
    return None


def fitting_prior(solver: Solver[Any, Any], world: World) -> Any:
    """The first prior of the world that the solver accepts; ask :func:`why_not` before."""
    return next(p for p in world.priors if isinstance(p, hypotheses(type(solver)).prior))


def build(name: str, fields: dict[str, Any]) -> Solver[Any, Any]:
    """A solver from plain data: its name and its fields, as a suite file writes them.

    Lists become tuples and whole numbers become floats where the field is one, so that equal
    configurations have equal reprs.

    Raises:
        AtlasError: unknown solver, unknown field, or a value that the field does not take.
    """
    if name not in solvers():
        raise AtlasError(f"no solver named {name!r}{_guess(name, solvers())}; there are {', '.join(solvers())}")
    cls = solvers()[name]
    assert dataclasses.is_dataclass(cls)
    known = [f.name for f in dataclasses.fields(cls) if f.init]
    for field in fields:
        if field not in known:
            there = f"its fields are {', '.join(known)}" if known else "it has none"
            raise AtlasError(f"{name} has no field {field!r}{_guess(field, known)}; {there}")
    hints = get_type_hints(cls)
    values = {field: _value(name, field, hints[field], value) for field, value in fields.items()}
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise AtlasError(f"{name}({', '.join(f'{k}={v!r}' for k, v in values.items())}): {error}") from error


def _value(name: str, field: str, hint: Any, value: Any) -> Any:
    kinds = _kinds(hint)
    if isinstance(value, list):
        value = tuple(value)
    if float in kinds and int not in kinds and type(value) is int:
        value = float(value)
    plain = {int, float, bool, str, tuple, type(None)}
    if set(kinds) <= plain and type(value) not in kinds:
        raise AtlasError(f"{name}.{field} must be {_names(kinds)}, got {value!r}")
    return value


def _kinds(hint: Any) -> Kind:
    """Classes that ``isinstance`` understands: unions opened, type arguments dropped, None as its type."""
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(k for a in get_args(hint) for k in _kinds(a))
    if hint is None:
        return (type(None),)
    if hint is Any:
        return (object,)
    return (get_origin(hint) or hint,)


def _names(kinds: Kind) -> str:
    names = ["None" if k is type(None) else k.__name__ for k in kinds]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _guess(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
