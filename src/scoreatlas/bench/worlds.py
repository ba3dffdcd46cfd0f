"""The worlds that suite files name: where the truth comes from and which priors know it."""

import json
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from scoreatlas import data
from scoreatlas.bench.cell import Draw, World
from scoreatlas.bench.fields import FieldTruth
from scoreatlas.bench.image_worlds import (
    IMAGES,
    chest,
    chest_validation,
    ct,
    digits,
    digits_validation,
    mri,
    patches,
    patches_validation,
)
from scoreatlas.chain import FallingBetas
from scoreatlas.errors import AtlasError
from scoreatlas.metrics.nearest import off_data
from scoreatlas.metrics.sliced import sliced_wasserstein_1
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.gaussian_field import GaussianField
from scoreatlas.priors.mixture import GaussianMixture, autoregressive, gaussian, grid_mixture
from scoreatlas.priors.pretrained import WEIGHTS
from scoreatlas.priors.tv import TotalVariation
from scoreatlas.schedules import VP


def gaussian16(device: str) -> World:
    """AR(1) Gaussian in 16 dimensions, correlation 0.9, unit variance."""
    return _mixture("gaussian16", autoregressive(16, 0.9), device)


def iid16(device: str) -> World:
    """Sixteen independent numbers N(0.5, 0.25^2): the world in which the libraries of chapter 4.6 were tried first."""
    half = torch.tensor(0.5, dtype=torch.float64)
    return _mixture("iid16", gaussian(half.expand(16).clone(), half**4), device)


def gaussian64(device: str) -> World:
    """AR(1) Gaussian in 64 dimensions, correlation 0.9, unit variance."""
    return _mixture("gaussian64", autoregressive(64, 0.9), device)


def lowrank16(device: str) -> World:
    """Three flat components in 16 dimensions: each N(m, U U^T + 0.03^2 I) with U of rank 3; weights 0.5, 0.3, 0.2."""
    generator = np.random.default_rng(16)
    weights, means = torch.tensor([0.5, 0.3, 0.2]).double(), torch.from_numpy(generator.standard_normal((3, 16)))
    axes = np.stack([np.linalg.qr(generator.standard_normal((16, 3)))[0] for _ in range(3)])
    flat = torch.from_numpy(axes @ axes.transpose(0, 2, 1)) + 0.03**2 * torch.eye(16, dtype=torch.float64)
    return _mixture("lowrank16", GaussianMixture(weights, means, flat), device)


def points4(device: str) -> World:
    """The empirical law of 500 points: training digits along their first four principal axes, unit variance each.

    Its exact denoiser is what an infinite network would learn from a finite data set, and its exact posterior a choice
    among the 500.
    """
    x = data.digits("train")[0][:500].double().flatten(1)
    x = x - x.mean(0)
    u, s, vt = torch.linalg.svd(x, full_matrices=False)
    z = u[:, :4] * vt[:4].sum(1).sign() * len(x) ** 0.5  # the sign of a singular vector is arbitrary: fix it
    p = GaussianMixture(torch.ones(len(x), dtype=torch.float64), z, torch.zeros(len(x), dtype=torch.float64))
    there = p.to(device)
    priors = (DiffusionPrior(there, VP(), p.shape), there, None)
    sheet = data.manifest()["digits_train.png"]["sha256"]

    def draw(n: int, generator: np.random.Generator) -> Tensor:
        return z[torch.from_numpy(generator.integers(len(z), size=n))]

    extra = {"off_data": off_data}
    return World("points4", "exact", p.shape, torch.float64, priors, draw, p.posterior, sheet, extra=extra)


def mixture2(device: str) -> World:
    """Three elongated components in the plane, of weights 0.5, 0.3 and 0.2."""
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.8], [0.6, -1.2]], dtype=torch.float64)
    covariances = torch.tensor(
        [[[0.08, 0.06], [0.06, 0.10]], [[0.15, -0.04], [-0.04, 0.03]], [[0.05, 0.0], [0.0, 0.05]]], dtype=torch.float64
    )
    return _mixture("mixture2", GaussianMixture(torch.tensor([0.5, 0.3, 0.2]).double(), means, covariances), device)


def mixture8(device: str) -> World:
    """The 25 components of the MCGDiff paper (arXiv:2308.07983) in 8 dimensions, fixed weights."""
    weights = torch.from_numpy(np.random.default_rng(0).standard_normal(25) ** 2)
    return _mixture("mixture8", grid_mixture((-16, -8, 0, 8, 16), 8, 1.0, weights), device)


def gmm8(device: str) -> World:
    """The 25-component mixture of the MCGDiff paper (arXiv:2308.07983) in 8 dimensions, on the grid of its code."""
    return _published(8, device)


def gmm80(device: str) -> World:
    """The 25-component mixture of the MCGDiff paper (arXiv:2308.07983) in 80 dimensions, on the grid of its code."""
    return _published(80, device)


