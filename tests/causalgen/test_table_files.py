"""CSV and Parquet files are read exactly or refused, whichever of their columns are used."""

import csv
import gzip
import io
import itertools
import re
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from itertools import combinations
from math import isfinite, nan

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import causalgen as cg
from causalgen.data import csv_table
from causalgen.data.reading import read_data
from graphs.errors import DataError, SpecError
from graphs.variables import Categorical, Continuous, Image, Integer

NUMBERS = {name: Continuous() for name in ("age", "dose", "resp", "site")}
LABELS = ("007", "1.0", "True", "1e3", "NA", "null", " x", "a,b", "two lines", 'say "hi"', "é", "-")


def subsets(names):
    return [chosen for size in range(1, len(names) + 1) for chosen in combinations(names, size)]


def refuse_all(path, variables, *told):
    """Every subset of columns is refused, with all of these words."""
    for chosen in subsets(list(variables)):
        with pytest.raises(DataError) as refused:
            read_data(path, {name: variables[name] for name in chosen})
        for words in (path.name, *told):
            assert words in str(refused.value), str(refused.value)


def text_file(folder, text, name="a.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# --- one column over ---


@pytest.mark.parametrize("rows", ["50,2,7,1,\n60,3,8,0,\n", "50,2,7,1\n60,3,8,0,\n", "50,2,7,1\n60,3,8\n"])
def test_no_value_moves_to_another_column(tmp_path, rows):
    line = 3 if rows.startswith("50,2,7,1\n") else 2
    refuse_all(
        text_file(tmp_path, "age,dose,resp,site\n" + rows), NUMBERS, f"line {line} has", "header has 4"
    )


def test_a_shifted_file_is_not_fitted(tmp_path):
    path = text_file(tmp_path, "age,dose,resp,site\n" + "50,2,7,1,\n60,3,9,0,\n" * 20)
    import networkx as nx

    scm = cg.SCM(nx.DiGraph([("age", "dose")]), {name: Continuous() for name in ("age", "dose")})
    with pytest.raises(DataError, match="line 2 has 5 fields"):
        scm.fit(path)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_name_that_is_there_twice(tmp_path, kind):
    if kind == "csv":
        path = text_file(tmp_path, "d,age,d\n1,2,3\n4,5,6\n")
    else:
        path = tmp_path / "a.parquet"
        pq.write_table(pa.Table.from_arrays([pa.array([1, 4])] * 3, names=["d", "age", "d"]), path)
    refuse_all(path, {"d": Continuous(), "age": Continuous()}, "Column 'd'", "2 times")


def test_a_column_without_a_name_is_an_index(tmp_path):
    frame = pd.DataFrame({"age": [50, 60], "dose": [2.5, 3]}, index=[7, 9])
    frame.to_csv(tmp_path / "a.csv")
    table = read_data(tmp_path / "a.csv", {"age": Continuous(), "dose": Continuous()})
    assert table["age"].tolist() == [50, 60] and table["dose"].tolist() == [2.5, 3]


# --- cells are what their variable says ---


def test_labels_are_text_exactly_as_written(tmp_path):
    path = tmp_path / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["k"], *([label] for label in LABELS)])
    assert read_data(path, {"k": Categorical(LABELS)})["k"].tolist() == list(range(len(LABELS)))
    for text in ("7", "1", "1.00", "true", "1E3", "x", "na"):
        text_file(tmp_path, f"k\n{text}\n")
        with pytest.raises(DataError, match=f"Column 'k' of a.csv: row 0 is '{text}'"):
            read_data(path, {"k": Categorical(LABELS)})


def test_an_empty_cell_is_a_gap_unless_it_is_a_label(tmp_path):
    path = text_file(tmp_path, "k,x\na,1\n,2\n")
    assert read_data(path, {"k": Categorical(["a"])}, gaps=True).gaps["k"].tolist() == [False, True]
    assert read_data(path, {"k": Categorical(["a", ""])})["k"].tolist() == [0, 1]


