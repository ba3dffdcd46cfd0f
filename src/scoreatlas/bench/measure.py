"""From the samples of a cell to its metrics and their floors."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from scoreatlas.bench.cell import Exact, Instance, World
from scoreatlas.bench.fields import FieldTruth
from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.metrics.coordinates import coordinate_bias, coordinate_spread, coordinates, seen
from scoreatlas.metrics.distortion import psnr, residual, ssim
from scoreatlas.metrics.estimate import Estimate, jackknife, mean_interval
from scoreatlas.metrics.lpips import SMALLEST, lpips
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
from scoreatlas.metrics.ranges import range_coverage
from scoreatlas.operators.base import Diagonalised, Linear, Operator
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
        self.reference, second = (
            self.exact.sample(Rng([1_000_000 * seed + stream], samples, dtype=torch.float64))
            for stream in (REFERENCE, SECOND)
        )
        self.statistics = _statistics(self.exact, m, seed)
        self.extra = world.extra
        self.floor = {name: f(second, self.reference) for name, f in (*self.statistics.items(), *self.extra.items())}

    def metrics(self, x: Tensor) -> dict[str, Estimate]:
        """Metrics of samples (n, *s), with delete-a-group jackknife intervals except for the world's own."""
        found = {name: jackknife(f, x, self.reference) for name, f in self.statistics.items()}
        return found | {name: Estimate(f(x, self.reference), math.nan, math.nan) for name, f in self.extra.items()}


def _statistics(exact: Exact, m: Measurement[Linear, Gaussian], seed: int) -> dict[str, Statistic]:
    if isinstance(exact, GaussianMixture):
        return statistics(exact, m, seed)
    assert isinstance(exact, FieldTruth)
    return field_statistics(exact, m, seed)


def field_statistics(exact: FieldTruth, m: Measurement[Linear, Gaussian], seed: int) -> dict[str, Statistic]:
    """The same where no matrix of the image's size is wanted: along the singular coordinates of the operator."""
    A = m.A
    assert isinstance(A, Diagonalised)
    theta = unit_directions(SLICES, exact.mean.numel(), Rng([1_000_000 * seed + SLICING], dtype=torch.float64))
    mean, sees = coordinates(A, exact.mean)[0], seen(A)
    found: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"sliced_w2": lambda x, e: sliced_wasserstein(x, e, theta)}

    def group(name: str, which: Tensor) -> None:
        at = lambda x: coordinates(A, x)[:, which]  # noqa: E731
        found[f"bias_{name}"] = lambda x, e: coordinate_bias(at(x), mean[which], at(e))
        found[f"spread_{name}"] = lambda x, e: coordinate_spread(at(x), at(e))

    for name, which in (("observed", sees), ("unobserved", ~sees)):
        if which.any():
            group(name, which)
    return _finish(found, m)


def statistics(exact: GaussianMixture, m: Measurement[Linear, Gaussian], seed: int) -> dict[str, Statistic]:
    """The metrics that apply, each a function of samples and of exact samples."""
    mean, covariance = exact.mean().flatten(), exact.covariance()
    theta = unit_directions(SLICES, len(mean), Rng([1_000_000 * seed + SLICING], dtype=torch.float64))
    found: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"sliced_w2": lambda x, e: sliced_wasserstein(x, e, theta)}

    def group(name: str, basis: Tensor) -> None:
        found[f"bias_{name}"] = lambda x, e: bias(x, mean, covariance, basis)
        found[f"spread_{name}"] = lambda x, e: spread_ratio(x, covariance, basis)

    for name, basis in split_directions(m.A)._asdict().items():
        if basis.shape[1]:
            group(name, basis)
    if len(exact.weights) == 1:
        found["w2_mean"] = lambda x, e: gaussian_wasserstein(*moments(x), mean, covariance).mean
        found["w2_covariance"] = lambda x, e: gaussian_wasserstein(*moments(x), mean, covariance).covariance
    elif float(exact.variances.max()) > 0:  # an empirical law has atoms, not modes
        found["mode_weights"] = lambda x, e: mode_weights_error(x, exact)
    return _finish(found, m)


def _finish(
    found: dict[str, Callable[[Tensor, Tensor], Tensor]], m: Measurement[Linear, Gaussian]
) -> dict[str, Statistic]:
    """What every exact world has: coverage and residual; all as numbers."""
    found["coverage_50"] = lambda x, e: coverage(x, e, 0.5)
    found["coverage_90"] = lambda x, e: coverage(x, e, 0.9)
    found["residual"] = lambda x, e: residual(m, x).mean()
    return {name: _number(f) for name, f in found.items()}


def _number(f: Callable[[Tensor, Tensor], Tensor]) -> Statistic:
    return lambda x, e: float(f(x, e))


def image_metrics(instance: Instance, x: Tensor, samples: int) -> dict[str, Estimate]:
    """Metrics of samples (p * r, *s), r of each of p images, on the CPU; intervals over images, Student's t.

    PSNR, SSIM and the residual are averaged over the samples of an image, not taken of their mean.
    """
    truth = instance.truth.repeat_interleave(samples, 0)
    m: Measurement[Operator, Gaussian] = instance.m.repeat(samples)
    values = {"psnr": psnr(x, truth), "ssim": ssim(x, truth), "residual": residual(m, x)}
    if min(x.shape[-2:]) >= SMALLEST:
        values["lpips"] = lpips(x, truth)
    per_image = {name: v.reshape(-1, samples).mean(1) for name, v in values.items()}
    if samples > 1:
        many = x.reshape(-1, samples, *x.shape[1:])
        per_image |= {"diversity": diversity(many), "range_coverage": range_coverage(many, instance.truth)}
    return {name: mean_interval(v) for name, v in per_image.items()}
