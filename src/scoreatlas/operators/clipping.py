"""Clipping: what is too bright or too dark saturates."""

from typing import final

from torch import Tensor

from scoreatlas.operators.base import Operator


@final
class Clip(Operator):
    r"""y = clip(g x, -1, 1), non-linear: high dynamic range from one exposure.

    The task "HDR" of RED-diff and of DAPS, with g = 2. Where :math:`|g x| < 1` the derivative is g; where a value has
    been cut it is 0, so no gradient says how far beyond the edge the image is: only the prior does.

    Args:
        shape: shape of one image.
        gain: g > 0.

    Raises:
        ValueError: the gain is not positive.
    """

    def __init__(self, shape: tuple[int, ...], gain: float = 2.0) -> None:
        if not gain > 0:
            raise ValueError(f"the gain must be positive, got {gain}")
        self.shape, self.gain = tuple(shape), gain

    def __call__(self, x: Tensor) -> Tensor:
        return (self.gain * x).clamp(-1, 1)
