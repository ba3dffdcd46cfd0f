"""The only training loop of the package."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from scoreatlas.rng import Rng

B = TypeVar("B", contravariant=True)


@runtime_checkable
class Trainable(Protocol[B]):
    """A network and the loss of each row of a batch: a denoiser, a paired method, a student."""

    @property
    def net(self) -> nn.Module: ...

    def loss(self, batch: B, rng: Rng, /) -> Tensor:
        """Loss of each row, shape (b,)."""
        ...


def batches(data: dict[str, Tensor], size: int, rng: Rng) -> Iterator[dict[str, Any]]:
    """Endless batches drawn with replacement; uint8 images become floats in [-1, 1]."""
    n = len(next(iter(data.values())))
    while True:
        index = (rng.uniform(size)[0] * n).long()
        yield {k: to_unit(v[index]) if v.dtype == torch.uint8 else v[index] for k, v in data.items()}


def to_unit(x: Tensor) -> Tensor:
    """uint8 in 0 ... 255 to float32 in [-1, 1]."""
    return x.float() / 127.5 - 1


def fit(
    trainable: Trainable[Any],
    data: dict[str, Tensor],
    *,
    steps: int,
    batch: int,
    lr: float = 1e-3,
    warmup: int = 100,
    ema: float = 0.999,
    seed: int = 0,
    max_seconds: float = float("inf"),
    autocast: bool = False,
    checkpoint: Path | None = None,
    every: int = 500,
    log: Callable[[dict[str, float]], None] = lambda row: None,
) -> nn.Module:
    """Adam with warm-up and cosine decay; returns a copy of ``trainable.net`` with averaged weights.

    The learning rate follows whichever of steps and seconds is nearer its end, so a run limited
    by time still ends annealed. Loss rows are averaged, gradients clipped to norm 1.

    Args:
        trainable: network and loss.
        data: tensors with the same length; uint8 entries are mapped to [-1, 1].
        steps: number of updates.
        batch: rows per update.
        lr: peak learning rate.
        warmup: updates of linear warm-up.
        ema: decay of the exponential moving average (shorter at the start).
        seed: of the batches and of the loss.
        max_seconds: stop after this long.
        autocast: compute in bfloat16 where torch deems it safe.
        checkpoint: safetensors file written every ``every`` updates, whole or not at all, and
            resumed from if it exists (weights, average, optimizer moments, step, seconds).
        every: updates between checkpoints and log rows.
        log: receives {"step", "seconds", "loss", "lr"}.
    """
    net = trainable.net
    device = next(net.parameters()).device
    average = copy.deepcopy(net).requires_grad_(False)
    optimizer = torch.optim.Adam(net.parameters(), lr=lr, betas=(0.9, 0.99))
    first, before = _resume(checkpoint, net, average, optimizer) if checkpoint else (0, 0.0)
    rng = Rng([2 * (seed + first)], rows=batch, device=device)  # a resumed run draws new numbers
    stream = batches(data, batch, Rng([2 * (seed + first) + 1], device=device))
    began, total = time.monotonic(), torch.zeros((), device=device)
    net.train()
    step, seconds = first, before
    while step < steps and seconds < max_seconds:
        done = min(1.0, max(step / steps, seconds / max_seconds))
        rate = lr * min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            loss = trainable.loss(next(stream), rng).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        decay = min(ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 1 - decay)
        total += loss.detach()
        step += 1
        seconds = before + time.monotonic() - began
        if step % every == 0 or step == steps or seconds >= max_seconds:
            log({"step": step, "seconds": seconds, "loss": float(total) / every, "lr": rate})
            total.zero_()
            if checkpoint:
                _save(checkpoint, net, average, optimizer, step, seconds)
    return average.eval()


def _save(
    path: Path, net: nn.Module, average: nn.Module, optimizer: torch.optim.Adam, step: int, seconds: float
) -> None:
    tensors = {f"net.{k}": v for k, v in net.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
    for i, p in enumerate(net.parameters()):
        for k, v in optimizer.state[p].items():
            tensors[f"optimizer.{i}.{k}"] = v
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(
        {k: v.detach().clone().contiguous() for k, v in tensors.items()}, partial,
        metadata={"step": str(step), "seconds": repr(seconds)},
    )  # fmt: skip
    partial.replace(path)


def _resume(path: Path, net: nn.Module, average: nn.Module, optimizer: torch.optim.Adam) -> tuple[int, float]:
    if not path.exists():
        return 0, 0.0
    tensors = load_file(path)
    net.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("net.")})
    average.load_state_dict({k[8:]: v for k, v in tensors.items() if k.startswith("average.")})
    for i, p in enumerate(net.parameters()):
        prefix = f"optimizer.{i}."
        optimizer.state[p] = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
    return progress(path)


def progress(checkpoint: Path) -> tuple[int, float]:
    """Updates and seconds behind a checkpoint."""
    with safe_open(checkpoint, "pt") as file:
        meta = file.metadata()
    return int(meta["step"]), float(meta["seconds"])
