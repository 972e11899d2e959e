"""Whatever is wrong with the data is told with its row and column, before anything is fitted."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image as Pictures

import graphs.variables.picture
from causalgen.data.reading import Table, read_data
from graphs.errors import DataError, UnknownNameError
from graphs.variables import Categorical, Continuous, Image

VARIABLES = {"digit": Categorical(10), "thickness": Continuous(lower=0, unit="px"), "image": Image(1, 4, 5)}
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 4, 5), dtype=np.uint8)
DIGITS = [3, 1, 4, 1, 5, 9]
THICKNESS = [0.5, 1.25, 2.0, 0.1, 1e-3, 7.0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A table's folder with six pictures."""
    (tmp_path / "images").mkdir()
    for row, pixels in enumerate(PIXELS):
        Pictures.fromarray(pixels).save(tmp_path / "images" / f"{row}.png")
    return tmp_path


@pytest.fixture
def frame() -> pd.DataFrame:
    paths = [f"images/{row}.png" for row in range(6)]
    return pd.DataFrame({"digit": DIGITS, "thickness": THICKNESS, "image": paths, "note": "x"})


def written(frame: pd.DataFrame, folder: Path, name: str = "train.csv") -> Path:
    path = folder / name
    if ".csv" in name:
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    return path


def check(table: Table) -> None:
    assert list(table) == ["digit", "thickness", "image"] and table.rows == 6
    assert table["digit"].dtype == np.int64 and table["digit"].tolist() == DIGITS
    assert table["thickness"].dtype == np.float64 and table["thickness"].tolist() == THICKNESS
    assert table["image"].dtype == np.uint8 and np.array_equal(table["image"][:, 0], PIXELS)


# --- all kinds of sources give one table ---


@pytest.mark.parametrize("name", ["train.csv", "train.csv.gz", "train.parquet"])
def test_tables_with_paths_of_pictures(frame, folder, name):
    check(read_data(written(frame, folder, name), VARIABLES))
    check(read_data(str(folder / name), VARIABLES))


def test_a_frame_with_pictures_paths_or_arrays(frame, folder):
    for images in (
        [Pictures.fromarray(pixels) for pixels in PIXELS],
        [str(folder / path) for path in frame["image"]],
        [folder / path for path in frame["image"]],
        list(PIXELS),
    ):
        check(read_data(frame.assign(image=pd.Series(images, dtype=object)), VARIABLES))


@pytest.mark.parametrize(
    "images", [PIXELS, PIXELS[:, None], torch.tensor(PIXELS), [Pictures.fromarray(p) for p in PIXELS]]
)
def test_a_dict_of_arrays(images):
    check(
        read_data(
            {
                "digit": np.array(DIGITS),
                "thickness": torch.tensor(THICKNESS, dtype=torch.float64),
                "image": images,
            },
            VARIABLES,
        )
    )


def test_float_images_become_canonical():
    table = read_data({"image": PIXELS / 255}, {"image": VARIABLES["image"]})
    assert table["image"].dtype == np.float32
    np.testing.assert_allclose(table["image"][:, 0], PIXELS / 127.5 - 1, atol=1e-6)


def test_a_table_is_taken_as_it_is(frame, folder):
    table = read_data(written(frame, folder), VARIABLES)
    assert list(read_data(table, {"digit": Categorical(10)})) == ["digit"]
    with pytest.raises(DataError, match=r"lack the column 'digits'. Did you mean 'digit'"):
        read_data(table, {"digits": Categorical(10)})


