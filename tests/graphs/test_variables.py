"""Encoding and decoding of tables: laws, containers, and every kind of bad value."""

from datetime import date, time

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from graphs.errors import DomainError, ShapeError, SpecError
from graphs.variables import Categorical, Continuous, Image, Integer, Variable
from graphs.variables.gaps import encode_gaps, fill_gaps
from tests.graphs.strategies import variables

DIGIT = Categorical(10)
ANIMAL = Categorical(["cat", "dog", "emu"])
HERE = "Evidence 'v'"


@given(variables)
def test_a_variable_is_its_dump(variable: Variable) -> None:
    adapter = TypeAdapter(Variable)
    assert adapter.validate_python(variable.model_dump()) == variable
    assert adapter.validate_json(adapter.dump_json(variable)) == variable
    assert hash(adapter.validate_python(variable.model_dump())) == hash(variable)
    assert variable.describe().startswith(variable.type)


@pytest.mark.parametrize(
    ("variable", "data"),
    [
        (Categorical(10), {"type": "categorical", "categories": 10}),
        (Categorical(["a", "b"], True), {"type": "categorical", "categories": ["a", "b"], "ordered": True}),
        (
            Continuous(0, unit="px", shape=(2,)),
            {"type": "continuous", "lower": 0, "unit": "px", "shape": [2]},
        ),
        (Continuous(64, 255), {"type": "continuous", "lower": 64, "upper": 255}),
        (Image(1, 28, 32), {"type": "image", "shape": [1, 28, 32]}),
        (Image(channels=1, height=28, width=32), {"type": "image", "shape": [1, 28, 32]}),
    ],
)
def test_python_and_file_forms_agree(variable: Variable, data: dict[str, object]) -> None:
    assert TypeAdapter(Variable).validate_python(data) == variable


@pytest.mark.parametrize(
    ("variable", "shape", "dtype", "words"),
    [
        (DIGIT, (), "int64", "categorical, 10"),
        (ANIMAL, (), "int64", "categorical, 3: cat, dog, emu"),
        (Categorical(3, ordered=True), (), "int64", "categorical, 3, ordered"),
        (Continuous(64, 255, "px"), (), "float64", "continuous [64, 255] px"),
        (Continuous(0), (), "float64", "continuous [0, inf)"),
        (Continuous(shape=(2, 3)), (2, 3), "float64", "continuous 2x3"),
        (Image(1, 28, 32), (1, 28, 32), "float32", "image 1x28x32"),
    ],
)
def test_properties(variable: Variable, shape: tuple[int, ...], dtype: str, words: str) -> None:
    assert (variable.event_shape, variable.dtype, variable.describe()) == (shape, dtype, words)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Categorical(0), "at least 1"),
        (lambda: Categorical(True), "at least 1"),
        (lambda: Categorical("10"), "at least 1"),
        (lambda: Categorical([]), "empty"),
        (lambda: Categorical(["a", "a"]), "'a' appears twice"),
        (lambda: Categorical([1, "1"]), "1 and '1' are written alike"),
        (lambda: Categorical([1.5]), "strings or integers"),
        (lambda: Categorical([True, False]), "strings or integers"),
        (lambda: Continuous(1, 1), "lower must be below upper"),
        (lambda: Continuous(float("nan")), "finite"),
        (lambda: Continuous(upper=float("inf")), "finite"),
        (lambda: Continuous("0"), "expected a number"),
        (lambda: Continuous(shape=(0,)), "greater than or equal to 1"),
        (lambda: Image(1, 0, 28), "greater than or equal to 1"),
        (lambda: Image(shape=(28, 28)), "required"),
        (lambda: Image(28, 28), r"expected channels, height and width, .*got channels 28, height 28 alone"),
        (lambda: Image(1, 28, width=28, shape=(1, 28, 28)), "or shape; got .* and shape"),
        (lambda: Image(64, 64, 3), r"channels come first: \[3, 64, 64\].*got \[64, 64, 3\]"),
        (lambda: Image(shape=[64, 64, 4]), r"channels come first: \[4, 64, 64\]"),
        (lambda: Image(28, 30, 1), r"channels come first: \[1, 28, 30\]"),
        (lambda: Continuous(low=0), "low: unknown option. Did you mean .lower."),
    ],
)
def test_bad_declarations(build: object, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build()


def test_bounds_are_told_in_all_their_digits() -> None:
    """Of 1234567, 1234569 was said to be above 1.23457e+06, which it is not."""
    variable = Continuous(lower=0.1, upper=1234567)
    assert variable.describe() == "continuous [0.1, 1234567]"
    with pytest.raises(DomainError, match=r"row 0 is 1234569.0, above the upper bound 1234567 \(cont"):
        variable.encode(1234569, where=HERE)
    with pytest.raises(SpecError, match="lower 1693526401 and upper 1693526400"):
        Continuous(1693526401, 1693526400)
    assert Continuous(-5, 1e30).describe() == "continuous [-5, 1e+30]"


def test_too_many_or_repeated_arguments() -> None:
    with pytest.raises(TypeError, match="at most 3"):
        Image(1, 2, 3, 4)
    with pytest.raises(TypeError, match="two values for 'categories'"):
        Categorical(3, categories=3)


def test_a_variable_is_immutable() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        DIGIT.categories = 3


CONTAINERS = [list, tuple, np.array, pd.Series, torch.tensor]


@pytest.mark.parametrize("container", CONTAINERS)
def test_containers_agree(container: object) -> None:
    codes = DIGIT.encode(container([0, 9, 3]), where=HERE)
    assert codes.dtype == np.int64 and codes.tolist() == [0, 9, 3]
    rows = Continuous().encode(container([0.5, 9.0]), where=HERE)
    assert rows.dtype == np.float64 and rows.tolist() == [0.5, 9.0]
    pairs = Continuous(shape=(2,)).encode(container([1, 2]), where=HERE)  # one row
    assert pairs.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    "scalar", [3, 3.0, np.int8(3), np.float32(3), np.array(3), torch.tensor(3), torch.tensor([3])]
)
def test_one_row(scalar: object) -> None:
    assert DIGIT.encode(scalar, where=HERE).tolist() == [3]
    assert Continuous().encode(scalar, where=HERE).tolist() == [3.0]


