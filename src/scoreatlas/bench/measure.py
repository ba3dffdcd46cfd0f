"""From the samples of a cell to its metrics and their floors."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from scoreatlas.bench.cell import Instance, World
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.metrics.distortion import psnr, residual, ssim
from scoreatlas.metrics.estimate import Estimate, jackknife, mean_interval
from scoreatlas.metrics.posterior import (
    bias,
    coverage,
    diversity,
    gaussian_wasserstein,
    mode_weights_error,
    moments,
    sliced_wasserstein,
    split_directions,
    spread_ratio,
    unit_directions,
)
from scoreatlas.operators.base import Linear, Operator
from scoreatlas.priors.mixture import GaussianMixture
from scoreatlas.rng import Rng

Statistic = Callable[[Tensor, Tensor], float]
SLICES = 100
# Streams far from those of the solvers, which count up from seed * 1_000_000.
REFERENCE, SECOND, SLICING = 900_000, 900_001, 900_002


class Truth:
    """The exact posterior of an instance, with the two independent sample sets that metrics and floors need.

    Args:
        world: with an exact posterior.
        instance: one problem.
        samples: in each set.
        seed: of the sets.
    """

    def __init__(self, world: World, instance: Instance, samples: int, seed: int) -> None:
        assert world.posterior is not None and isinstance(instance.m.A, Linear)
        m = Measurement(instance.m.y, instance.m.A, instance.m.noise)
        self.exact = world.posterior(m)
        draw = lambda stream: self.exact.sample(Rng([1_000_000 * seed + stream], samples, dtype=torch.float64))  # noqa: E731
        self.reference = draw(REFERENCE)
        self.statistics = statistics(self.exact, m, seed)
        second = draw(SECOND)
        self.floor = {name: f(second, self.reference) for name, f in self.statistics.items()}

    def metrics(self, x: Tensor) -> dict[str, Estimate]:
        """Metrics of samples (n, *s) with delete-a-group jackknife intervals."""
        return {name: jackknife(f, x, self.reference) for name, f in self.statistics.items()}


def statistics(exact: GaussianMixture, m: Measurement[Linear, Gaussian], seed: int) -> dict[str, Statistic]:
    """The metrics that apply, each a function of samples and of exact samples."""
    mean, covariance = exact.mean().flatten(), exact.covariance()
    theta = unit_directions(SLICES, len(mean), Rng([1_000_000 * seed + SLICING], dtype=torch.float64))
    found: dict[str, Statistic] = {"sliced_w2": lambda x, e: float(sliced_wasserstein(x, e, theta))}
    for group, basis in split_directions(m.A)._asdict().items():
        if basis.shape[1]:
            found[f"bias_{group}"] = lambda x, e, v=basis: float(bias(x, mean, covariance, v))
            found[f"spread_{group}"] = lambda x, e, v=basis: float(spread_ratio(x, covariance, v))
    if len(exact.weights) == 1:
        for part in ("mean", "covariance"):
            found[f"w2_{part}"] = partial(_gaussian_part, part, mean, covariance)
    else:
        found["mode_weights"] = lambda x, e: float(mode_weights_error(x, exact))
    for level in (0.5, 0.9):
        found[f"coverage_{round(100 * level)}"] = lambda x, e, level=level: float(coverage(x, e, level))
    found["residual"] = lambda x, e: float(residual(m, x).mean())
    return found


def _gaussian_part(part: str, mean: Tensor, covariance: Tensor, x: Tensor, e: Tensor) -> float:
    return float(gaussian_wasserstein(*moments(x), mean, covariance)._asdict()[part])


def image_metrics(instance: Instance, x: Tensor, samples: int) -> dict[str, Estimate]:
    """Metrics of samples (p * r, *s), r of each of p images, on the CPU; intervals over images, Student's t.

    PSNR, SSIM and the residual are averaged over the samples of an image, not taken of their mean.
    """
    truth = instance.truth.repeat_interleave(samples, 0)
    m: Measurement[Operator, Gaussian] = instance.m.repeat(samples)
    values = {"psnr": psnr(x, truth), "ssim": ssim(x, truth), "residual": residual(m, x)}
    per_image = {name: v.reshape(-1, samples).mean(1) for name, v in values.items()}
    if samples > 1:
        per_image["diversity"] = diversity(x.reshape(-1, samples, *x.shape[1:]))
    return {name: mean_interval(v) for name, v in per_image.items()}
