"""A small digit classifier: the independent judge of samples, never part of a prior."""

from dataclasses import dataclass
from typing import Any, final

from torch import Tensor, nn

from scoreatlas.rng import Rng


@final
class Classifier(nn.Module):
    """Three strided convolutions and a linear head, for one-channel images whose sides are multiples of 8.

    Args:
        classes: number of classes.
        width: channels after the first convolution; they double twice.
        side: side of the images.
    """

    def __init__(self, classes: int = 10, width: int = 24, side: int = 32) -> None:
        super().__init__()
        self.config = {"classes": classes, "width": width, "side": side}
        self.body = nn.Sequential(
            *_stage(1, width), *_stage(width, 2 * width), *_stage(2 * width, 4 * width),
            nn.Flatten(), nn.Linear(4 * width * (side // 8) ** 2, 64),
        )  # fmt: skip
        self.head = nn.Sequential(nn.SiLU(), nn.Linear(64, classes))

    def features(self, x: Tensor) -> Tensor:
        """Features (b, 64) of images (b, 1, side, side) in [-1, 1]."""
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (b, classes)."""
        return self.head(self.features(x))


def _stage(channels: int, out: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, out, 5, stride=2, padding=2), nn.GroupNorm(4, out), nn.SiLU()


@final
@dataclass(frozen=True, eq=False)
class CrossEntropy:
    """Classification loss under small shifts and noise, a :class:`~scoreatlas.training.Trainable`.

    Args:
        net: the classifier.
        shift: largest shift in pixels, drawn per batch.
        noise: standard deviation of noise added to the images, so that judged samples may be a
            little rough.
    """

    net: Classifier
    shift: int = 2
    noise: float = 0.1

    def loss(self, batch: dict[str, Any], rng: Rng, /) -> Tensor:
        """Cross-entropy of each row (b,) for ``{"image": (b, 1, h, w), "label": (b,)}``."""
        dy, dx = ((2 * self.shift + 1) * rng.uniform(2)[0]).long().tolist()
        x = batch["image"].roll((dy - self.shift, dx - self.shift), (2, 3))
        logits = self.net(x + self.noise * rng.normal_like(x))
        return nn.functional.cross_entropy(logits, batch["label"], reduction="none")