def test_more_containers() -> None:
    frame = pd.DataFrame({"a": [1, 2, 3], "b": [4, 5, 6]})
    assert Continuous(shape=(2,)).encode(frame, where=HERE).shape == (3, 2)
    tensors = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0], requires_grad=True)]
    assert Continuous(shape=(2,)).encode(tensors, where=HERE).tolist() == [[1, 2], [3, 4]]
    assert Continuous(shape=(2,)).encode(pd.Series(tensors), where=HERE).tolist() == [[1, 2], [3, 4]]
    assert Continuous().encode(torch.tensor([1.5], dtype=torch.bfloat16), where=HERE).tolist() == [1.5]
    with pytest.raises(ShapeError, match=f"{HERE}.*to_dense"):
        Continuous().encode(torch.tensor([1.5]).to_sparse(), where=HERE)
    assert Continuous().encode(pd.Series([1, 2], dtype="Int64"), where=HERE).tolist() == [1, 2]
    assert Continuous().encode(np.array([1, 2.5], dtype=object), where=HERE).tolist() == [1, 2.5]
    assert Continuous().encode([], where=HERE).shape == (0,)
    assert DIGIT.encode([], where=HERE).dtype == np.int64
    assert Categorical(2).encode([True, False], where=HERE).tolist() == [1, 0]


@pytest.mark.parametrize(
    "container", [list, np.array, pd.Series, lambda items: np.array(items, dtype=object)]
)
def test_labels(container: object) -> None:
    assert ANIMAL.encode(container(["dog", "cat", "emu"]), where=HERE).tolist() == [1, 0, 2]
    assert ANIMAL.encode(pd.Series(["dog"], dtype="category"), where=HERE).tolist() == [1]
    assert ANIMAL.encode("dog", where=HERE).tolist() == [1]


YES, RANK, FLAG = Categorical(["yes", "no"]), Categorical(["1", "2", "3"]), Categorical(["True", "False"])


