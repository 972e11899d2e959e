import pytest
import torch

from mechanisms.tables.regression import solve_moments

WEIGHT = torch.tensor([[1.0, -0.5], [2.0, 0.0], [-0.003, 4.0]], dtype=torch.float64)


def regressors(*, centre=0.0, spread=1.0, rows=500):
    generator = torch.Generator().manual_seed(0)
    columns = torch.randn(rows, 3, dtype=torch.float64, generator=generator)
    columns[:, 1] = columns[:, 0] + spread * columns[:, 1]
    columns[:, 2] *= 1e3
    return centre + columns, torch.randn(rows, 2, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("centre, spread", [(0.0, 1.0), (2000.0, 1.0), (-5.0, 0.05)])
def test_the_solution_is_that_of_the_decomposed_columns(centre, spread):
    columns, noise = regressors(centre=centre, spread=spread)
    value = columns @ WEIGHT + 7.0 + noise
    solved = solve_moments([columns[:, :1], columns[:, 1:]], value)
    assert solved is not None
    weight, bias = solved
    ones = torch.cat([columns - columns.mean(0), torch.ones(len(columns), 1, dtype=torch.float64)], 1)
    expected = torch.linalg.lstsq(ones, value, driver="gelsd").solution
    torch.testing.assert_close(weight, expected[:3], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(bias, expected[3] - columns.mean(0) @ expected[:3], rtol=1e-10, atol=1e-9)


def test_exact_relations_are_found():
    columns, _ = regressors()
    solved = solve_moments([columns], columns @ WEIGHT + 7.0)
    assert solved is not None
    weight, bias = solved
    torch.testing.assert_close(weight, WEIGHT, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(bias, torch.full((2,), 7.0, dtype=torch.float64))


def test_columns_that_depend_on_each_other_are_left_to_the_caller():
    columns, noise = regressors(spread=1e-3)
    assert solve_moments([columns], noise) is None
    columns[:, 1] = 0.1  # whose mean is rounded
    assert solve_moments([columns], noise) is None


def test_fewer_rows_than_columns_are_left_to_the_caller():
    columns, noise = regressors(rows=2)
    assert solve_moments([columns], noise) is None


def test_the_data_are_left_alone():
    columns, noise = regressors()
    before = columns.clone(), noise.clone()
    solve_moments([columns], noise)
    assert torch.equal(columns, before[0]) and torch.equal(noise, before[1])
