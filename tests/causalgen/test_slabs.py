"""Columns from slabs: no two overlap, none outlives its memory, and what is freed is used again."""

import gc

import numpy as np
import pytest
import torch

import causalgen as cg
from causalgen.slabs import Slabs


def filled(memory, number, size=20_000):
    return [memory.copy(np.full(size, float(i))) for i in range(number)]


@pytest.mark.parametrize("size", [10, 20_000, 3_000_000])
def test_columns_do_not_overlap(size):
    memory = Slabs()
    columns = filled(memory, 12, size)
    for i, column in enumerate(columns):
        column += 100
        assert torch.equal(column, torch.full((size,), 100.0 + i, dtype=torch.float64))


def test_a_column_outlives_the_slabs_and_the_other_columns():
    column = filled(Slabs(), 5)[3]
    gc.collect()
    others = filled(Slabs(), 200)
    assert torch.equal(column, torch.full((20_000,), 3.0, dtype=torch.float64))
    assert others[7][0] == 7


def test_freed_memory_serves_the_next_answer():
    columns = filled(Slabs(), 3)
    place = columns[0].data_ptr()
    del columns
    assert filled(Slabs(), 1)[0].data_ptr() == place


def test_a_column_is_saved_alone():
    column = filled(Slabs(), 3)[1]
    assert column.untyped_storage().nbytes() == 8 * 20_000
    assert column.data_ptr() % 64 == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.int64, torch.bool])
def test_join_is_cat(dtype):
    parts = [torch.arange(n * 3).reshape(n, 3).to(dtype) for n in (30_000, 1, 20_000)]
    joined = Slabs().join(parts)
    assert joined.dtype == dtype
    assert torch.equal(joined, torch.cat(parts))
    assert Slabs().join(parts[:1]) is parts[0]


def test_evidence_stays_what_it_was_when_its_arrays_change(linear):
    scm, data = linear
    evidence = {node: np.array(values[:50]) for node, values in data.items()}
    expected = scm.counterfactual(evidence, do={"x": 3.0}, seed=0)
    abduction = scm.abduct(evidence, seed=0)
    before = {node: expected[node].clone() for node in expected}
    for values in evidence.values():
        values += 7
    later = abduction.counterfactual({"x": 3.0})
    for node in expected:
        assert torch.equal(expected[node], before[node])
        assert torch.equal(later[node], before[node])


def test_evidence_may_be_read_only(linear):
    scm, data = linear
    evidence = {node: np.array(values[:50]) for node, values in data.items()}
    for values in evidence.values():
        values.setflags(write=False)
    assert isinstance(scm.counterfactual(evidence, do={"x": 3.0}, seed=0), cg.Counterfactual)
