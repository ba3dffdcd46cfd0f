"""How far samples of an image are from an exact posterior, coordinate by coordinate: no matrix of the image's size.

What :mod:`scoreatlas.metrics.posterior` does with a covariance matrix, this does with the coordinates of a singular
value decomposition and two sample sets. Axis 0 is samples, all of one problem.
"""

from torch import Tensor

from scoreatlas.operators.base import Diagonalised, real_rows


def seen(A: Diagonalised, tolerance: float = 1e-3) -> Tensor:
    """Which real coordinates ``real_rows(A.vt(x))`` A sees, boolean (n,).

    A complex coordinate is two real ones.

    Args:
        A: operator.
        tolerance: singular values below this share of the largest count as 0.
    """
    s = A.singular_values
    sees = s > tolerance * s.max()
    z = A.vt(s.new_zeros(1, *A.shape))
    whole = sees.expand(z.shape[1:])
    return (whole.flatten()[:, None].expand(-1, 2) if z.is_complex() else whole).flatten()


def coordinates(A: Diagonalised, x: Tensor) -> Tensor:
    """Images (n, *s) as real coordinates (n, k) along the singular directions of A."""
    return real_rows(A.vt(x))


def coordinate_bias(z: Tensor, mean: Tensor, exact: Tensor) -> Tensor:
    r"""Error of the sample mean in units of the exact standard deviation, rms over coordinates, 0-d.

    Its floor with n exact samples is about :math:`1 / \sqrt n`. Coordinates that do not vary are left out.

    Args:
        z: coordinates of samples (n, k).
        mean: exact mean (k,).
        exact: coordinates of exact samples (m, k), which give the standard deviations.
    """
    variance, varies = _variances(exact)
    return ((z.mean(0) - mean)[varies].square() / variance).mean().sqrt()


def coordinate_spread(z: Tensor, exact: Tensor) -> Tensor:
    """Spread over exact spread: root of the mean ratio of variances over coordinates, 0-d; 1 is right.

    Args:
        z: coordinates of samples (n, k).
        exact: coordinates of exact samples (m, k).
    """
    variance, varies = _variances(exact)
    return (z.var(0)[varies] / variance).mean().sqrt()


def _variances(exact: Tensor) -> tuple[Tensor, Tensor]:
    variance = exact.var(0)
    varies = variance > 1e-12 * variance.max()
    return variance[varies], varies
