"""Random streams: one per problem, independent of the neighbours."""

import math

import pytest
import torch

from scoreatlas.rng import Rng


def test_a_problem_draws_the_same_numbers_alone_and_in_company():
    together = Rng([3, 0, 8], rows=2)
    first, second = together.normal(4), together.uniform(2, 2)
    for i, seed in enumerate([3, 0, 8]):
        alone = Rng([seed], rows=2)
        assert torch.equal(alone.normal(4), first[2 * i : 2 * i + 2])
        assert torch.equal(alone.uniform(2, 2), second[2 * i : 2 * i + 2])


def test_seed_zero_is_a_seed():
    a, b = Rng([0]).normal(8), Rng([0]).normal(8)
    assert torch.equal(a, b)
    assert not torch.equal(a, Rng([1]).normal(8))


def test_the_global_generator_is_neither_read_nor_moved():
    before = torch.random.get_rng_state()
    a = Rng([5]).normal(3)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(1)
    assert torch.equal(a, Rng([5]).normal(3))
    torch.random.set_rng_state(before)


def test_rows_of_one_problem_differ_and_are_standard_normal():
    x = Rng([0], rows=20_000, dtype=torch.float64).normal(2)
    n = x.numel()
    assert abs(float(x.mean())) < 5 / math.sqrt(n)  # 5 standard errors
    assert abs(float(x.var()) - 1) < 5 * math.sqrt(2 / n)
    u = Rng([0], rows=20_000, dtype=torch.float64).uniform(2)
    assert 0 <= float(u.min()) and float(u.max()) < 1
    assert abs(float(u.mean()) - 0.5) < 5 * math.sqrt(1 / 12 / n)


def test_complex_noise_has_unit_variance_per_real_part():
    z = Rng([0], rows=20_000).normal_like(torch.zeros(20_000, 1, dtype=torch.complex64))
    for part in (z.real, z.imag):
        assert abs(float(part.var()) - 1) < 5 * math.sqrt(2 / 20_000)


def test_choice_follows_the_weights():
    weights = torch.tensor([0.1, 0.0, 0.6, 0.3], dtype=torch.float64)
    k = Rng([0], rows=20_000, dtype=torch.float64).choice(weights)
    share = torch.bincount(k, minlength=4) / 20_000
    assert share[1] == 0
    assert float((share - weights).abs().max()) < 5 * math.sqrt(0.25 / 20_000)


def test_choice_takes_weights_per_row():
    weights = torch.eye(3, dtype=torch.float64)[torch.tensor([2, 0, 1])]
    assert Rng([0], rows=3, dtype=torch.float64).choice(weights).tolist() == [2, 0, 1]


def test_dtype_and_shape_are_the_rng_s():
    rng = Rng([1, 2], rows=3, dtype=torch.float64)
    assert rng.batch == 6 and rng.normal(5, 7).shape == (6, 5, 7) and rng.normal().dtype == torch.float64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "at least one seed, got none"),
        (([-1, 2],), r"seeds must be >= 0, got \[-1, 2\]"),
        (([0], 0), "rows must be >= 1, got 0"),
    ],
)
def test_bad_input_is_one_clear_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        Rng(*arguments)
    assert "\n" not in str(error.value)


def test_a_wrong_number_of_rows_is_refused():
    with pytest.raises(ValueError, match="x has 3 rows but this Rng draws 2 problems x 2 rows = 4"):
        Rng([0, 1], rows=2).normal_like(torch.zeros(3, 5))
