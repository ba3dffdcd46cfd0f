r"""Predictor-corrector sampling: a step of the reverse SDE, then Langevin steps at the level reached.

Song et al. (2021), *Score-Based Generative Modeling through Stochastic Differential Equations*,
arXiv:2011.13456, Algorithms 1 to 5 (reverse-diffusion predictor, Langevin corrector).

Both predictors of the paper, for VE and for VP, are one formula in the forward kernel
q(x_t | x_s) = N(a x_s, g^2), with s the earlier moment:

.. math:: x_s = (2 - a) x_t + g^2 \nabla \log p_t(x_t) + g z

The corrector takes x + e grad + sqrt(2 e) z with e = 2 (r |z| / |grad|)^2 (``step = "norm"``), or with
e = 2 (r sigma_t)^2 (``"level"``, the annealed Langevin step of NCSN, "ald" in the official code). The two are alike in
many dimensions, where the norm of a score is near sqrt(d) / sigma_t, and are not in few: see chapter 2.2.

Deviations:
    - Norms are those of each row. The official code takes the mean norm over the batch, so that a sample depends on
      its batch mates.
    - The official code corrects at t before it predicts from t; ours follows the paper's order, and does not correct
      at the image itself, where there is no score.
    - The last step returns the estimate of the clean image, which is what the predictor's mean is for VE and nearly
      is for VP ("denoise" of the official code, appendix G of the paper).
    - The VP corrector's factor alpha_i = 1 - beta_i, within 2 % of 1 on the paper's 1000 steps, is left out.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, final

from torch import Tensor

from scoreatlas.linalg import norm, rows
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.rng import Rng
from scoreatlas.schedules import Time
from scoreatlas.solvers.base import Solver, State


@final
@dataclass(frozen=True)
class PredictorCorrector(Solver[None, DiffusionPrior]):
    """Network calls: steps + (steps - 1) corrections.

    Args:
        steps: of the predictor, at least 1.
        corrections: Langevin steps after each predictor step but the last.
        snr: r, the size of a correction; 0.16 in the paper.
        step: how a correction is scaled, ``"norm"`` or ``"level"``.

    Raises:
        ValueError: another scaling, or fewer than 0 corrections.
    """

    steps: int = 100
    corrections: int = 1
    snr: float = 0.16
    step: Literal["norm", "level"] = "norm"

    def __post_init__(self) -> None:
        if self.step not in ("norm", "level"):
            raise ValueError(f"step must be 'norm' or 'level', got {self.step!r}")
        if self.corrections < 0:
            raise ValueError(f"corrections must be >= 0, got {self.corrections}")

    def iterate(self, m: None, prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        x = prior.initial(rng)
        for t, s in prior.schedule.pairs(self.steps):
            x0 = prior.denoise(x, t)
            if s.sigma == 0:
                yield State(x0, x0)
                return
            a = t.alpha / s.alpha
            g2 = t.sigma**2 - (a * s.sigma) ** 2
            x = (2 - a) * x + g2 * _score(x, x0, t) + math.sqrt(g2) * rng.normal_like(x)
            for _ in range(self.corrections):
                x0 = prior.denoise(x, s)
                score, z = _score(x, x0, s), rng.normal_like(x)
                if self.step == "level":
                    e = x.new_full((x.shape[0],), 2 * (self.snr * s.sigma) ** 2)
                else:
                    e = 2 * (self.snr * norm(z) / norm(score)) ** 2
                x = x + rows(e, x) * score + rows((2 * e).sqrt(), x) * z
            yield State(x, x0)


def _score(x: Tensor, x0: Tensor, t: Time) -> Tensor:
    """grad log p_t(x_t) by Tweedie's formula."""
    return (t.alpha * x0 - x) / t.sigma**2