def test_integer_labels_and_codes(tmp_path):
    path = text_file(tmp_path, "k,c,t\n10,1,True\n,,\n20.0,2.0,FALSE\n")
    table = read_data(path, {"k": Categorical([20, 10]), "c": Categorical(3), "t": Categorical(2)}, gaps=True)
    assert [table[name][[0, 2]].tolist() for name in "kct"] == [[1, 0], [1, 2], [1, 0]]
    assert all(table.gaps[name].tolist() == [False, True, False] for name in "kct")
    with pytest.raises(DataError, match="row 0 is 'True', expected a number"):
        read_data(path, {"t": Continuous()})
    with pytest.raises(DataError, match="row 0 is '10', expected one of"):
        read_data(path, {"k": Categorical([1, 2])}, gaps=True)
    with pytest.raises(SpecError, match="written alike"):
        Categorical([1, "1"])


NO_NUMBERS = ["1_000", "0x10", "inf", "-Infinity", "1e400", "1e-400", "1,5", "1,000", "1.000,5", "2026-01-01"]
NO_NUMBERS += [
    "TRUE",
    "12e",
    "\uff11\uff12",
    "9007199254740993",
    "5 6",
    "5\0",
    "--5",
    "e5",
    ".",
    "1d5",
    "5\n6",
]


@pytest.mark.parametrize("text", NO_NUMBERS)
@pytest.mark.parametrize("variable", [Continuous(), Integer(), Categorical(3)])
def test_what_is_no_exact_number_is_refused(tmp_path, text, variable):
    path = text_file(tmp_path, f'x,y\n1,1\n"{text}",2\n')
    with pytest.raises(DataError, match=r"Column 'x' of a\.csv: row 1 is ") as refused:
        read_data(path, {"x": variable})
    assert repr(text) in str(refused.value)
    assert read_data(path, {"y": Continuous()})["y"].tolist() == [1, 2]


def test_numbers_are_exact(tmp_path):
    cells = [
        "5",
        "+5",
        "-0.1",
        " 2 ",
        "5.",
        ".5",
        "1E3",
        "1e-3",
        "007",
        "9007199254740992",
        "1e300",
        "5e-324",
    ]
    path = text_file(tmp_path, "x\n" + "\n".join(cells))
    assert read_data(path, {"x": Continuous()})["x"].tolist() == [float(Decimal(cell)) for cell in cells]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_ends_of_lines_and_byte_order_marks(tmp_path, ending, mark):
    lines = ["x,y,note", '1,a,"a', 'b"', "", "2,é,", "", ""]
    table = read_data(
        text_file(tmp_path, mark + ending.join(lines)),
        {"x": Continuous(), "y": Categorical(["a", "é"])},
    )
    assert table["x"].tolist() == [1, 2] and table["y"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"x,y\n", "no rows"),
        ("x,y\n1,é\n".encode("latin-1"), "not UTF-8"),
        ("x,y\n1,2\n".encode("utf-16"), "not UTF-8"),
        ("x,y\n1,2\n".encode("utf-16-le"), "no column"),
        (b'x,y\n1,2\n3,"4\n', "line 3"),
        (b'x,y\n1,2\n3,"4"5\n', "line 3"),
        (b"# made by hand\nx,y\n1,2\n", "Columns: # made by hand"),
        (b"x,y\n1,2\n# a note, and more, and more\n3,4\n", "line 3 has 3 fields"),
        (b'x,y\n"1\n2",2\n3\n', "line 4 has 1 fields"),
        (b"x,y\n3\n", "Write a separator for each cell, also for an empty one"),
        (b" x, y\n1,2\n", "Did you mean ' "),
        (b"x;y\n1;2\n", "Columns: x;y"),
        (b"x;y\n1,5;2,5\n", "separated by commas"),
        (b"x\ty\n1\t2\n", "separated by commas"),
        (b"x ;y\n1,5;2,5\n", "separated by commas"),
        (b'"x";"y"\n1;2\n', "separated by commas"),
    ],
)
def test_files_that_are_no_tables_of_these_columns(tmp_path, text, told):
    refuse_all(text_file(tmp_path, text), {"x": Continuous(), "y": Continuous()}, told)


def test_a_blank_line_of_one_column_is_no_gap(tmp_path):
    with pytest.raises(DataError, match=r'line 3 is blank. Write ""'):
        read_data(text_file(tmp_path, "x\n1\n\n2\n"), {"x": Continuous()})
    table = read_data(text_file(tmp_path, 'x\n1\n""\n2\n\n'), {"x": Continuous()}, gaps=True)
    assert table.gaps["x"].tolist() == [False, True, False]