def test_columns_may_have_other_names(frame, folder):
    path = written(frame.rename(columns={"digit": "label"}), folder)
    check(read_data(path, VARIABLES, {"digit": "label"}))
    with pytest.raises(UnknownNameError, match=r"Unknown node 'digt' in columns. Did you mean 'digit'"):
        read_data(path, VARIABLES, {"digt": "label"})


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_vector_is_several_columns(tmp_path, name):
    path = written(pd.DataFrame({"v_0": [1, 2, 3], "v_1": [0.5, 0.25, 0.125]}), tmp_path, name)
    assert read_data(path, {"v": Continuous(shape=(2,))})["v"].tolist() == [[1, 0.5], [2, 0.25], [3, 0.125]]
    with pytest.raises(DataError, match=r"no column 'v' of a\.\w+, nor v_0 .. v_2"):
        read_data(path, {"v": Continuous(shape=(3,))})


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_matrix_is_several_columns_row_by_row(tmp_path, name):
    values = np.arange(12.0).reshape(2, 2, 3)
    frame = pd.DataFrame(values.reshape(2, 6), columns=[f"v_{part}" for part in range(6)])
    variables = {"v": Continuous(shape=(2, 3))}
    for source in (frame, written(frame, tmp_path, name)):
        assert read_data(source, variables)["v"].tolist() == values.tolist()


def test_a_vector_is_a_column_of_lists(tmp_path):
    path = written(pd.DataFrame({"v": [[1.0, 2.0], [3.0, 4.0]]}), tmp_path, "a.parquet")
    assert read_data(path, {"v": Continuous(shape=(2,))})["v"].tolist() == [[1, 2], [3, 4]]


def test_labels_in_a_csv_are_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("answer,zip\nNA,007\nyes,12\n")
    table = read_data(path, {"answer": Categorical(["NA", "yes"]), "zip": Categorical(["007", "12"])})
    assert (table["answer"].tolist(), table["zip"].tolist()) == ([0, 1], [0, 1])


# --- what is wrong is told ---


def refuse(source, variables, match):
    with pytest.raises(DataError, match=match):
        read_data(source, variables)


def test_missing_table(tmp_path):
    refuse(tmp_path / "none.csv", VARIABLES, "no data file .*none.csv")


def test_other_kinds_of_files_and_objects(tmp_path):
    (tmp_path / "a.xlsx").write_text("")
    refuse(tmp_path / "a.xlsx", VARIABLES, r"Cannot read .*expected a table in \.csv")
    refuse(tmp_path, VARIABLES, "it is a folder, expected a table .* holds the paths of their files")
    refuse(3, VARIABLES, "Cannot read data from a int: expected a DataFrame")


def test_files_that_are_no_tables(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR?")
    refuse(tmp_path / "a.parquet", VARIABLES, r"Cannot read the table .*a\.parquet")
    (tmp_path / "a.csv").write_bytes(b"")
    refuse(tmp_path / "a.csv", VARIABLES, r"Cannot read the table .*a\.csv")


def test_missing_column(frame, folder):
    told = "no column 'digit'.*Did you mean 'digits'.*Columns: digits, thickness"
    wrong = frame.rename(columns={"digit": "digits"})
    for source in (wrong, written(wrong, folder), written(wrong, folder, "a.parquet")):
        refuse(source, VARIABLES, told)
    refuse({"digits": DIGITS}, {"digit": Categorical(10)}, "lack the column 'digit'. Did you mean 'digits'")


def test_a_column_that_is_there_twice(frame):
    frame.columns = ["digit", "thickness", "image", "digit"]
    refuse(frame, {"digit": Categorical(10)}, "'digit' of the data frame is there 2 times")


def test_missing_picture(frame, folder):
    frame.loc[4, "image"] = "images/none.png"
    refuse(
        written(frame, folder), VARIABLES, r"Column 'image' of train.csv, row 4: there is no file .*none\.png"
    )


@pytest.mark.parametrize("content", [b"no picture", b""])
def test_unreadable_picture(frame, folder, content):
    (folder / "images/2.png").write_bytes(content)
    refuse(
        written(frame, folder),
        VARIABLES,
        r"Column 'image' of train.csv, row 2: cannot read the picture .*2\.png",
    )


def test_truncated_picture(frame, folder):
    path = folder / "images/2.png"
    path.write_bytes(path.read_bytes()[:-25])
    refuse(written(frame, folder), VARIABLES, r"row 2 \(2\.png\): cannot read the picture")


def test_picture_of_another_size(frame, folder):
    Pictures.new("L", (4, 5)).save(folder / "images/3.png")
    told = r"Column 'image' of train.csv, row 3 \(3.png\): expected .* width 5, got height 5 and width 4"
    refuse(written(frame, folder), VARIABLES, told)
    refuse(
        {"image": PIXELS[:, :, :4]},
        {"image": VARIABLES["image"]},
        r"Column 'image': expected .*got shape \(6, 4, 4\)",
    )


def test_a_picture_too_large_to_decode(frame, folder, monkeypatch):
    monkeypatch.setattr(graphs.variables.picture, "MAX_PIXELS", 19)
    refuse(written(frame, folder), VARIABLES, r"row 0 \(0.png\): expected at most 19 pixels, got 5 x 4")


def test_a_decompression_bomb_is_refused_unread(tmp_path):
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b""))
    path = written(pd.DataFrame({"image": ["bomb.png"]}), tmp_path)
    refuse(path, {"image": VARIABLES["image"]}, "row 0: the picture .* is larger than 50,000,000 pixels")


