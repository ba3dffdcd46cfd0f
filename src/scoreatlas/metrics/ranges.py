"""Is the truth among the samples? Coverage that needs two samples only."""

from torch import Tensor


def range_coverage(samples: Tensor, truth: Tensor) -> Tensor:
    """Share of pixels whose true value lies between the least and the greatest sample, over its nominal value, (p,).

    If truth and r samples are exchangeable, as draws from one posterior are, the truth is outside the range of the
    samples with probability 2 / (r + 1), whatever their law (without ties); so the nominal share is (r - 1) / (r + 1).
    1 is right in the mean over images; less means samples too much alike, or biased; more means too much spread.

    Args:
        samples: (p, r, *s), r > 1 samples of each of p images.
        truth: (p, *s).

    Raises:
        ValueError: fewer than two samples.
    """
    r = samples.shape[1]
    if r < 2:
        raise ValueError(f"a range needs at least 2 samples, got {r}")
    inside = (samples.amin(1) <= truth) & (truth <= samples.amax(1))
    return inside.flatten(1).double().mean(1) * (r + 1) / (r - 1)