def test_a_truncated_gzip_is_refused(tmp_path):
    whole = gzip.compress(("x,y\n" + "1,2\n" * 5000).encode())
    refuse_all(
        text_file(tmp_path, whole[:-9], "a.csv.gz"), {"x": Continuous(), "y": Continuous()}, "Cannot read"
    )


def test_many_blocks_keep_their_rows(tmp_path):
    numbers = [str(number) for number in range(40_000)]
    path = text_file(tmp_path, "x,k\n" + "".join(f"{number},b\n" for number in numbers))
    table = read_data(path, {"x": Integer(), "k": Categorical(["a", "b"])})
    assert table["x"].tolist() == list(range(40_000)) and table["k"].all()
    path.write_text(path.read_text().replace("\n33333,", "\n33333x,"))
    with pytest.raises(DataError, match="row 33333 is '33333x'"):
        read_data(path, {"x": Integer()})


# --- two hundred files ---

CSV_COLUMNS = {"age": Continuous(), "visits": Integer(), "site": Categorical(LABELS), "arm": Categorical(3)}
GAPS = {"", "NA", "NaN", "nan", "N/A", "n/a", "NULL", "null", "None", "<NA>", "#N/A"}
ODD = ["", "NA", "nan", "TRUE", " 2", "+1", "1.0", "2.5", "007", "-1", "18014398509481984", "1 ", *NO_NUMBERS]


def random_csv(rng, name):
    """The bytes of a table, well formed or not."""
    gap = lambda text: "" if rng.random() < 0.1 else text  # noqa: E731
    header = list(rng.permutation(list(CSV_COLUMNS))) + ["note"] * int(rng.integers(2))
    make = {
        "age": lambda: gap(rng.choice(["50", "61.5", "-2e-3", " 7", ".5", "1E2", "NA", "0.1"])),
        "visits": lambda: gap(rng.choice(["0", "3", "12", "+4", "5.0", "9007199254740991"])),
        "site": lambda: gap(rng.choice(LABELS)),
        "arm": lambda: gap(rng.choice(["0", "1", "2", "2.0"])),
        "note": lambda: rng.choice(["", "x", '"', "a,b", "1\n2", "#", "\0", "é"]),
    }
    rows = [[str(make[column]()) for column in header] for _ in range(rng.integers(1, 6))]
    fault = rng.integers(20)
    row, field = rng.integers(len(rows)), rng.integers(len(header))
    if fault == 0:
        rows = [[*cells, ""] for cells in rows]  # a separator at the end of every line
    elif fault == 1:
        rows[row] = [*rows[row], str(rng.choice(["", "5"]))]
    elif fault == 2:
        del rows[row][field]
    elif fault == 3:
        header[field] = header[field - 1]
    elif fault == 4:
        header, rows = ["", *header], [[str(number), *cells] for number, cells in enumerate(rows)]
    elif fault == 5:
        header[field] = f" {header[field]}"
    elif fault in (6, 7, 8, 9):
        rows[row][field] = str(rng.choice(ODD))
    separator = "\t" if ".tsv" in name else ","
    text = io.StringIO()
    writer = csv.writer(
        text,
        delimiter=separator,
        lineterminator=str(rng.choice(["\n", "\r\n", "\r"])),
        quoting=int(rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
    )
    writer.writerows([header, *rows])
    lines = text.getvalue()
    if fault in (10, 11):
        end = lines.index("\n") + 1 if "\n" in lines else len(lines)
        lines = (
            lines[:end] + str(rng.choice(["\n", "# note\n", separator + "\n", '"\n', "a b\n"])) + lines[end:]
        )
    data = (str(rng.choice(["", "\ufeff"])) + lines).encode()
    place = int(rng.integers(len(data)))
    if fault == 12:
        data = data[:place]
    elif fault in (13, 14):
        data = data[:place] + bytes([rng.choice([0, 34, 233, 44, 10, 95, 46])]) + data[place:]
    elif fault == 15:
        data = data[:place] + data[place + 1 :]
    if not name.endswith(".gz"):
        return data
    packed = gzip.compress(data)
    return packed[: rng.integers(len(packed))] if fault == 16 else packed


def parse_number(text, whole):
    """The nearest float64 of a decimal number; exact where it is whole."""
    text = text.strip(" \t")
    if text in GAPS:
        return None
    try:
        if not text.isascii() or re.search(r"[_\s]", text):
            raise InvalidOperation
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError from None
    value = float(number)
    exact = not re.fullmatch(r"[+-]?[0-9]+", text) or int(text) == value
    if not number.is_finite() or not isfinite(value) or bool(number) != bool(value) or not exact:
        raise ValueError
    if whole and (value != round(value) or abs(value) >= 2**53):
        raise ValueError
    return value


def parse_cell(text, variable):
    if not isinstance(variable, Categorical):
        return parse_number(text, isinstance(variable, Integer))
    if variable.labels is not None:
        return None if text == "" else variable.labels.index(text)
    value = parse_number(text, True)
    if value is not None and not 0 <= value < variable.size:
        raise ValueError
    return value


def expected_csv(path, variables):
    """What the file says by Python's csv module and the rules above, or the words of its refusal."""
    data, told = path.read_bytes(), ["Cannot read"]
    try:
        text = (gzip.decompress(data) if path.name.endswith(".gz") else data).decode("utf-8-sig")
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter="\t" if ".tsv" in path.name else ",", strict=True
        )
        start, records = 1, []
        for record in reader:
            records.append((start, record))
            start = reader.line_num + 1
    except csv.Error:
        # A record before it, or its header, may be wrong as well.
        return [["line"], ["no column"], ["times"]]
    except (OSError, EOFError, UnicodeError, gzip.zlib.error):
        return [told, ["line"], ["no column"], ["times"]]
    records = [(line, record) for line, record in records if record]
    if not records:
        return [["is empty"]]
    header = records[0][1]
    if any(header.count(name) > 1 for name in header if name):
        return [["times"]]
    wrong = [
        [f"line {line} has {len(record)} fields"] for line, record in records if len(record) != len(header)
    ]
    wrong += [[f"no column {name!r}"] for name in variables if name not in header]
    if wrong:
        return wrong
    if len(records) == 1:
        return [["no rows"]]
    values = {}
    for name, variable in variables.items():
        column = values[name] = []
        for row, (_, record) in enumerate(records[1:]):
            try:
                column.append(parse_cell(record[header.index(name)], variable))
            except ValueError:
                wrong.append([f"Column {name!r}", f"row {row}"])
    return wrong or values


