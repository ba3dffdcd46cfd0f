"""Counting what a solver asks for, without the solver noticing."""

import copy
import dataclasses
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, final

import torch
from torch import Tensor

from scoreatlas.operators.base import Diagonalised, Linear, Operator
from scoreatlas.priors.diffusion import Denoiser, DiffusionPrior

O = TypeVar("O", bound=Operator)


@dataclass
class Counter:
    """What was asked for.

    Attributes:
        denoiser: calls of the denoiser, each for a whole batch.
        vjps: vector-Jacobian products through the denoiser.
        operator: applications of A, of its adjoint or vjp, or of its pseudo-inverse: one each. One
            half for a transform by U or V alone, two of which make an application.
    """

    denoiser: int = 0
    vjps: int = 0
    operator: float = 0.0
    inside: bool = False


class _Watched(torch.autograd.Function):
    """The identity, whose backward pass counts."""

    @staticmethod
    def forward(x: Tensor, counter: Counter) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Counter], output: Tensor) -> None:
        ctx.counter = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ctx.counter.vjps += 1
        return gradients[0], None


@final
class _CountingDenoiser:
    def __init__(self, denoiser: Denoiser, counter: Counter) -> None:
        self.denoiser, self.counter = denoiser, counter

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        self.counter.denoiser += 1
        return _Watched.apply(self.denoiser(x, sigma), self.counter)


def counted_prior(prior: Any, counter: Counter) -> Any:
    """A diffusion prior whose denoiser counts; any other prior as it is."""
    if isinstance(prior, DiffusionPrior):
        return dataclasses.replace(prior, denoiser=_CountingDenoiser(prior.denoiser, counter))
    return prior


def counted_operator(A: O, counter: Counter) -> O:
    """A copy of ``A`` that counts and is still an instance of its class, under the same name."""
    weights: dict[str, float] = {"__call__": 1, "vjp": 1}
    if isinstance(A, Linear):
        weights |= {"adjoint": 1}
    if isinstance(A, Diagonalised):
        weights |= {"pinv": 1, "v": 0.5, "vt": 0.5, "u": 0.5, "ut": 0.5}
    members = {name: _counting(getattr(type(A), name), weight, counter) for name, weight in weights.items()}
    counted = copy.copy(A)
    kind = types.new_class(type(A).__name__, (type(A),), exec_body=lambda namespace: namespace.update(members))
    object.__setattr__(counted, "__class__", kind)
    return counted


def _counting(method: Callable[..., Tensor], weight: float, counter: Counter) -> Callable[..., Tensor]:
    def wrapped(self: Operator, *args: Tensor) -> Tensor:
        if counter.inside:  # an adjoint that is built from two transforms counts once
            return method(self, *args)
        counter.inside = True
        try:
            return method(self, *args)
        finally:
            counter.inside = False
            counter.operator += weight

    return wrapped


class PeakMemory:
    """Largest memory in use since construction, above what was in use then, in MB (10^6 bytes).

    On a GPU, what torch's allocator handed out. On Linux, the process's resident set, whose high
    water mark is reset first: memory that the host allocator kept from earlier work and uses again
    is not seen, so small numbers are lower bounds. Elsewhere None.
    """

    _reset, _status = Path("/proc/self/clear_refs"), Path("/proc/self/status")

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.first = 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.first = torch.cuda.memory_allocated(device)
        elif self._reset.exists():
            self._reset.write_text("5")  # proc(5): resets VmHWM
            self.first = self._read("VmRSS")

    def megabytes(self) -> float | None:
        if self.device.type == "cuda":
            return (torch.cuda.max_memory_allocated(self.device) - self.first) / 1e6
        if not self._reset.exists():
            return None
        return max(0, self._read("VmHWM") - self.first) / 1e6

    def _read(self, name: str) -> int:
        line = next(row for row in self._status.read_text().splitlines() if row.startswith(f"{name}:"))
        return 1024 * int(line.split()[1])