@pytest.mark.parametrize(
    ("labels", "value", "label"),
    [
        (["1", "2", "3"], 1, "1"),
        (["1", "2", "3"], np.int8(2), "2"),
        (["1", "2", "3"], 3.0, "3"),
        (["1", "2", "3"], "3.0", "3"),
        (["0", "1"], -0.0, "0"),
        (["0.5", "1.5"], 1.5, "1.5"),
        (["0.5", "1.5"], "1.5", "1.5"),
        ([10, 20], 20, 20),
        ([10, 20], 20.0, 20),
        ([10, 20], "20", 20),
        ([10, 20], "20.0", 20),
        ([1, 0], True, 1),
        ([1, 0], np.False_, 0),
        (["True", "False"], True, "True"),
        (["true", "false"], False, "false"),
        (["True", "true"], "true", "true"),
        (["1.0", "2.0"], 2.0, "2.0"),
        (["1.0", "2.0"], "2.0", "2.0"),
        (["007", "7"], "007", "007"),
        (["007", "7"], 7, "7"),
        (["a", 1], "1", 1),
        (["a", 1], 1, 1),
        (["a", "b"], np.str_("b"), "b"),
    ],
)
def test_a_value_means_the_label_that_it_equals_or_is_written_like(labels, value, label):
    variable, code = Categorical(labels), labels.index(label)
    forms = [value, [value], np.array([value]), pd.Series([value]), pd.Series([value], dtype=object)]
    if not isinstance(value, str):
        # An array of a numpy value: torch 2.4 warns of np.bool in a list.
        forms.append(torch.tensor(np.array([value]) if isinstance(value, np.generic) else [value]))
    for form in forms:
        assert variable.encode(form, where=HERE).tolist() == [code]


@pytest.mark.parametrize(
    ("labels", "value"),
    [
        (["yes", "no"], True),
        (["yes", "no"], 0),
        (["yes", "no"], 1.0),
        (["yes", "no"], "Yes"),
        (["true", "false"], "True"),
        (["yes", "no"], "yes "),
        (["1", "2", "3"], 0),
        (["1", "2", "3"], True),
        (["1", "2", "3"], 1.5),
        (["1", "2", "3"], "01"),
        (["1", "2", "3"], "1e0"),
        (["0", "1"], "-0"),
        ([10, 20], 0),
        ([10, 20], "010"),
        (["1", "1.0"], 1.0),
        (["True", "true"], True),
        (["nan", "inf"], np.inf),
        (["True", "False"], 1),
        (["a", "b"], b"a"),
        ([2**53, 2**53 + 1], 2.0**53),
        ([2**24, 2**24 + 1], np.float32(2**24)),
    ],
)
def test_a_number_or_a_truth_value_is_no_code_of_a_label(labels, value):
    for form in (value, [value], np.array([value])):
        with pytest.raises(DomainError, match=r"row 0 is .*, expected one of the \d categories"):
            Categorical(labels).encode(form, where=HERE)


def test_codes_become_labels_by_decoding():
    with pytest.raises(
        DomainError, match=r"row 1 is 0, .*'1', '2', '3'. A number is no code .*decode\(code\)"
    ):
        RANK.encode([1, 0], where=HERE)
    for codes in (np.array([2, 0]), torch.tensor([2, 0]), [2, 0]):
        assert RANK.encode(RANK.decode(codes), where=HERE).tolist() == [2, 0]
    assert YES.encode(YES.decode(1), where=HERE).tolist() == [1]
    assert RANK.decode(np.zeros(0, np.int64)).shape == (0,)
    for codes in ([-1, 0], 3):  # numpy would count the first from the end
        with pytest.raises(DomainError, match=r"none of the codes 0..2"):
            RANK.decode(codes)


def test_columns_of_every_kind_mean_their_labels():
    for column in (
        pd.Series([1, 2, None]),
        pd.Series([1, 2, None], dtype="Int64"),
        pd.Series([1, 2, None], dtype="int64[pyarrow]"),
        pd.Series(["1", "2", None]),
        pd.Series(["1", "2", None], dtype="string"),
        pd.Series([1, 2, None], dtype="category"),
        np.ma.masked_array([1, 2, 3], mask=[0, 0, 1]),
        np.ma.masked_array(["1", "2", "3"], mask=[0, 0, 1]),
        [1, "2", np.ma.masked],
    ):
        codes, gaps = encode_gaps(RANK, column, where=HERE)
        assert gaps is not None and gaps.tolist() == [False, False, True]
        assert codes[:2].tolist() == [0, 1]
    for column in (pd.Series([True, None], dtype="boolean"), pd.Series([True, None]), [np.True_, None]):
        codes, gaps = encode_gaps(FLAG, column, where=HERE)
        assert gaps is not None and gaps.tolist() == [False, True] and codes[0] == 0


@given(st.lists(st.sampled_from(["1", "2", "3"]), min_size=1))
def test_numbers_and_their_texts_are_the_same_labels(values: list[str]):
    codes = RANK.encode(values, where=HERE)
    for form in (list(map(int, values)), list(map(float, values)), np.array(values).astype(np.float32)):
        assert (RANK.encode(form, where=HERE) == codes).all()