def test_missing_values(frame, folder):
    frame.loc[2, "thickness"] = np.nan
    for source in (frame, written(frame, folder), written(frame, folder, "a.parquet")):
        refuse(
            source,
            VARIABLES,
            r"missing in 1 of the 6 rows of .*: column 'thickness' in 1 \(first in row 2\); expected a value "
            r"in every row. Fill them, or drop those rows\.$",  # who reads so takes no missing="drop"
        )
    frame["digit"] = [3, 1, None, None, 5, 9]
    refuse(
        frame,
        VARIABLES,
        r"missing in 2 of the 6 rows .*: column 'digit' in 2 \(first in row 2\), column 'thickness' in 1",
    )
    frame.loc[5, "image"] = None
    refuse(
        written(frame, folder),
        {"image": VARIABLES["image"]},
        r"missing in 1 of the 6 rows of train.csv: column 'image' in 1 \(first in row 5\)",
    )
    refuse({"thickness": [1.0, np.nan]}, {"thickness": Continuous()}, "missing in 1 of the 2 rows: column")


def test_gaps_are_kept_where_they_are_allowed(frame, folder):
    frame["digit"] = [3, 1, None, None, 5, 9]
    frame.loc[5, "image"] = None
    sources = [written(frame, folder), written(frame, folder, "a.parquet")]
    for source in sources:
        table = read_data(source, VARIABLES, gaps=True)
        assert {node: mask.nonzero()[0].tolist() for node, mask in table.gaps.items()} == {
            "digit": [2, 3],
            "image": [5],
        }
        assert table.incomplete(["digit", "image"]).tolist() == [False, False, True, True, False, True]
        small = table.complete(["digit", "thickness"])
        assert small["digit"].tolist() == [3, 1, 5, 9] and not small.gaps
        assert list(small) == ["digit", "thickness"] and table.complete(["thickness"]) is table
        with pytest.raises(DataError, match="missing in 3 of the 6 rows of the table"):
            read_data(table, VARIABLES)


@pytest.mark.parametrize(
    ("variable", "values", "rows"),
    [
        (Continuous(), pd.array([1, None, 3], dtype="Int64"), [1]),
        (Continuous(lower=2), [None, 2.0, 3.0], [0]),
        (Categorical(["a", "b"]), ["a", None, np.nan], [1, 2]),
        (Categorical([10, 20]), pd.array([10, None, 20], dtype="Int64"), [1]),
        (Continuous(shape=(2,)), [[1.0, 2.0], [np.nan, 1.0], [np.nan, np.nan]], [1, 2]),
        (Image(1, 2, 2), [np.zeros((2, 2), np.uint8), None, np.full((2, 2), 7, np.uint8)], [1]),
    ],
)
def test_gaps_of_every_kind(variable, values, rows):
    for source in ({"x": values}, pd.DataFrame({"x": pd.Series(values)})):
        table = read_data(source, {"x": variable}, gaps=True)
        assert table.gaps["x"].nonzero()[0].tolist() == rows
        given = [value for row, value in enumerate(values) if row not in rows]
        np.testing.assert_array_equal(
            table.complete(["x"])["x"], read_data({"x": given}, {"x": variable})["x"]
        )