def check_file(path, columns, expected):
    """Returns how many of the subsets of columns could be read."""
    read = 0
    for chosen in subsets(list(columns)):
        variables = {name: columns[name] for name in chosen}
        wanted = expected(path, variables)
        try:
            table = read_data(path, variables, gaps=True)
        except DataError as error:
            assert isinstance(wanted, list), (path.read_bytes(), error)
            assert path.name in str(error)
            assert any(all(words in str(error) for words in told) for told in wanted), (wanted, error)
            continue
        assert isinstance(wanted, dict), (path.read_bytes(), chosen, wanted)
        read += 1
        for name, column in wanted.items():
            gaps = table.gaps.get(name, np.zeros(table.rows, bool))
            assert gaps.tolist() == [value is None for value in column], path.read_bytes()
            given = [value for value in column if value is not None]
            assert table[name][~gaps].tolist() == given, path.read_bytes()
    return read


def check_csv_files(folder, seed, count):
    rng = np.random.default_rng(seed)
    read = 0
    for number in range(count):
        name = f"t{number}" + str(rng.choice([".csv", ".csv", ".tsv", ".csv.gz", ".tsv.gz"]))
        read += check_file(text_file(folder, random_csv(rng, name), name), CSV_COLUMNS, expected_csv)
    assert 0.2 * 15 * count < read < 0.8 * 15 * count  # both are tried


def test_malformed_csv_files(tmp_path):
    check_csv_files(tmp_path, 0, 120)


@pytest.mark.parametrize(
    "cell", ["1e-400", "1e400", "9007199254740993", "0x1", "1_000", "inf", "nan ,", "-1e-999", "0.0e-9x"]
)
def test_numbers_that_float64_does_not_hold_are_refused(cell):
    assert refuses(csv_table._number, cell)


