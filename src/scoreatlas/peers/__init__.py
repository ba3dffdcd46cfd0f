"""Other people's solvers on our denoisers and operators, as ordinary solvers: an optional extra.

``pip install scoreatlas[peers]`` brings deepinv, azula and diffusers. Each module here wraps one of
them and imports it when it is imported itself; nothing else in the package does. The catalogue does
not know them: they are asked for by :func:`available`. deepinv needs a torchvision that was built for
the installed torch: where torch is a CPU build, take torchvision from where that torch came from.

What a wrapper may do is convert: data range, noise level, time, dtype, layout of the data. It
corrects nothing. Two things differ from our own solvers and cannot be helped: most of these draw from
torch's global generator, so a batch has one random stream and a row depends on its neighbours; and
they show only their last state.
"""

import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import torch

from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver

VERSIONS = {"azula": "0.11.1", "deepinv": "0.5.0", "diffusers": "0.42.1"}  # what the wrappers are written against
LIBRARIES = tuple(VERSIONS)


def available() -> dict[str, type[Solver[Any, Any]]]:
    """Every wrapped solver by name, of the libraries that are installed; empty without the extra."""
    found: dict[str, type[Solver[Any, Any]]] = {}
    for library in LIBRARIES:
        if find_spec(library) is None:
            continue
        module = importlib.import_module(f"{__name__}.{library}")
        for name, cls in vars(module).items():
            here = inspect.isclass(cls) and cls.__module__ == module.__name__ and issubclass(cls, Solver)
            if here and not inspect.isabstract(cls):
                found[name] = cls
    return dict(sorted(found.items()))


def lacking() -> list[str]:
    """What is not installed, or not in the version that the wrappers are written against."""
    return [f"{name}=={wanted}" for name, wanted in VERSIONS.items() if _version(name) != wanted]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@contextmanager
def global_stream(rng: Rng) -> Iterator[None]:
    """Torch's global generator, seeded from ``rng`` and put back afterwards: for code that knows no other."""
    seed = int(rng.uniform(1)[0, 0].double() * 2**31)
    devices = [rng.device] if rng.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
