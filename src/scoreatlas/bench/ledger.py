"""A ledger of what runs below autograd: aten operations, stalls of the host, live memory."""

import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scoreatlas.bench import counting
from scoreatlas.priors.diffusion import Denoiser

# Operations whose result, or whose shape of result, the host has to read before it can go on.
STALLS = frozenset(
    f"aten.{name}"
    for name in (
        "_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim", "unique_consecutive",
        "repeat_interleave.Tensor",
    )
)  # fmt: skip
COPIES = (Tensor.cpu, Tensor.tolist, Tensor.numpy)  # on CPU tensors they are free and no operation shows them


@final
class Ledger:
    """Operations, stalls and live memory of the code that runs while it is open.

    Attributes:
        operations: how often each aten operation was called, views included.
        views: how many of them only describe memory anew, and launch nothing.
        stalls: operations that would make a GPU's host wait, by name: reading a number
            (``item``, ``float``, ``bool``, ``if``), results whose shape depends on values
            (``nonzero``, indexing by a boolean mask), copies to the host. Copies *from* the host,
            such as ``torch.tensor(x, device=...)``, may wait too and are not seen on a CPU.
        peak: largest number of bytes at once in tensors made since it was opened, inside the
            denoiser too; scratch memory inside an operation is not seen.
        closed: whether operations are left out at the moment.
    """

    def __init__(self) -> None:
        self.operations: Counter[str] = Counter()
        self.views = 0
        self.stalls: Counter[str] = Counter()
        self.peak = self._live = 0
        self.closed = False
        self._known: dict[int, weakref.finalize[Any, Any]] = {}

    @contextmanager
    def open(self) -> Iterator["Ledger"]:
        """Count until the end of the block."""
        with _Functions(self), _Operations(self):
            yield self

    def enter(self, operation: Any, arguments: Sequence[Any], result: Any) -> None:
        for leaf in tree_leaves(arguments):
            self._hold(leaf, mine=False)
        for leaf in tree_leaves(result):
            self._hold(leaf, mine=True)
        if self.closed:
            return
        name = str(operation).removesuffix(".default")
        self.operations[name] += 1
        self.views += operation.is_view
        if name in STALLS or name.startswith("aten.index") and _by_mask(name, arguments) or _to_host(arguments, result):
            self.stalls[name] += 1

    def _hold(self, leaf: Any, mine: bool) -> None:
        """Watch a storage until it dies; one that was there before the ledger was opened has no weight."""
        if not isinstance(leaf, Tensor) or leaf.layout != torch.strided:
            return  # a sparse matrix is part of an operator: it was there before, and has no storage of its own
        storage = leaf.untyped_storage()
        key, size = storage._cdata, storage.nbytes() if mine else 0
        if key in self._known:
            return
        self._live += size
        self.peak = max(self.peak, self._live)
        self._known[key] = weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        del self._known[key]
        self._live -= size


@final
class _Operations(TorchDispatchMode):
    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.ledger.enter(func, args, result)
        return result


@final
class _Functions(TorchFunctionMode):
    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in COPIES and args[0].device.type == "cpu" and not self.ledger.closed:
            self.ledger.stalls[func.__name__] += 1
        return func(*args, **(kwargs or {}))


def _by_mask(name: str, arguments: Sequence[Any]) -> bool:
    """x[mask], or x[mask] = v for more than one number (a single one is filled in without looking)."""
    if len(arguments) < 2 or not isinstance(arguments[1], (list, tuple)):
        return False
    masks = [i for i in arguments[1] if isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8)]
    fills = name.startswith("aten.index_put") and arguments[2].numel() == 1
    return bool(masks) and not fills


def _to_host(arguments: Sequence[Any], result: Any) -> bool:
    """A copy from a device to the host."""
    source = next((a for a in reversed(arguments) if isinstance(a, Tensor)), None)
    if source is None or not isinstance(result, Tensor):
        return False
    return source.device.type != "cpu" and result.device.type == "cpu"


class _Mark(torch.autograd.Function):
    """The identity, which closes the ledger and opens it again, in the other order on the way back."""

    @staticmethod
    def forward(x: Tensor, ledger: Ledger, counter: counting.Counter, first: bool) -> Tensor:
        ledger.closed = True
        out = x.view_as(x)
        ledger.closed = first
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Ledger, counting.Counter, bool], output: Tensor) -> None:
        _, ctx.ledger, ctx.counter, ctx.first = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        ctx.ledger.closed = not ctx.first
        ctx.counter.vjps += not ctx.first
        return gradients[0], None, None, None


@final
class Unseen:
    """A denoiser whose own operations the ledger leaves out; its calls and vjps are counted."""

    def __init__(self, denoiser: Denoiser, ledger: Ledger, counter: counting.Counter) -> None:
        self.denoiser, self.ledger, self.counter = denoiser, ledger, counter

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        self.counter.denoiser += 1
        z = _Mark.apply(x, self.ledger, self.counter, True)
        return _Mark.apply(self.denoiser(z, sigma), self.ledger, self.counter, False)
