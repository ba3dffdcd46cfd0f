"""A number with its interval, and the two ways intervals are made here."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student
from torch import Tensor


class Estimate(NamedTuple):
    """A value and its 95 % confidence interval.

    Attributes:
        value: the estimate.
        low, high: ends of the interval; NaN where one value gives no interval.
    """

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return 0.5 * (self.high - self.low)


def mean_interval(values: Sequence[float] | Tensor, level: float = 0.95) -> Estimate:
    """Mean of independent values (n,) with Student's t interval: normal theory, n - 1 degrees of freedom.

    One value has no interval: its ends are NaN.
    """
    v = np.asarray(values, dtype=float)
    mean = float(v.mean())
    if len(v) < 2:
        return Estimate(mean, math.nan, math.nan)
    half = float(student.ppf(0.5 + level / 2, len(v) - 1) * v.std(ddof=1) / math.sqrt(len(v)))
    return Estimate(mean, mean - half, mean + half)


def jackknife(
    statistic: Callable[[Tensor, Tensor], float], x: Tensor, y: Tensor, groups: int = 10, level: float = 0.95
) -> Estimate:
    """``statistic(x, y)`` of two sample sets with a delete-a-group jackknife interval.

    Row i of both sets is deleted together, so the interval carries the sampling error of both.
    Normal theory with ``groups - 1`` degrees of freedom (Shao & Wu, 1989); a bootstrap would
    repeat rows, which inflates transport distances.

    Args:
        statistic: function of (n, d) and (n, d).
        x, y: sample sets with the same number of rows, rows independent.
        groups: number of blocks; block j is rows j, j + groups, ...

    Raises:
        ValueError: the sets differ in size or have fewer rows than groups.
    """
    n = len(x)
    if len(y) != n or n < 2 * groups:
        raise ValueError(f"a jackknife needs two sets of the same size >= {2 * groups}, got {n} and {len(y)} rows")
    value = statistic(x, y)
    block = np.arange(n) % groups
    left_out = np.array([statistic(x[block != j], y[block != j]) for j in range(groups)])
    error = math.sqrt((groups - 1) / groups * float(((left_out - left_out.mean()) ** 2).sum()))
    half = float(student.ppf(0.5 + level / 2, groups - 1)) * error
    return Estimate(value, value - half, value + half)