def gmm800(device: str) -> World:
    """The 25-component mixture of the MCGDiff paper (arXiv:2308.07983) in 800 dimensions, on the grid of its code."""
    return _published(800, device)


def field16(device: str) -> World:
    """A periodic Gaussian random field of 16 x 16 pixels, power spectrum frequency^-2, standard deviation 0.5."""
    field = GaussianField.power_law((1, 16, 16), 2.0, 0.5, torch.float64)
    delta = torch.eye(256, dtype=torch.float64).reshape(256, 16, 16)
    covariance = torch.fft.ifft2(field.spectrum * torch.fft.fft2(delta)).real.reshape(256, 256)
    exact = gaussian(field.mean, (covariance + covariance.T) / 2)
    there = field.to(device)
    priors = (DiffusionPrior(there, VP(), field.shape), there, None)
    return World("field16", "exact", field.shape, torch.float64, priors, _draw(exact), exact.posterior)


def field64(device: str) -> World:
    """A periodic Gaussian random field of 64 x 64 pixels, power spectrum frequency^-2, standard deviation 0.5.

    Truth at the size of an image: its posterior is sampled by filters or conjugate gradients.
    """
    field = GaussianField.power_law((1, 64, 64), 2.0, 0.5, torch.float64)
    there = field.to(device)
    root = field.spectrum.sqrt()

    def draw(n: int, generator: np.random.Generator) -> Tensor:
        white = torch.from_numpy(generator.standard_normal((n, 1, 64, 64)))
        return field.mean + torch.fft.ifft2(root * torch.fft.fft2(white)).real

    priors, exact = (DiffusionPrior(there, VP(), field.shape), there, None), partial(FieldTruth, field)
    modules = ("scoreatlas.metrics.coordinates",)
    return World("field64", "exact", field.shape, torch.float64, priors, draw, exact, modules=modules)


WORLDS: dict[str, Callable[[str], World]] = {
    f.__name__: f
    for f in (
        iid16,
        gaussian16,
        gaussian64,
        lowrank16,
        points4,
        mixture2,
        mixture8,
        gmm8,
        gmm80,
        gmm800,
        field16,
        field64,
        digits,
        chest,
        patches,
        mri,
        ct,
        digits_validation,
        chest_validation,
        patches_validation,
    )
}


@cache
def world(name: str, device: str = "cpu") -> World:
    """The world named ``name`` with its priors on ``device``.

    Raises:
        AtlasError: there is none, or its weights or data are missing or altered.
    """
    check_name(name)
    return WORLDS[name](device)


@cache
def outline(name: str) -> World:
    """The world without its images and weights: priors of the right types, enough to say why a solver does not apply.

    Raises:
        AtlasError: there is none.
    """
    check_name(name)
    images = name.removesuffix("_validation")
    if images not in IMAGES:
        return world(name)
    shape = tuple(json.loads((WEIGHTS / f"{images}.json").read_text())["shape"])
    field = GaussianField(torch.zeros(shape), torch.ones(shape[1:]))
    priors = (DiffusionPrior(field, VP(), shape), TotalVariation(1.0), field, None)
    return World(name, "images", shape, torch.float32, priors, lambda n, generator: torch.zeros(n, *shape))


def check_name(name: str) -> None:
    """Refuse an unknown world without loading anything."""
    if name not in WORLDS:
        raise AtlasError(f"no world named {name!r}; there are {', '.join(sorted(WORLDS))}")


def _published(n: int, device: str) -> World:
    """Weights are squares of normal numbers, drawn once; components have unit variance."""
    weights = torch.from_numpy(np.random.default_rng(n).standard_normal(25) ** 2)
    p = grid_mixture((-16, -8, 0, 8, 16), n, 1.0, weights)
    there = p.to(device)
    priors = (DiffusionPrior(there, FallingBetas(), p.shape), there, None)
    extra = {"sliced_w1": sliced_wasserstein_1}
    return World(f"gmm{n}", "exact", p.shape, torch.float64, priors, _draw(p), p.posterior, extra=extra)


def _mixture(name: str, p: GaussianMixture, device: str) -> World:
    there = p.to(device)
    priors = (DiffusionPrior(there, VP(), p.shape), there, None)
    return World(name, "exact", p.shape, torch.float64, priors, _draw(p), p.posterior)


def _draw(p: GaussianMixture) -> Draw:
    roots = torch.linalg.cholesky(p.covariances).numpy()

    def draw(n: int, generator: np.random.Generator) -> Tensor:
        k = generator.choice(len(p.weights), n, p=p.weights.numpy())
        z = generator.standard_normal((n, roots.shape[-1]))
        x = p.means.numpy()[k] + np.einsum("bij,bj->bi", roots[k], z)
        return torch.from_numpy(x).reshape(n, *p.shape)

    return draw