@pytest.mark.parametrize(
    ("variable", "values", "masked"),
    [
        (Continuous(), [1.0, 2.0, 99999.0], [False, False, True]),
        (Categorical(3), [1, 2, 7], [False, False, True]),
        (Categorical(["a", "b"]), ["a", "zzz", "b"], [False, True, False]),
        (Continuous(shape=(2,)), [[1.0, 2.0], [3.0, 9999.0], [5.0, 6.0]], [[0, 0], [0, 1], [0, 0]]),
        (Image(1, 1, 2), np.zeros((3, 1, 1, 2), np.uint8), [[[[1, 1]]], [[[0, 0]]], [[[0, 0]]]]),
    ],
)
def test_what_is_masked_is_a_gap(variable, values, masked):
    array = np.ma.masked_array(values, mask=masked)
    gap = np.array(masked, bool).reshape(3, -1).any(axis=1)
    table = read_data({"x": array}, {"x": variable}, gaps=True)
    assert table.gaps["x"].tolist() == gap.tolist()
    wanted = read_data({"x": np.asarray(values)[~gap]}, {"x": variable})["x"]
    np.testing.assert_array_equal(table.complete(["x"])["x"], wanted)
    with pytest.raises(DataError, match="missing in 1 of the 3 rows"):
        read_data({"x": array}, {"x": variable})


def test_an_image_that_is_masked_in_part_is_refused():
    array = np.ma.masked_array(np.zeros((2, 2, 2)), mask=[[[0, 0], [0, 0]], [[0, 1], [0, 0]]])
    with pytest.raises(DataError, match="row 1"):
        read_data({"x": array}, {"x": Image(1, 2, 2)}, gaps=True)


def test_gaps_in_the_columns_of_a_vector():
    frame = pd.DataFrame({"x_0": pd.array([1, 2, None], dtype="Int64"), "x_1": [1.0, np.nan, 2.0]})
    table = read_data(frame, {"x": Continuous(shape=(2,))}, gaps=True)
    assert table.gaps["x"].tolist() == [False, True, True]


def test_a_bad_value_beside_a_gap_keeps_its_row():
    with pytest.raises(DataError, match="row 2 is -1.0, below the lower bound"):
        read_data({"x": [1.0, np.nan, -1.0]}, {"x": Continuous(lower=0)}, gaps=True)


@pytest.mark.parametrize("variable", [Continuous(), Categorical(3), Categorical(["a"]), Image(1, 2, 2)])
def test_a_column_without_any_value(variable):
    for column in ([None, None], pd.Series([np.nan, np.nan], dtype=object)):
        with pytest.raises(DataError, match="Column 'x' of .*: none of the 2 rows has a value. Give it"):
            read_data(pd.DataFrame({"x": column}), {"x": variable})
        assert read_data(pd.DataFrame({"x": column}), {"x": variable}, gaps=True).gaps["x"].all()


def test_values_out_of_their_domain(frame, folder):
    frame.loc[3, "digit"] = 10
    refuse(
        written(frame, folder), VARIABLES, r"Column 'digit' of train.csv: row 3 is 10, expected one of the 10"
    )
    refuse(
        {"thickness": [1, -2]},
        {"thickness": VARIABLES["thickness"]},
        "row 1 is -2.0, below the lower bound 0",
    )
    refuse({"thickness": [1, np.inf]}, {"thickness": VARIABLES["thickness"]}, "row 1 is inf")
    refuse(
        {"pet": ["cat", "fox"]},
        {"pet": Categorical(["cat", "dog"])},
        "row 1 is 'fox', expected .*'cat', 'dog'",
    )


def test_text_where_numbers_should_be(frame, folder):
    refuse(
        written(frame.assign(thickness="thick"), folder),
        VARIABLES,
        "Column 'thickness' of train.csv: .*'thick'",
    )


def test_no_rows(frame, folder):
    refuse(written(frame.head(0), folder), VARIABLES, "no rows of train.csv")
    refuse(frame.head(0), VARIABLES, "no rows")
    refuse({"digit": []}, {"digit": Categorical(10)}, "no rows")