def test_whole_numbers_beside_gaps_are_exact():
    big = 2**53 + 1
    columns = [pd.Series([big, None, 7], dtype=kind) for kind in ("Int64", "int64[pyarrow]")]
    for column in (*columns, np.ma.masked_array([big, 0, 7], mask=[0, 1, 0])):
        codes, _ = encode_gaps(Categorical([2**53, big, 7]), column, where=HERE)
        assert codes[[0, 2]].tolist() == [1, 2]
        for variable in (Continuous(), Integer()):
            with pytest.raises(DomainError, match=f"row 0 is {big}, a whole number beyond"):
                encode_gaps(variable, column, where=HERE)
    with pytest.raises(DomainError, match="row 0 is 9007199254740992.0, .* Floats do not tell such whole"):
        encode_gaps(Categorical([2**53, big, 7]), pd.Series([big, None, 7]), where=HERE)


MASKED = [
    np.ma.masked_array([1.0, 2.0, 99999.0], mask=[0, 0, 1]),
    np.ma.masked_array([1, 2, 99999], mask=[0, 0, 1]),
    [1.0, 2.0, np.ma.masked],
    (1, 2, np.ma.masked),
    pd.Series([1.0, 2.0, None]),
    pd.Series([1, 2, None], dtype="Int64"),
    pd.Series([1.0, 2.0, None], dtype="double[pyarrow]"),
    [1.0, 2.0, pd.NA],
    [1.0, 2.0, pd.NaT],
    np.array([1.0, 2.0, np.float32("nan")], dtype=object),
]


@pytest.mark.parametrize("values", MASKED, ids=str)
@pytest.mark.parametrize("variable", [Continuous(), Continuous(0, 9), Integer(), Categorical(3)])
def test_what_is_masked_or_na_has_no_value(values, variable):
    rows, gaps = encode_gaps(variable, values, where=HERE)
    assert gaps is not None and gaps.tolist() == [False, False, True]
    assert rows[:2].tolist() == [1, 2]
    with pytest.raises(DomainError, match="row 2 is"):
        variable.encode(values, where=HERE)


