"""Blur without the periodic border: what a camera records, and what zero padding makes of it."""

from typing import Literal, final

import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d

from scoreatlas.operators.base import Linear


@final
class OpenBlur(Linear):
    """y = k * x where the convolution needs no pixel from outside, or with zeros outside.

    "valid": data (b, c, h - kh + 1, w - kw + 1), those pixels of the blurred scene that depend on nothing outside the
    image; the image is then *larger* than the data, as a scene is larger than its photograph. "zero": data of the size
    of the image, which is taken to be surrounded by zeros. In images of [-1, 1] zero is middle grey, not black.

    Neither is diagonal in the Fourier basis. A singular value decomposition exists and no fast one is known.

    Args:
        kernel: (kh, kw), its centre at (kh // 2, kw // 2).
        shape: (c, h, w) of one image, at least as large as the kernel.
        border: "valid" or "zero".
        dtype: real dtype of the images.

    Raises:
        ValueError: the kernel is larger than the image, or of even size where the border is "zero".
    """

    def __init__(
        self,
        kernel: Tensor,
        shape: tuple[int, int, int],
        border: Literal["valid", "zero"] = "valid",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        (kh, kw), (c, h, w) = kernel.shape, shape
        if kh > h or kw > w:
            raise ValueError(f"kernel {kh}x{kw} is larger than the image {h}x{w}")
        if border == "zero" and not (kh % 2 and kw % 2):
            raise ValueError(f"zero padding needs a kernel of odd size, got {kh}x{kw}")
        self.shape, self.border = (c, h, w), border
        self._taps = kernel.flip(0, 1).to(dtype).expand(c, 1, kh, kw).contiguous()  # conv2d correlates
        self._pad = (kh // 2, kw // 2) if border == "zero" else (0, 0)

    def __call__(self, x: Tensor) -> Tensor:
        return conv2d(x, self._taps, padding=self._pad, groups=self.shape[0])

    def adjoint(self, y: Tensor) -> Tensor:
        return conv_transpose2d(y, self._taps, padding=self._pad, groups=self.shape[0])
