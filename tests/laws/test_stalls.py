"""No solver makes the host of a GPU wait, on any operator that it takes: steps can be queued ahead."""

import pytest
from members import SOLVERS, measurement, operators

from scoreatlas.bench.catalogue import hypotheses
from scoreatlas.bench.cost import null, operations
from scoreatlas.priors.diffusion import DiffusionPrior
from scoreatlas.schedules import VP

PAIRS = [
    pytest.param(solver, A, id=f"{type(solver).__name__}-{name}")
    for solver in SOLVERS
    for name, A in operators().items()
    if isinstance(A, hypotheses(type(solver)).operator)
]


@pytest.mark.parametrize(("solver", "A"), PAIRS)
def test_no_stall(solver, A):
    assert operations(solver, measurement(A, rows=1), DiffusionPrior(null, VP(), A.shape), steps=(4, 8)).stalls == {}