def test_masked_scalars_vectors_and_images_have_no_value():
    for value in (np.ma.masked, [np.ma.masked], np.ma.masked_array(5.0, mask=True)):
        assert encode_gaps(Continuous(), value, where=HERE)[1].tolist() == [True]
    vectors = np.ma.masked_array([[1.0, 2.0], [3.0, 4.0]], mask=[[0, 0], [1, 1]])
    for value in (vectors, [[1.0, 2.0], [np.ma.masked, np.ma.masked]]):
        assert encode_gaps(Continuous(shape=(2,)), value, where=HERE)[1].tolist() == [False, True]
    assert encode_gaps(Continuous(), np.ma.masked_array([1.0, 2.0]), where=HERE)[1] is None
    for dtype in (np.uint8, np.float32):
        images = np.ma.zeros((3, 1, 2, 2), dtype=dtype)
        images[1] = np.ma.masked
        assert encode_gaps(Image(1, 2, 2), images, where=HERE)[1].tolist() == [False, True, False]
        images[2, 0, 0, 1] = np.ma.masked
        with pytest.raises(DomainError, match="row 2 .*masked|pixel nan"):
            encode_gaps(Image(1, 2, 2), images, where=HERE)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (DIGIT, 10, "row 0 is 10, expected one of the 10 categories 0..9"),
        (DIGIT, [1, -1], "row 1 is -1,"),
        (DIGIT, [1.0, 2.5, 11], "row 2 is 11.0"),
        (DIGIT, [1.0, 2.5], "row 1 is 2.5"),
        (DIGIT, [1.0, np.nan], "row 1 is nan"),
        (DIGIT, [np.inf], "row 0 is inf"),
        (DIGIT, ["3"], "expected numbers"),
        (DIGIT, np.array([2**63], dtype=np.uint64), "row 0 is 9223372036854775808"),
        (DIGIT, [10**30], r"row 0 is 1000000"),
        (Continuous(), [10**400], r"beyond 2\*\*53 that float64 cannot hold exactly"),
        (Continuous(), 2**53 + 1, r"beyond 2\*\*53 that float64"),
        (
            Continuous(),
            np.array([1, 2**63 + 1], np.uint64),
            r"row 1 is 9223372036854775809, a whole number beyond",
        ),
        (Integer(), 10**400, "cannot hold exactly"),
        (ANIMAL, ["cat", "cow"], "row 1 is 'cow', expected one of the 3 categories 'cat', 'dog', 'emu'"),
        (ANIMAL, ["cat", 1], "row 1 is 1"),
        (ANIMAL, ["cat", None], "row 1 is None"),
        (ANIMAL, ["cat", np.nan], "row 1 is nan"),
        (ANIMAL, ["cat", ["dog"]], "strings or integers"),
        (Continuous(), [0.0, np.nan], "row 1 is nan, expected finite"),
        (Continuous(), [0.0, np.inf, np.nan], "row 1 is inf"),
        (Continuous(), -np.inf, "row 0 is -inf"),
        (Continuous(), [1, None], "row 1 is nan"),
        (Continuous(0), [0, 5, -1e-9], "row 2 is -1e-09, below the lower bound 0"),
        (Continuous(0, 255), [0, 255, 256, -3], "row 3 is -3.0"),
        (Continuous(upper=255), [0, 255, 256], "row 2 is 256.0, above the upper bound 255"),
        (Continuous(0, shape=(2,)), [[1, 2], [3, -4]], r"row 1 is -4.0 at \[1\]"),
        (Continuous(), ["1.5"], "expected numbers"),
        (Continuous(), [1.5, "x"], "expected numbers"),
        (
            Continuous(),
            np.array([1.5, "x"], dtype=object),
            "row 1 is 'x', expected a number. Texts are labels",
        ),
        (Continuous(), ["10.40 EUR"], "a decimal point and no unit"),
        (Categorical(2), pd.Series(["no", "yes"]), r"as cg.Categorical\(\['no', 'yes'\]\)"),
        (Continuous(), [1j], "dtype complex128"),
        (Continuous(), pd.Series(pd.to_datetime(["2020-01-01"])), "dtype datetime64.*Count from a day"),
        (Continuous(), ["31.12.2020"], "got dates or times, .*Count from a day"),
        (Continuous(), np.array(["2020-05-01"], "M8[ns]"), "row 0: '2020-05-01T.*Count from a day"),
        (Continuous(), pd.Series(pd.date_range("2020", periods=2, tz="UTC")), "a number. Count from a day"),
        (Continuous(), pd.Series(pd.to_timedelta([90], unit="s")), "got durations, .*Divide by a unit"),
        (Continuous(), [pd.Timedelta(90, unit="s")], "Divide by a unit"),
        (Continuous(), [time(8, 30)], "expected a number. Count from midnight"),
        (
            Categorical(["(0, 1]", "(1, 2]"]),
            pd.cut([0.5], [0, 1, 2]),
            "of type Interval, and only looks so: give texts",
        ),
        (Categorical(["2024-05-31"]), [date(2024, 5, 31)], "of type date, and only looks so"),
        (
            Categorical(["no", "yes"]),
            [True],
            "row 0 is True, .*Give the labels; where they are True and False",
        ),
        (Continuous(), {"a": 1}, "expected a number"),
    ],
)
def test_values_out_of_domain(variable: Variable, value: object, message: str) -> None:
    with pytest.raises(DomainError, match=f"^Evidence 'v': .*{message}") as caught:
        variable.encode(value, where=HERE)
    assert not isinstance(caught.value, ShapeError)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (DIGIT, [[1, 2]], r"expected shape \(\) for one row or \(B,\) for B rows, got \(1, 2\)"),
        (Continuous(), np.zeros((5, 1)), r"got \(5, 1\). Drop the last axis"),
        (
            Continuous(shape=(3,)),
            np.zeros(8),
            r"expected shape \(3,\) for one row or \(B, 3\) for B rows, got \(8,\)",
        ),
        (Continuous(shape=(3,)), 1.0, r"got \(\)"),
        (Continuous(), [[1, 2], [3]], "one shape"),
        (Continuous(shape=(2,)), [torch.zeros(2), torch.zeros(3)], r"row 1 has shape \(3,\)"),
        (ANIMAL, [["dog"], ["cat"]], r"got \(2, 1\)"),
    ],
)
def test_wrong_shapes(variable: Variable, value: object, message: str) -> None:
    with pytest.raises(ShapeError, match=f"^Evidence 'v': .*{message}"):
        variable.encode(value, where=HERE)


@given(st.lists(st.floats(-1e300, 1e300)))
def test_continuous_round_trip_is_exact(values: list[float]) -> None:
    rows = Continuous().encode(values, where=HERE)
    assert Continuous().decode(rows).tolist() == values