def test_every_short_number_is_what_python_makes_of_it():
    cells = ["".join(each) for n in range(1, 5) for each in itertools.product("+-.01eE9 ", repeat=n)]
    good = [cell for cell in cells if not refuses(csv_table._number, cell)]
    assert len(good) > 500 and csv_table._number("0e-999") == 0
    for cell in good:
        if cell.strip():
            assert csv_table._number(cell) == float(cell)


def refuses(parse, cell):
    try:
        parse(cell)
    except ValueError:
        return True
    return False


def test_line_ends_quotes_and_compression_change_no_value(tmp_path):
    variables = {"x": Continuous(), "k": Categorical(["a", "é"])}
    lines = ["k,y,x", "a,,1.5", "é,?,", "", "a,,NA"]
    for name, text in {
        "plain.csv": "\n".join(lines),
        "crlf.csv": "\ufeff" + "\r\n".join([*lines, ""]),
        "packed.csv.gz": gzip.compress("\n".join(lines).encode()),
        "quoted.csv": "\n".join(lines).replace("?", '"?"'),
        "return.csv": "\r".join(lines),
    }.items():
        text = text if isinstance(text, bytes) else text.encode()
        table = read_data(text_file(tmp_path, text, name), variables, gaps=True)
        assert table["k"].tolist() == [0, 1, 0] and table.gaps["x"].tolist() == [False, True, True]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_many_malformed_csv_files(tmp_path, seed):
    check_csv_files(tmp_path, seed, 1000)


# --- Parquet ---

PARQUET_COLUMNS = {
    "x": Continuous(),
    "n": Integer(),
    "k": Categorical(["a", "NA", "007", "1"]),
    "c": Categorical(3),
}


TEXTS = [
    (pa.string(), ["a", "NA", "007", "1"]),
    (pa.large_string(), ["a", "007"]),
    (pa.dictionary(pa.int8(), pa.string()), ["a", "NA"]),
    (pa.null(), [None]),
]
NUMBERS_AND_OTHERS = [
    *TEXTS,
    (pa.int8(), [0, 1, 2]),
    (pa.uint8(), [0, 1, 2]),
    (pa.int64(), [0, 1, 2]),
    (pa.int64(), [0, 1, 2**53, 2**53 + 1, -(2**60)]),
    (pa.uint64(), [0, 2, 2**64 - 1]),
    (pa.float16(), [np.float16(0.5), np.float16(1), np.float16(2)]),  # pyarrow < 21 takes no others
    (pa.float32(), [0.5, 1, 2]),
    (pa.float64(), [0.1, 1, nan]),
    (pa.bool_(), [True, False]),
    (pa.binary(), [b"a", b"1"]),
    (pa.timestamp("us"), [datetime(2026, 1, 1)]),
    (pa.date32(), [date(2026, 1, 1)]),
    (pa.decimal128(38, 2), [Decimal("1.50"), Decimal("2.00"), Decimal(2**53 + 1)]),
    (pa.dictionary(pa.int32(), pa.int64()), [1, 2]),
    (pa.list_(pa.float64()), [[1.0, 2.0], [0.5]]),
    (pa.struct([("x", pa.int64())]), [{"x": 1}, {"x": 2}]),
]


def test_parquet_columns_of_lists_names_with_dots_and_of_an_index(tmp_path):
    path = tmp_path / "a.parquet"
    lists = pa.array([[1, 2**53 + 1], [3, 4]], pa.list_(pa.int64()))
    pixels = pa.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], pa.list_(pa.list_(pa.uint8())))
    nested = pa.array([{"b": 5.0}, {"b": 6.0}])
    pq.write_table(pa.table({"a.b": [1.0, 2.0], "a": nested, "v": lists, "im": pixels}), path)
    assert read_data(path, {"x": Continuous()}, {"x": "a.b"})["x"].tolist() == [1, 2]
    assert read_data(path, {"im": Image(1, 2, 2)})["im"][:, 0].tolist() == pixels.to_pylist()
    with pytest.raises(DataError, match="'v' of a.parquet, in its lists: row 1 is 9007199254740993"):
        read_data(path, {"v": Continuous(shape=(2,))})
    with pytest.raises(DataError, match="Column 'a' of a.parquet"):
        read_data(path, {"a": Continuous()})
    frame = pd.DataFrame({"x": [1.5, 2.5]}, index=pd.Index([10, 20], name="id"))
    frame.to_parquet(path)
    table = read_data(path, {"x": Continuous(), "id": Integer()})
    assert table["x"].tolist() == [1.5, 2.5] and table["id"].tolist() == [10, 20]


