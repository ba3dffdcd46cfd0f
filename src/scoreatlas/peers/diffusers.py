"""diffusers' schedulers (https://huggingface.co/docs/diffusers; written against 0.42.1).

Conversions. diffusers has a chain of discrete betas; ours is a continuous schedule on a grid. The
betas handed over are those of that very grid, :math:`\\bar\\alpha_k = \\alpha(t_k)^2`, so a variance
preserving schedule is needed. DDPM and DDIM are told to predict the clean image, Heun the noise in
its own coordinates x_t / alpha_t. Nothing is clipped or thresholded, which is not diffusers' default.

Noise comes from a generator per row, or from one for a single problem, seeded as ours: the numbers
are the same as in our own samplers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, final

import diffusers
import torch

from scoreatlas.errors import AtlasError
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.schedules import Schedule, Time
from scoreatlas.solvers.base import Solver, State


def betas(schedule: Schedule, steps: int) -> list[float]:
    """The discrete chain of a grid of ``steps`` steps, from image to noise.

    Raises:
        AtlasError: the schedule does not preserve the variance.
    """
    grid = schedule.grid(steps)[::-1]
    if any(abs(t.alpha**2 + t.sigma**2 - 1) > 1e-9 for t in grid):
        raise AtlasError(f"diffusers' schedulers need a variance-preserving schedule, got {schedule!r}")
    return [1 - (t.alpha / s.alpha) ** 2 for s, t in zip(grid[:-1], grid[1:], strict=True)]


def generators(rng: Rng) -> Any:
    """What diffusers draws from: a generator for the one problem, or a list of one a row.

    Raises:
        AtlasError: several problems of several rows each.
    """
    if rng.rows > 1 and len(rng.seeds) > 1:
        raise AtlasError("diffusers draws from one stream, or from one a row: give one seed, or rows=1")
    found = [torch.Generator(rng.device).manual_seed(s) for s in rng.seeds]
    return found[0] if len(found) == 1 else found


def start(prior: DiffusionPrior, rng: Rng, generator: Any) -> torch.Tensor:
    """x at t = 1, drawn from the generators so that they go on where it stopped."""
    shape = (rng.batch, *prior.shape)
    noise = diffusers.utils.torch_utils.randn_tensor(shape, generator=generator, device=rng.device, dtype=rng.dtype)
    return prior.schedule.at(1.0).sigma * noise


def _exact(scheduler: Any, schedule: Schedule, steps: int, dtype: torch.dtype) -> Any:
    """The same numbers in the dtype of the problem: schedulers make theirs in float32."""
    square = [t.alpha**2 for t in schedule.grid(steps)[::-1]][1:]
    scheduler.alphas_cumprod = torch.tensor(square, dtype=dtype)
    scheduler.betas = torch.tensor(betas(schedule, steps), dtype=dtype)
    scheduler.alphas = 1 - scheduler.betas
    return scheduler


@final
@dataclass(frozen=True)
class DiffusersDDPM(Solver[None, DiffusionPrior]):
    """``DDPMScheduler``. Args: steps; variance, "fixedsmall" or "fixedlarge"."""

    steps: int = 1000
    variance: Literal["fixedsmall", "fixedlarge"] = "fixedsmall"

    def iterate(self, m: None, prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        scheduler = diffusers.DDPMScheduler(
            num_train_timesteps=self.steps, trained_betas=betas(prior.schedule, self.steps), clip_sample=False,
            prediction_type="sample", variance_type=self.variance.replace("fixed", "fixed_"),
        )  # fmt: skip
        _exact(scheduler, prior.schedule, self.steps, rng.dtype).set_timesteps(self.steps)
        generator, moments = generators(rng), prior.schedule.grid(self.steps)
        x = start(prior, rng, generator)
        for k, t in zip(scheduler.timesteps, moments[:-1], strict=True):
            x0 = prior.denoise(x, t)
            x = scheduler.step(x0, k, x, generator=generator).prev_sample
            yield State(x, x0)


@final
@dataclass(frozen=True)
class DiffusersDDIM(Solver[None, DiffusionPrior]):
    """``DDIMScheduler``. Args: steps; eta."""

    steps: int = 50
    eta: float = 0.0

    def iterate(self, m: None, prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        scheduler = diffusers.DDIMScheduler(
            num_train_timesteps=self.steps, trained_betas=betas(prior.schedule, self.steps), clip_sample=False,
            prediction_type="sample",
        )  # fmt: skip
        _exact(scheduler, prior.schedule, self.steps, rng.dtype).set_timesteps(self.steps)
        generator, moments = generators(rng), prior.schedule.grid(self.steps)
        x = start(prior, rng, generator)
        for k, t in zip(scheduler.timesteps, moments[:-1], strict=True):
            x0 = prior.denoise(x, t)
            x = scheduler.step(x0, k, x, eta=self.eta, generator=generator).prev_sample
            yield State(x, x0)


@final
@dataclass(frozen=True)
class DiffusersHeun(Solver[None, DiffusionPrior]):
    """``HeunDiscreteScheduler``: two network calls a step, one in the last. Args: steps."""

    steps: int = 25

    def iterate(self, m: None, prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        scheduler = diffusers.HeunDiscreteScheduler(
            num_train_timesteps=self.steps, trained_betas=betas(prior.schedule, self.steps), prediction_type="epsilon"
        )
        _exact(scheduler, prior.schedule, self.steps, rng.dtype).set_timesteps(self.steps)
        z = start(prior, rng, generators(rng)) / prior.schedule.at(1.0).alpha
        for k, level in zip(scheduler.timesteps, scheduler.sigmas[:-1].tolist(), strict=True):
            x0 = prior.denoise(z, Time(level, 1.0, level))
            z = scheduler.step((z - x0) / level, k, z).prev_sample
            yield State(z, x0)