@given(st.lists(st.sampled_from(["cat", "dog", "emu"]), min_size=1))
def test_labels_round_trip(values: list[str]) -> None:
    codes = ANIMAL.encode(values, where=HERE)
    assert ANIMAL.decode(codes).tolist() == values
    assert (ANIMAL.encode(ANIMAL.decode(codes), where=HERE) == codes).all()


def test_decoding_keeps_library_and_shape() -> None:
    codes = torch.tensor([[0, 2], [1, 1]])
    assert DIGIT.decode(codes) is codes
    decoded = ANIMAL.decode(codes)
    assert decoded.dtype == object and decoded.tolist() == [["cat", "emu"], ["dog", "dog"]]
    assert Continuous().decode(codes) is codes


@pytest.mark.parametrize("variable", [DIGIT, Continuous(), Continuous(0, 9, shape=(2,))])
def test_encoding_neither_changes_nor_shares_its_input(variable: Variable) -> None:
    value = np.arange(8, dtype=variable.dtype).reshape(-1, *variable.event_shape)
    before = value.copy()
    encoded = variable.encode(value, where=HERE)
    assert not np.shares_memory(encoded, value)
    encoded[:] = 0
    assert (value == before).all()
    value.flags.writeable = False
    assert variable.encode(value, where=HERE).flags.writeable


def test_a_vector_with_some_numbers_missing_is_refused_or_a_gap():
    pair, values = Continuous(shape=(2,)), [[1.0, 2.0], [np.nan, np.nan], [np.nan, 4.0]]
    with pytest.raises(
        DomainError, match=r"Evidence 'x': row 2 has 1 of its 2 numbers.*all or none.*a node for"
    ):
        encode_gaps(pair, values, where="Evidence 'x'")
    filled = fill_gaps(pair, values, where="Column 'x'", partial=True)
    assert filled is not None and filled[1].tolist() == [False, True, True]
    _, gaps = encode_gaps(pair, values[:2], where="Evidence 'x'")
    assert gaps is not None and gaps.tolist() == [False, True]


@pytest.mark.parametrize("rows", [[[1.0, 2.0], None], [None, [3.0, 4.0]], [None, None], [np.ones(2), None]])
@pytest.mark.parametrize("container", [list, tuple, lambda rows: pd.Series(rows, dtype=object)])
def test_none_stands_for_a_whole_vector_whatever_the_number_of_rows(rows, container):
    wanted = [row is None for row in rows]
    for pad in ([], [[5.0, 6.0]], [None]):
        values, gaps = encode_gaps(Continuous(shape=(2,)), container([*rows, *pad]), where=HERE)
        if all(wanted) and not pad:  # two numbers of one vector, or two vectors: missing either way
            continue
        assert gaps is not None and gaps.tolist() == [*wanted, *(row is None for row in pad)]
        assert values.shape == (len(rows) + len(pad), 2)
        given = [np.asarray(row) for row in [*rows, *pad] if row is not None]
        assert np.array_equal(values[~gaps], np.reshape(given, (-1, 2)))


@pytest.mark.parametrize("nothing", [None, np.nan, pd.NA, np.ma.masked])
@pytest.mark.parametrize("shape", [(1,), (2,), (2, 3)])
def test_one_row_may_lack_its_vector(nothing, shape):
    values, gaps = encode_gaps(Continuous(shape=shape), nothing, where=HERE)
    assert values.shape == (1, *shape) and gaps is not None and gaps.tolist() == [True]


def test_a_vector_with_a_nan_beside_one_that_is_missing():
    values = [None, [1.0, np.nan], [1.0, 2.0]]
    with pytest.raises(DomainError, match="row 1 has 1 of its 2 numbers"):
        encode_gaps(Continuous(shape=(2,)), values, where=HERE)
    filled = fill_gaps(Continuous(shape=(2,)), values, where=HERE, partial=True)
    assert filled is not None
    _, gaps = filled
    assert gaps.tolist() == [True, True, False]


def test_labels_may_come_from_numpy():
    expected = Categorical([3, 5])
    assert Categorical(np.array([3, 5])) == expected and Categorical([np.int64(3), np.uint8(5)]) == expected
    for labels in (np.array(["a", "b"]), pd.Series(["a", "b"]).unique(), pd.Index(["a", "b"])):
        assert Categorical(labels) == Categorical(["a", "b"])