def test_columns_of_different_length():
    source = {"digit": [1, 2], "thickness": [1.0]}
    refuse(source, {name: VARIABLES[name] for name in source}, "'digit' has 2, 'thickness' has 1")


@pytest.mark.parametrize("path", ["/images/0.png", "C:\\images\\0.png", "\\images\\0.png"])
def test_absolute_paths_in_a_table_are_refused(frame, folder, path):
    frame.loc[1, "image"] = path
    refuse(
        written(frame, folder),
        VARIABLES,
        "Column 'image' of train.csv, row 1: .* is absolute. Give a path relative",
    )


def test_paths_that_leave_the_table_are_refused(frame, folder):
    inner = folder / "inner"
    inner.mkdir()
    (inner / "link").symlink_to(folder / "images")
    for path in ("../images/0.png", "link/0.png", "a/../../images/0.png"):
        refuse(
            written(frame.assign(image=path), inner),
            VARIABLES,
            "row 0: the path .* leads out of the table's folder",
        )


# --- colours ---


def test_colours_are_converted_and_nothing_is_guessed(tmp_path):
    grey, colour = Image(1, 2, 2), Image(3, 2, 2)
    red = Pictures.new("RGB", (2, 2), (255, 0, 0))
    palette = red.quantize(2)
    for picture in (red, palette, red.convert("RGBA")):
        assert read_data({"x": [picture]}, {"x": colour})["x"][0, :, 0, 0].tolist() == [255, 0, 0]
        assert read_data({"x": [picture]}, {"x": grey})["x"][0, :, 0, 0].tolist() == [76]  # luma of red
    assert read_data({"x": [Pictures.new("1", (2, 2), 1)]}, {"x": grey})["x"].max() == 255
    assert read_data({"x": [Pictures.new("L", (2, 2), 7)]}, {"x": colour})["x"].tolist() == [
        [[[7, 7], [7, 7]]] * 3
    ]
    Pictures.new("I;16", (2, 2), 1000).save(tmp_path / "deep.png")
    Pictures.new("RGBA", (2, 2), (255, 0, 0, 10)).save(tmp_path / "glass.png")
    Pictures.new("L", (2, 2)).save(
        tmp_path / "film.gif", save_all=True, append_images=[Pictures.new("L", (2, 2), 9)]
    )
    for name, told in (
        ("deep", "more than 8 bits"),
        ("glass", "transparent"),
        ("film", "got several frames"),
    ):
        file = next(tmp_path.glob(f"{name}.*"))
        refuse({"x": [str(file)]}, {"x": colour}, f"Column 'x', row 0 .*{told}")


# --- data sets ---


