"""Whole numbers: what is one, how it comes in and goes out."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from graphs.errors import DomainError, ShapeError, SpecError
from graphs.variables import Variable
from graphs.variables.gaps import encode_gaps
from graphs.variables.numeric import LARGEST, Integer

COUNT = Integer(lower=0, unit="visits")
HERE = "Evidence 'n'"


def test_forms_and_words() -> None:
    assert TypeAdapter(Variable).validate_python({"type": "integer", "lower": 0, "unit": "visits"}) == COUNT
    assert COUNT.describe() == "integer [0, inf) visits" and Integer().describe() == "integer"
    assert Integer(-3, 5).describe() == "integer [-3, 5]"
    assert (COUNT.event_shape, COUNT.dtype) == ((), "float64")


def test_few_values_are_listed() -> None:
    assert Integer(-1, 2).values == range(-1, 3)
    assert COUNT.values is None and Integer(upper=3).values is None
    assert Integer(0, 1023).values is not None and Integer(0, 1024).values is None


@pytest.mark.parametrize(
    "value",
    [3, 3.0, np.int8(3), np.uint64(3), [3], np.array([3]), np.array([3.0], np.float32), torch.tensor([3])],
)
def test_whole_numbers_of_any_type_come_in(value: object) -> None:
    rows = COUNT.encode(value, where=HERE)
    assert rows.dtype == np.float64 and rows.tolist() == [3.0]


@given(st.lists(st.integers(-LARGEST, LARGEST), max_size=8))
def test_every_admitted_number_survives(numbers: list[int]) -> None:
    rows = Integer().encode(np.array(numbers, dtype=np.int64), where=HERE)
    decoded = Integer().decode(rows)
    assert decoded.dtype == np.int64 and decoded.tolist() == numbers
    assert np.array_equal(Integer().encode(decoded, where=HERE), rows)
    tensor = Integer().decode(torch.tensor(rows))
    assert tensor.dtype == torch.int64 and tensor.tolist() == numbers


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            COUNT,
            2.5,
            r"Evidence 'n': row 0 is 2.5, expected a whole number; round it.*integer \[0, inf\) vis",
        ),
        (COUNT, [1, 1 + 1e-12], "row 1 is 1.000000000001, expected a whole number"),
        (COUNT, [0, -1], r"row 1 is -1, below the lower bound 0"),
        (Integer(upper=4), [4, 5], r"row 1 is 5, above the upper bound 4"),
        (COUNT, float("nan"), r"row 0 is nan, expected a whole number between -2\*\*53 and 2\*\*53"),
        (COUNT, float("inf"), "row 0 is inf, expected"),
        (COUNT, 2**53, "row 0 is 9007199254740992, expected a whole number between"),
        (COUNT, 2**53 + 1, "row 0 is 9007199254740993, expected"),
        (COUNT, 2**80, "expected a whole number between"),
        (COUNT, "3", "expected numbers, got dtype"),
    ],
)
def test_what_is_no_whole_number_is_refused(variable: Integer, value: object, message: str) -> None:
    with pytest.raises(DomainError, match=message):
        variable.encode(value, where=HERE)


def test_shapes_are_checked() -> None:
    with pytest.raises(ShapeError, match=r"expected shape \(\)"):
        COUNT.encode(np.zeros((2, 2)), where=HERE)
    assert COUNT.encode([], where=HERE).shape == (0,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lower": 3, "upper": 3}, "lower must be below upper, got lower 3 and upper 3"),
        ({"lower": 0.5}, "integer"),
        ({"lower": True}, "expected a number, got True"),
        ({"upper": "3"}, "expected a number, got '3'"),
        ({"upper": 2**53}, "less than or equal"),
        ({"low": 0}, "unknown option"),
    ],
)
def test_bounds_that_are_none(options: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Integer(**options)  # type: ignore[arg-type]


def test_gaps_and_clipping() -> None:
    for value in ([1, None, 3], [1.0, float("nan"), 3.0], pd.Series([1, None, 3], dtype="Int64")):
        rows, gaps = encode_gaps(Integer(lower=1), value, where=HERE)
        assert gaps is not None and gaps.tolist() == [False, True, False] and rows[[0, 2]].tolist() == [1, 3]
    assert Integer(0, 4).encode_clipped([-7, 2, 9], where=HERE).tolist() == [0, 2, 4]
    with pytest.raises(DomainError, match="expected a whole number; round it first"):
        Integer(0, 4).encode_clipped(2.5, where=HERE)  # clipping moves to a bound, and never rounds