def random_column(rng, variable, rows):
    """An Arrow array that may suit the variable, or not."""
    labelled = isinstance(variable, Categorical) and variable.labels is not None
    kinds = TEXTS if labelled and rng.random() < 0.7 else NUMBERS_AND_OTHERS  # no number is a label
    kind, choices = kinds[rng.integers(len(kinds))]
    gaps = rng.random(rows) < (0.2 if rng.random() < 0.5 else 0)
    return pa.array([None if gap else choices[rng.integers(len(choices))] for gap in gaps], kind)


def parse_item(item, variable):
    if item is None or item != item:
        return None
    if isinstance(variable, Categorical) and variable.labels is not None:
        if type(item) in (int, float) and item == 1:  # written as the label "1" is
            return variable.labels.index("1")
        return variable.labels.index(item)
    if not isinstance(item, (int, float, Decimal)):
        raise ValueError
    value = float(item)
    if item == int(item) and value != item:
        raise ValueError
    if not isinstance(variable, Continuous) and (value != round(value) or abs(value) >= 2**53):
        raise ValueError
    if isinstance(variable, Categorical) and not 0 <= value < variable.size:
        raise ValueError
    return value


def check_parquet_files(folder, seed, count):
    rng = np.random.default_rng(seed)
    read = 0
    for number in range(count):
        names, rows = list(rng.permutation(list(PARQUET_COLUMNS)))[:3], int(rng.integers(1, 6))
        columns = {str(name): PARQUET_COLUMNS[name] for name in names}
        arrays = [random_column(rng, variable, rows) for variable in columns.values()]
        table = pa.Table.from_arrays([*arrays, pa.array([0] * rows)], names=[*columns, "note"])
        index = {"index_columns": [str(rng.choice(names))], "columns": [], "column_indexes": []}
        if rng.random() < 0.3:  # pandas would take one of the columns for the index
            table = table.replace_schema_metadata({"pandas": str(index).replace("'", '"')})
        fault = rng.integers(12)
        if fault == 0:
            table = table.rename_columns([*columns, names[0]])
        elif fault == 1:
            table = table.rename_columns([f"{names[0]} ", *names[1:], "note"])
        elif fault == 2:
            table = table.slice(0, 0)
        path = folder / f"t{number}.parquet"
        pq.write_table(table, path, write_page_checksum=True, compression="none", use_dictionary=False)
        whole = True
        if fault == 3:
            whole = False
            path.write_bytes(path.read_bytes()[: rng.integers(path.stat().st_size)])

        def expected(path, variables, table=table, whole=whole):
            if not whole:
                return [["Cannot read"]]
            if len(set(table.column_names)) < len(table.column_names):
                return [["times"]]
            if absent := [name for name in variables if name not in table.column_names]:
                return [[f"no column {name!r}"] for name in absent]
            if not table.num_rows:
                return [["no rows"], ["dates"]]
            values, wrong = {}, []
            for name, variable in variables.items():
                column = values[name] = []
                if pa.types.is_temporal(table.column(name).type):
                    wrong.append([f"Column {name!r}"])
                for item in table.column(name).to_pylist():
                    item = item.item() if isinstance(item, np.float16) else item  # pyarrow < 21
                    try:
                        column.append(parse_item(item, variable))
                    except ValueError:
                        wrong.append([f"Column {name!r}"])
            return wrong or values

        read += check_file(path, columns, expected)
    assert 0.1 * 7 * count < read < 0.8 * 7 * count


def test_malformed_parquet_files(tmp_path):
    check_parquet_files(tmp_path, 0, 80)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_many_malformed_parquet_files(tmp_path, seed):
    check_parquet_files(tmp_path, seed, 500)
