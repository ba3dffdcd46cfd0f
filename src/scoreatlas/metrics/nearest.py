"""How far samples are from a finite data set."""

import torch
from torch import Tensor


def off_data(x: Tensor, reference: Tensor) -> float:
    """Root mean square distance of samples (n, d) to the nearest of ``reference`` (m, d); 0 if all are among them."""
    return float(torch.cdist(x.flatten(1), reference.flatten(1)).amin(1).square().mean().sqrt())
