"""Columns in slabs: no two overlap, none outlives its memory, and what is freed is used again."""

import gc

import numpy as np
import pytest
import torch

from mechanisms.rows import column_like, copy_column


def filled(number, size=20_000):
    return [copy_column(np.full(size, float(i))) for i in range(number)]


@pytest.mark.parametrize("size", [10, 20_000, 3_000_000])
def test_columns_do_not_overlap(size):
    columns = filled(12, size)
    for i, column in enumerate(columns):
        column += 100
        assert torch.equal(column, torch.full((size,), 100.0 + i, dtype=torch.float64))


def test_a_column_outlives_the_slabs_and_the_other_columns():
    column = filled(5)[3]
    gc.collect()
    others = filled(200)
    assert torch.equal(column, torch.full((20_000,), 3.0, dtype=torch.float64))
    assert others[7][0] == 7


def test_freed_memory_serves_the_next_answer():
    columns = filled(3)
    place = columns[0].data_ptr()
    del columns
    assert filled(1)[0].data_ptr() == place


def test_a_column_is_saved_alone():
    column = filled(3)[1]
    assert column.untyped_storage().nbytes() == 8 * 20_000
    assert column.data_ptr() % 64 == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.int64, torch.bool])
def test_a_column_is_as_asked(dtype):
    column = column_like(torch.zeros(2, 3).to(dtype), 30_000)
    assert column.dtype == dtype and column.shape == (30_000, 3) and column.is_contiguous()