class Pairs:
    """A data set in torchvision's style."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


PAIR = {"label": Categorical(10), "x": Image(1, 4, 5)}


@pytest.mark.parametrize(
    "form", [Pictures.fromarray, lambda p: p[None], lambda p: torch.tensor(p / 255).float()[None]]
)
def test_a_data_set_of_pairs(form):
    source = Pairs(
        [(form(pixels), torch.tensor(digit)) for pixels, digit in zip(PIXELS, DIGITS, strict=True)]
    )
    table = read_data(source, PAIR)
    assert table["label"].tolist() == DIGITS
    expected = torch.tensor(PIXELS)[:, None] / 127.5 - 1
    torch.testing.assert_close(table.tensor("x"), expected.float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("rows", [[{"x": 1.0}] * 3, pd.DataFrame({"x": [1.0, 2.0]}).to_records(index=False)])
def test_rows_that_name_their_values_are_no_data_set_of_pictures(rows):
    with pytest.raises(DataError, match=r"rows that name their values each. .* pandas.DataFrame\(rows\)"):
        read_data(rows, {"x": Continuous()})


def test_a_data_set_that_does_not_fit_the_model():
    source = Pairs([(Pictures.fromarray(PIXELS[0]), 3)])
    refuse(source, PAIR | {"t": Continuous()}, r"one image variable and at most one.*t \(continuous\)")
    refuse(source, {"label": Categorical(10)}, "one image variable")
    refuse(Pairs([3]), PAIR, r"row 0: expected a pair \(image, label\), got int")
    refuse(Pairs([(Pictures.new("L", (9, 9)), 3)]), PAIR, "row 0: expected an image of height 4")
    refuse(Pairs([(Pictures.fromarray(PIXELS[0]), 10)]), PAIR, "Column 'label' of the data set: row 0 is 10")


def test_mnist(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    for part, rows in (("train", 4), ("t10k", 2)):
        images, labels = struct.pack(">4I", 2051, rows, 28, 28), struct.pack(">2I", 2049, rows)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(images + pixels[:rows].tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(labels + bytes([7, 2, 1, 0][:rows]))
        for name in (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"):
            with gzip.open(raw / f"{name}.gz", "wb") as file:
                file.write((raw / name).read_bytes())
    variables = {"digit": Categorical(10), "image": Image(1, 28, 28)}
    table = read_data(f"mnist:{tmp_path}", variables)
    assert table["digit"].tolist() == [7, 2, 1, 0] and np.array_equal(table["image"][:, 0], pixels)
    assert read_data(f"mnist:{tmp_path}:test", variables).rows == 2
    assert read_data(f"mnist:{tmp_path}:train", variables).rows == 4
    refuse(
        f"mnist:{tmp_path}",
        {"digit": Categorical(10), "image": Image(1, 32, 32)},
        "Column 'image' of mnist:.*shape",
    )


def test_mnist_that_is_not_there(tmp_path):
    refuse(f"mnist:{tmp_path}", PAIR, "No MNIST in .*train|No MNIST in .*raw.*nothing is downloaded")
    refuse("mnist:", PAIR, "names no folder")


# --- the table ---


@pytest.mark.parametrize("variable", [Image(1, 4, 5)])
def test_a_batch_is_what_encode_gives_bit_for_bit(variable):
    table = read_data({"x": PIXELS}, {"x": variable})
    rows = torch.tensor([5, 0, 0, 3])
    assert np.array_equal(table.tensor("x", rows).numpy(), variable.encode(PIXELS[[5, 0, 0, 3]], where="x"))
    assert table.tensor("x").dtype == torch.float32 and table["x"].dtype == np.uint8


@pytest.mark.parametrize("kind", ["Int64", "int64[pyarrow]"])
def test_whole_numbers_beside_gaps_are_exact(kind):
    big = 2**53 + 1
    frame = pd.DataFrame({"x": pd.Series([big, None, 7], dtype=kind)})
    table = read_data(frame, {"x": Categorical([big - 1, big, 7])}, gaps=True)
    assert table["x"][[0, 2]].tolist() == [1, 2]
    with pytest.raises(DataError, match=f"row 0 is {big}, a whole number beyond"):
        read_data(frame, {"x": Continuous()}, gaps=True)


def test_the_table_does_not_share_the_callers_memory():
    pixels, numbers = PIXELS.copy(), np.array(THICKNESS)
    table = read_data({"x": pixels, "t": numbers}, {"x": Image(1, 4, 5), "t": Continuous()})
    pixels[:], numbers[:] = 0, 0
    assert table["t"].tolist() == THICKNESS and np.array_equal(table["x"][:, 0], PIXELS)


def test_a_fingerprint_is_of_names_and_contents():
    one = Table({"a": np.arange(3), "b": np.zeros(3)})
    assert one.fingerprint() == Table({"b": np.zeros(3), "a": np.arange(3)}).fingerprint(["a", "b"])
    others = [
        Table({"a": np.arange(3), "b": np.array([0.0, 0.0, 1e-300])}),
        Table({"a": np.arange(3), "c": np.zeros(3)}),
        Table({"a": np.arange(3), "b": np.zeros(3, dtype=np.int64)}),
        Table({"a": np.arange(3)}),
    ]
    assert len({table.fingerprint() for table in [one, *others]}) == 5


def test_an_unknown_column_of_a_table():
    with pytest.raises(UnknownNameError, match=r"Unknown column 'digt'. Did you mean 'digit'"):
        Table({"digit": np.zeros(1)}).tensor("digt")
    with pytest.raises(DataError, match="no columns"):
        Table({})
