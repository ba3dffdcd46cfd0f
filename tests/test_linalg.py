"""Row-wise linear algebra against dense solves."""

import pytest
import torch
from torch import Tensor

from scoreatlas.linalg import cg, dot, norm, ridge, ridge_dual, rows
from scoreatlas.operators.base import Linear
from scoreatlas.operators.superresolution import BlockAverage
from scoreatlas.rng import Rng

N, M, B = 12, 7, 3


class Dense(Linear):
    """A matrix as an operator on images of shape (n,)."""

    def __init__(self, a: Tensor) -> None:
        self.a, self.shape = a, (a.shape[1],)

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.a.T

    def adjoint(self, y: Tensor) -> Tensor:
        return y @ self.a


def normal(*shape: int, seed: int = 0) -> Tensor:
    return Rng([seed], rows=shape[0], dtype=torch.float64).normal(*shape[1:])


def close(a: Tensor, b: Tensor, tolerance: float) -> None:
    assert float((a - b).abs().max() / b.abs().max()) < tolerance


def test_dot_and_norm_treat_rows_as_problems_and_complex_numbers_as_two_reals():
    a, b = torch.view_as_complex(normal(B, 4, 5, 2)), torch.view_as_complex(normal(B, 4, 5, 2, seed=1))
    want = (a.conj() * b).real.sum((1, 2))
    close(dot(a, b), want, 1e-14)
    close(norm(a) ** 2, (a.conj() * a).real.sum((1, 2)), 1e-14)
    assert rows(norm(a), a).shape == (B, 1, 1)


def test_cg_solves_in_n_iterations():
    a = normal(N, N)
    a = a @ a.T + torch.eye(N, dtype=torch.float64)
    b = normal(B, N, seed=1)
    # exact after N steps in exact arithmetic; the condition number, below 100, costs two digits
    close(cg(lambda x: x @ a, b, N + 2), torch.linalg.solve(a, b.T).T, 1e-12)
    guess = torch.linalg.solve(a, b.T).T
    close(cg(lambda x: x @ a, b, 1, guess), guess, 1e-12)


def test_a_row_that_has_converged_stays():
    b = torch.stack([torch.zeros(N, dtype=torch.float64), normal(1, N)[0]])
    x = cg(lambda z: 2 * z, b, 20)  # converges in one step; 19 more must do no harm
    assert torch.equal(x[0], torch.zeros(N, dtype=torch.float64))
    close(x[1:], b[1:] / 2, 1e-15)


def test_rows_of_cg_do_not_mix():
    a = normal(N, N)
    a = a @ a.T + torch.eye(N, dtype=torch.float64)
    b = normal(B, N, seed=1) * torch.tensor([[1.0], [1e6], [1e-6]], dtype=torch.float64)
    together = cg(lambda x: x @ a, b, 5)  # stopped early, where mixing would show
    for i in range(B):
        close(cg(lambda x: x @ a, b[i : i + 1], 5), together[i : i + 1], 1e-12)


@pytest.mark.parametrize("rho", [0.3, torch.tensor(0.3, dtype=torch.float64)], ids=["float", "tensor"])
def test_ridge_and_its_dual_against_dense_solves(rho):
    a = normal(M, N)
    operator = Dense(a)
    eye = lambda n: torch.eye(n, dtype=torch.float64)  # noqa: E731
    b, r = normal(B, N, seed=1), normal(B, M, seed=2)
    close(ridge(operator, b, rho), torch.linalg.solve(a.T @ a + rho * eye(N), b.T).T, 1e-10)
    close(ridge_dual(operator, r, rho), torch.linalg.solve(a @ a.T + rho * eye(M), r.T).T, 1e-10)
    # push-through identity: A^T (A A^T + rho)^-1 = (A^T A + rho)^-1 A^T
    close(operator.adjoint(ridge_dual(operator, r, rho)), ridge(operator, operator.adjoint(r), rho), 1e-9)


def test_ridge_is_exact_for_a_diagonalised_operator():
    operator = BlockAverage((1, 4, 4), 2).to(dtype=torch.float64)
    a = operator.matrix()
    b, r = normal(B, 1, 4, 4), normal(B, 1, 2, 2, seed=1)
    for rho in (1e-6, 0.3):
        want = torch.linalg.solve(a.T @ a + rho * torch.eye(16, dtype=torch.float64), b.flatten(1).T).T
        close(ridge(operator, b, rho).flatten(1), want, 1e-9)
        want = torch.linalg.solve(a @ a.T + rho * torch.eye(4, dtype=torch.float64), r.flatten(1).T).T
        close(ridge_dual(operator, r, rho).flatten(1), want, 1e-9)
