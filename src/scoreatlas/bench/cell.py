"""What a benchmark is made of: a world, a task, a solver and a seed make a cell."""

import hashlib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, final

import numpy as np
import torch
from torch import Tensor

from scoreatlas.measurement import Gaussian, Measurement
from scoreatlas.operators.base import Linear, Operator
from scoreatlas.rng import Rng
from scoreatlas.solvers.base import Solver

Draw = Callable[[int, np.random.Generator], Tensor]


class Exact(Protocol):
    """An exact posterior: a :class:`GaussianMixture`, whose moments are known too, or one that can be sampled."""

    def sample(self, rng: Rng) -> Tensor:
        """Draws (b, *s), one per row of ``rng``."""
        ...


Posterior = Callable[[Measurement[Linear, Gaussian]], Exact]


@final
@dataclass(frozen=True, eq=False)
class World:
    """Where the truth comes from and what is known about it.

    Attributes:
        name: as suite files write it.
        kind: "exact" (the posterior is known in closed form) or "images".
        shape: shape of one image.
        dtype: what solvers compute in here.
        priors: priors of different types on the same images; a solver takes the first that fits.
        truth: n images (n, *shape) drawn by a numpy generator, on the CPU.
        posterior: the exact posterior of a one-row measurement, in float64 on the CPU; None for images.
        data_sha256, weights_sha256: what was loaded; None where nothing was.
        extra: metrics of this world alone, by name: functions of samples and of exact samples.
        modules: where metrics of this world are defined, beyond the common ones: a record depends on their code.
    """

    name: str
    kind: Literal["exact", "images"]
    shape: tuple[int, ...]
    dtype: torch.dtype
    priors: tuple[Any, ...]
    truth: Draw
    posterior: Posterior | None = None
    data_sha256: str | None = None
    weights_sha256: str | None = None
    extra: Mapping[str, Callable[[Tensor, Tensor], float]] = field(default_factory=dict)
    modules: tuple[str, ...] = ()


@final
@dataclass(frozen=True, eq=False)
class Task:
    """What is measured: an operator for each instance, and noise.

    Attributes:
        name: as suite files write it.
        operator: from the shape of an image and a numpy generator to an operator.
        noise: the noise model, or how each instance draws one for its operator.
    """

    name: str
    operator: Callable[[tuple[int, ...], np.random.Generator], Operator]
    noise: Gaussian | Callable[[Operator, np.random.Generator], Gaussian]

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> tuple[Operator, Gaussian]:
        """Operator and noise of one instance."""
        A = self.operator(shape, generator)
        return A, self.noise if isinstance(self.noise, Gaussian) else self.noise(A, generator)


@final
@dataclass(frozen=True, eq=False)
class Cell:
    """One entry of a benchmark.

    Attributes:
        world, task, solver: what runs on what.
        seed: of the instance (truth, operator, noise) and of the solver's random numbers.
    """

    world: World
    task: Task
    solver: Solver[Any, Any]
    seed: int

    @property
    def key(self) -> str:
        """world/task/repr(solver)/seed: the repr of the frozen dataclass is the configuration."""
        return f"{self.world.name}/{self.task.name}/{self.solver!r}/{self.seed}"


class Instance(NamedTuple):
    """Problems of one seed, the same for every solver.

    Attributes:
        truth: images (p, *s).
        m: their measurement, p rows.
        digest: sha256 over y, sigma_y and seed.
    """

    truth: Tensor
    m: Measurement[Operator, Gaussian]
    digest: str


def instance(world: World, task: Task, seed: int, problems: int) -> Instance:
    """The problems of one seed, on the CPU, drawn by numpy alone so that torch's version does not matter.

    The truth depends on the world and the seed only, so that tasks see the same images.
    """
    x = world.truth(problems, _generator(seed, world.name)).to(world.dtype)
    generator = _generator(seed, f"{world.name}/{task.name}")
    A, model = task.draw(world.shape, generator)
    A = A.to("cpu", world.dtype)
    clean = A(x)
    noise = generator.standard_normal((*clean.shape, 2) if clean.is_complex() else clean.shape)
    eps = torch.from_numpy(noise)
    y = clean + model.std * (torch.view_as_complex(eps) if clean.is_complex() else eps).to(clean.dtype)
    digest = hashlib.sha256(y.numpy().tobytes() + f"{model.std!r}/{seed}".encode()).hexdigest()
    return Instance(x, Measurement(y, A, model), digest)


def _generator(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])
