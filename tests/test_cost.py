"""What a step costs beyond the denoiser, counted below autograd.

The limit for the five methods is a promise of this package, 30 aten operations and no stall a step on inpainting;
everything else here is compared with a count made by hand.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from scoreatlas.bench.cost import null, operations, timing
from scoreatlas.bench.ledger import Ledger
from scoreatlas.errors import AtlasError
from scoreatlas.measurement import Gaussian, Measurement, simulate
from scoreatlas.operators.inpainting import Inpainting, random_mask
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.priors.mixture import GaussianMixture
from scoreatlas.rng import Rng
from scoreatlas.samplers.ode import Heun
from scoreatlas.schedules import VP
from scoreatlas.solvers.base import Solver, State
from scoreatlas.solvers.classical.pseudo_inverse import PseudoInverse
from scoreatlas.solvers.guidance.dps import DPS
from scoreatlas.solvers.guidance.pigdm import PiGDM
from scoreatlas.solvers.projection.ddnm import DDNM
from scoreatlas.solvers.projection.ddrm import DDRM
from scoreatlas.solvers.projection.repaint import RePaint
from scoreatlas.solvers.splitting.diffpir import DiffPIR

LIMIT = 30  # operations of a step, views and those of the operator included
FIVE = {DPS(): 1, PiGDM(): 1, DDNM(): 0, DDRM(): 0, DiffPIR(): 0}  # vjps a step, as their papers have them


def problem(side: int = 8, rows: int = 2) -> Measurement:
    A = Inpainting(random_mask((1, side, side), 0.5, Rng([1])))
    return simulate(torch.zeros(rows, 1, side, side), A, Gaussian(0.1), Rng([2], rows))


def prior(side: int = 8) -> DiffusionPrior:
    return DiffusionPrior(null, VP(), (1, side, side))


@pytest.mark.parametrize(("solver", "vjps"), FIVE.items(), ids=lambda v: type(v).__name__)
def test_a_step_is_one_call_few_operations_and_no_stall(solver: Solver, vjps: int) -> None:
    cost = operations(solver, problem(), prior())
    assert (cost.calls, cost.vjps) == (1, vjps)
    assert cost.operations <= LIMIT, cost.names
    assert cost.syncs == 0, cost.stalls


@pytest.mark.parametrize("solver", FIVE, ids=lambda s: type(s).__name__)
def test_operations_depend_on_neither_pixels_nor_rows_nor_network(solver: Solver) -> None:
    """They are calls, not numbers; and the denoiser stays out, forwards and backwards, whatever it is."""
    two = torch.tensor([[[[0.5]]], [[[-0.5]]]]).expand(2, 1, 8, 8)
    mixture = GaussianMixture(torch.tensor([0.3, 0.7]), two, torch.tensor([0.2, 0.4]))
    small = operations(solver, problem(), prior()).names
    assert operations(solver, problem(32, 5), prior(32)).names == small
    assert operations(solver, problem(), DiffusionPrior(mixture, VP(), (1, 8, 8))).names == small


@pytest.mark.parametrize("problems", [2, 5])
def test_every_problem_draws_for_itself(problems: int) -> None:
    """Separate streams for p problems: p draws and one concatenation, where one problem has one draw."""
    one = operations(DDRM(), problem(rows=1), prior())
    many = operations(DDRM(), problem(rows=problems), prior(), seeds=range(problems))
    assert many.operations == one.operations + problems


def test_calls_of_methods_with_more_than_one_a_step() -> None:
    """RePaint visits each stretch twice (2 calls a level); Heun has two slopes a step."""
    assert operations(RePaint(jump=5, resample=2), problem(), prior()).calls == 2
    assert operations(Heun(), None, prior(), rows=2).calls == 2


@dataclass(frozen=True)
class _Clumsy(Solver[Measurement[Inpainting, Gaussian], DiffusionPrior]):
    """A step of known cost: 9 operations, 2 of them views, 3 stalls; 3 operations before the first."""

    steps: int = 5

    def iterate(self, m: Measurement[Inpainting, Gaussian], prior: DiffusionPrior, rng: Rng) -> Iterator[State]:
        x = m.A.adjoint(m.y)  # new_zeros, index_copy, view
        for _ in range(self.steps):
            x = prior.denoiser(x, torch.ones(()))  # ones; the call itself is not counted
            flat = x.flatten(1)  # a view
            if (flat > 0).any():  # gt, any, and the number is read: a stall
                x = x + len(flat[0].tolist())  # select (a view), add; a copy to the host: a stall
            flat[flat > 0]  # gt, index by a mask: a stall
            yield State(x, x)


def test_the_ledger_agrees_with_a_count_by_hand() -> None:
    shifted: Tensor = torch.ones(2, 32)
    m = Measurement(shifted, problem().A, Gaussian(0.1))
    cost = operations(_Clumsy(), m, DiffusionPrior(lambda x, sigma: x + 1, VP(), (1, 8, 8)))
    assert cost.names == {
        "aten.ones": 1, "aten.view": 1, "aten.gt.Scalar": 2, "aten.any": 1, "aten._local_scalar_dense": 1,
        "aten.select.int": 1, "aten.add.Tensor": 1, "aten.index.Tensor": 1,
    }  # fmt: skip
    assert cost.stalls == {"aten._local_scalar_dense": 1, "tolist": 1, "aten.index.Tensor": 1}
    assert (cost.operations, cost.views, cost.syncs, cost.setup) == (9, 2, 3, 3)
    assert (cost.calls, cost.vjps, cost.operator_calls) == (1, 0, 0)


def test_peak_is_the_largest_sum_of_live_tensors() -> None:
    given = torch.zeros(1000, dtype=torch.float64)
    ledger = Ledger()
    with ledger.open():
        a = given + 1
        b = a.reshape(10, 100).T * 2  # a view weighs nothing
        a.add_(given.view(1000))  # neither does work in place, nor what was there before
        del a
        c = b[0] + 1  # 8000 + 80 bytes, below the peak
    assert ledger.peak == 16_000 and len(c) == 10


def test_memory_of_a_vjp_is_what_the_network_keeps() -> None:
    """A chain of k squares keeps k - 1 intermediate images for its gradient; without one it keeps two at a time."""

    def squares(x: Tensor, sigma: Tensor) -> Tensor:
        for _ in range(20):
            x = x.square()
        return x

    m, deep = problem(32, 1), DiffusionPrior(squares, VP(), (1, 32, 32))
    image = 32 * 32 * 4 / 1e6
    by = {type(s): operations(s, m, deep).peak_mb / image for s in FIVE}
    assert by[DPS] - by[DDRM] > 10 and by[PiGDM] - by[DiffPIR] > 10


def test_timing_knows_the_network() -> None:
    """The lower bounds are sure: a denoiser that spins for two milliseconds takes at least that long."""

    def slow(x: Tensor, sigma: Tensor) -> Tensor:
        end = time.process_time() + 0.002
        while time.process_time() < end:
            pass
        return null(x, sigma)

    once = timing(DDRM(), problem(), DiffusionPrior(slow, VP(), (1, 8, 8)), steps=(2, 4))
    twice = timing(Heun(), None, DiffusionPrior(slow, VP(), (1, 8, 8)), steps=(2, 4), rows=2)
    assert once.network >= 2 and twice.network >= 4


def test_what_has_no_steps_is_refused() -> None:
    with pytest.raises(AtlasError, match="PseudoInverse has no field steps or iterations"):
        operations(PseudoInverse(), problem(), None)
