"""Moving plain objects that hold tensors between devices and dtypes."""

import copy
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def moved(holder: T, device: str | torch.device | None, dtype: torch.dtype | None) -> T:
    """A shallow copy of ``holder`` whose tensor attributes are moved and cast.

    Real floating tensors take ``dtype``, complex ones the complex dtype of the same precision,
    integer and boolean ones only move.
    """
    result = copy.copy(holder)
    for name, value in vars(holder).items():
        if isinstance(value, Tensor):
            if dtype is None or not (value.is_complex() or value.is_floating_point()):
                target = value.dtype
            else:
                target = dtype.to_complex() if value.is_complex() else dtype
            object.__setattr__(result, name, value.to(device=device, dtype=target))
    return result
