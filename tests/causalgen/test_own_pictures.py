"""Pictures as they are in the world: other sizes, 16 bits, floats, .npy files."""

import struct
import zlib
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image as Pictures
from PIL.Image import Transpose
from typer.testing import CliRunner

import causalgen as cg
from causalgen.cli import main as cli
from causalgen.cli.given import read_evidence
from causalgen.counterfactuals.evidence import encode_evidence
from causalgen.data.reading import read_data
from graphs.errors import DataError, DomainError, SpecError
from graphs.variables import Image
from graphs.variables.picture import ranged

DEEP = np.array([[0, 1, 255, 256], [4095, 700, 2048, 3]], dtype=np.uint16)


def png16(path: Path, values, width=None, height=None):
    """A grey PNG of 16 bits, by its specification."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = (width or values.shape[1], height or values.shape[0])
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 16, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def read(path, variable):
    """Pixels in [0, 1] of one file, as a table has them: (C, H, W)."""
    return (read_data({"x": [str(path)]}, {"x": variable}).tensor("x").numpy()[0] + 1) / 2


def written(kind, values, folder):
    path = folder / f"deep.{kind.split()[0]}"
    if kind == "png":
        png16(path, values)
    elif kind == "npy":
        np.save(path, values)
    elif kind == "tif":
        Pictures.fromarray(values.astype(np.uint16)).save(path)
    elif kind == "tif int32":
        Pictures.fromarray(values.astype(np.int32)).save(path)
    elif kind == "tif float":
        Pictures.fromarray(values.astype(np.float32)).save(path)
    return path


def test_a_range_is_told_in_all_its_digits():
    """Of 1048576 it was told to expect 0 to 1.04858e+06."""
    with pytest.raises(DomainError, match="is 1048576, expected 0 to 1048575, the variable's range"):
        ranged(np.array([[1048576]]), (0, 1048575), where="x")


@pytest.mark.parametrize("kind", ["png", "npy", "tif", "tif int32", "tif float"])
def test_pixels_of_more_than_8_bits_are_told_by_their_range(kind, tmp_path):
    path = written(kind, DEEP, tmp_path)
    for low, high in ((0, 4095), (0, 65535), (-1000, 5000)):
        pixels = read(path, Image(1, 2, 4, range=(low, high)))
        np.testing.assert_allclose(pixels[0], (DEEP.astype(float) - low) / (high - low), atol=1e-7)
    with pytest.raises(DataError, match=r"row 0.*the pixel at .*1, 0\] is 4095(\.0)?, expected 0 to 4094"):
        read(path, Image(1, 2, 4, range=(0, 4094)))
    with pytest.raises(DataError, match="range: .0, 65535"):
        read(path, Image(1, 2, 4))
    if kind != "npy":
        picture = Pictures.open(path)
        evidence = Image(1, 2, 4, range=(0, 4095)).encode(picture, where="x")
        np.testing.assert_allclose((evidence[0, 0] + 1) / 2, DEEP / 4095, atol=1e-7)


@pytest.mark.parametrize("resize", [None, "stretch"])
def test_pixels_of_32_bits_keep_what_tells_them_apart(resize, tmp_path):
    """Above 2**24 they were rounded to float32, 1.7e9 + 5 to 1.7e9."""
    low, size = 1_700_000_000, (2, 4) if resize is None else (1, 2)
    path = written("tif int32", DEEP.astype(np.int64) + low, tmp_path)
    pixels = read(path, Image(1, *size, range=(low, low + 4095), resize=resize))
    expected = DEEP if resize is None else np.asarray(Pictures.fromarray(DEEP.astype("f4")).resize((2, 1), 2))
    np.testing.assert_allclose(pixels[0], expected / 4095, atol=1e-6)


def test_arrays_in_files(tmp_path):
    colour = np.random.default_rng(0).normal(size=(3, 2, 4))
    np.save(tmp_path / "a.npy", colour)
    pixels = read(tmp_path / "a.npy", Image(3, 2, 4, range=(-9, 9)))
    np.testing.assert_allclose(pixels, (colour + 9) / 18, atol=1e-6)
    np.save(tmp_path / "a.npy", DEEP.astype(np.uint8))
    pixels = read(tmp_path / "a.npy", Image(1, 2, 4)) * 255
    np.testing.assert_allclose(pixels[0], DEEP.astype(np.uint8), atol=1e-4)
    np.save(tmp_path / "objects.npy", np.array([[None]]), allow_pickle=True)
    (tmp_path / "torn.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-3])
    for name, variable, told in (
        ("a", Image(1, 2, 4, range=(0, 9)), "expected numbers of more than 8 bits .* got uint8"),
        ("a", Image(1, 4, 4), r"expected an array of shape \(1, 4, 4\), got \(2, 4\)"),
        ("a", Image(1, 4, 4, resize="crop"), "arrays are not resized"),
        ("objects", Image(1, 1, 1), "cannot read the array"),
        ("torn", Image(1, 2, 4), "cannot read the array"),
    ):
        with pytest.raises(DataError, match=f"row 0 .{name}.npy.: .*{told}"):
            read(tmp_path / f"{name}.npy", variable)
    np.save(tmp_path / "a.npy", np.full((2, 4), np.nan))
    with pytest.raises(DataError, match="is nan, expected 0 to 1"):
        read(tmp_path / "a.npy", Image(1, 2, 4, range=(0, 1)))


def test_what_a_range_does_not_cover_is_refused(tmp_path):
    Pictures.new("RGB", (4, 2)).save(tmp_path / "colour.png")
    Pictures.new("L", (4, 2)).save(tmp_path / "grey.png")
    png16(tmp_path / "deep.png", DEEP)
    for name, channels, told in (
        ("grey", 1, "'L' has 8 bits a channel, but the variable declares the range 0 to 4095"),
        ("colour", 3, "'RGB' has 8 bits a channel"),
        ("deep", 3, "has one channel, the variable 3"),
    ):
        with pytest.raises(DataError, match=told):
            read(tmp_path / f"{name}.png", Image(channels, 2, 4, range=(0, 4095)))
    for limits in ((1, 1), (2, 1), (0, float("nan")), (0, float("inf"))):
        with pytest.raises(SpecError, match="range"):
            Image(1, 2, 2, range=limits)


def test_deep_pixels_whose_0_is_white_are_refused(tmp_path):
    """Decoding inverts 8 bits, and leaves more as they are: the picture would be its own negative."""
    path, variable = tmp_path / "negative.tif", Image(1, 2, 4, range=(0, 4095))
    Pictures.fromarray(DEEP.astype(np.uint16)).save(path)
    read(path, variable)
    black_is_zero, white_is_zero = (struct.pack("<HHIH", 262, 3, 1, each) for each in (1, 0))
    assert path.read_bytes().count(black_is_zero) == 1
    path.write_bytes(path.read_bytes().replace(black_is_zero, white_is_zero))
    with pytest.raises(DataError, match="0 is white"):
        read(path, variable)


RAMP = np.broadcast_to(5 * np.arange(40, dtype=np.uint8), (20, 40))
"""5 x: a mean over a symmetric neighbourhood is the value in its middle."""


@pytest.mark.parametrize("deep", [False, True])
def test_resizing_takes_the_middle_or_all(deep, tmp_path):
    options = {"range": (0, 255)} if deep else {}
    path = tmp_path / "ramp.png"
    png16(path, RAMP) if deep else Pictures.fromarray(np.array(RAMP)).save(path)
    column = np.arange(10)
    crop = read(path, Image(1, 10, 10, resize="crop", **options))[0] * 255
    stretch = read(path, Image(1, 10, 10, resize="stretch", **options))[0] * 255
    larger = read(path, Image(1, 40, 80, resize="crop", **options))[0] * 255
    np.testing.assert_allclose(crop, np.broadcast_to(5 * (10.5 + 2 * column), (10, 10)), atol=0.51)
    inner = np.broadcast_to(5 * (4 * column + 1.5), (10, 10))[:, 2:-2]
    np.testing.assert_allclose(stretch[:, 2:-2], inner, atol=0.51)
    assert larger.shape == (40, 80) and (np.diff(larger, axis=1) >= -1e-4).all()
    with pytest.raises(DataError, match="height 20 and width 40.*resize: crop"):
        read(path, Image(1, 10, 10, **options))
    exact = read(path, Image(1, 20, 40, resize="crop", **options))[0] * 255
    np.testing.assert_allclose(exact, RAMP, atol=1e-4)


def test_resizing_follows_the_orientation_of_the_camera(tmp_path):
    upright = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    laid = {6: Transpose.ROTATE_90, 3: Transpose.ROTATE_180, 5: Transpose.TRANSPOSE}
    variable = Image(3, 10, 12, resize="crop")
    Pictures.fromarray(upright).save(tmp_path / "a.png")
    expected = read(tmp_path / "a.png", variable)
    for orientation, method in laid.items():
        exif = Pictures.Exif()
        exif[0x0112] = orientation
        Pictures.fromarray(upright).transpose(method).save(tmp_path / "b.png", exif=exif)
        np.testing.assert_allclose(read(tmp_path / "b.png", variable), expected, atol=1.01 / 255)


def test_a_bomb_is_refused_before_it_is_resized(tmp_path):
    path = tmp_path / "huge.png"
    png16(path, DEEP, 9000, 9000)
    with pytest.raises(DataError, match="at most 50,000,000 pixels"):
        read(path, Image(1, 2, 4, resize="crop", range=(0, 9)))
    with Pictures.open(path) as picture, pytest.raises(DomainError, match="at most 50,000,000 pixels"):
        Image(1, 2, 4, resize="crop", range=(0, 9)).encode(picture, where="x")


def test_both_are_said_in_the_file_and_other_files_stay_as_they_were():
    graph = cg.SCM.from_pretrained("mnist").graph
    variables = {"digit": cg.Categorical(10), "image": Image(1, 8, 8, resize="crop", range=(0, 4095))}
    text = cg.SCM(graph, variables).to_yaml()
    assert "variable: {type: image, shape: [1, 8, 8], resize: crop, range: [0.0, 4095.0]}" in text
    assert "{type: image, shape: [1, 28, 28]}\n" in cg.SCM.from_pretrained("mnist").to_yaml()


def test_a_ranged_picture_is_the_same_in_a_table_as_evidence_and_on_the_command_line(tmp_path):
    variable = Image(1, 2, 4, range=(0, 4095))
    png16(tmp_path / "a.png", DEEP)
    np.save(tmp_path / "a.npy", DEEP)
    table = read_data({"x": [str(tmp_path / "a.png")]}, {"x": variable}).tensor("x").numpy()
    for name in ("a.png", "a.npy"):
        evidence = {"x": [str(tmp_path / name)]}
        found, *_ = encode_evidence(evidence, {"x": variable}, torch.device("cpu"))
        assert np.array_equal(found["x"].numpy(), table)
        typed = read_evidence(str(tmp_path / name), SimpleNamespace(variables={"x": variable}), ())
        assert np.array_equal(variable.encode(typed["x"], where="x"), table)


BANDS = Image(5, 3, 4)
DEPTHS = Image(2, 3, 4, range=(-1000, 3000))


def _bands_and_depths(folder):
    """A saved model of two images that never change, and a number; these images, too."""
    random = np.random.default_rng(0)
    bands = random.integers(0, 256, BANDS.shape).astype(np.uint8)
    shares = random.random(DEPTHS.shape).astype(np.float32)
    scm = cg.SCM(
        nx.DiGraph({"bands": [], "depths": [], "dose": []}),
        {"bands": BANDS, "depths": DEPTHS, "dose": cg.Continuous()},
        {
            "bands": cg.mechanisms.Constant(value=(bands / 255).tolist()),
            "depths": cg.mechanisms.Constant(value=shares.tolist()),
            "dose": cg.mechanisms.Equation(value="u", noise={"u": {"normal": [0, 1]}}),
        },
    )
    return scm, scm.save_pretrained(folder), bands, -1000 + 4000 * shares.astype(np.float64)


def test_images_that_no_png_holds_are_evidence_again_as_commands_wrote_them(tmp_path):
    scm, model, bands, depths = _bands_and_depths(tmp_path / "model")

    def run(*words):
        result = CliRunner().invoke(cli.app, [*map(str, words)])
        assert result.exit_code == 0, result.output

    run("sample", model, "-n", 2, "--out", tmp_path / "drawn")
    for folder, before in (("one", "drawn"), ("two", "one/dose=1")):
        evidence = tmp_path / before / "values.csv"
        run("counterfactual", model, "--evidence", evidence, "--do", "dose=1", "--out", tmp_path / folder)
        for part in ("factual", "dose=1"):
            table = pd.read_csv(tmp_path / folder / part / "values.csv")
            for row in range(2):
                files = {node: tmp_path / folder / part / table[node][row] for node in ("bands", "depths")}
                np.testing.assert_array_equal(np.load(files["bands"]), bands)
                np.testing.assert_allclose(np.load(files["depths"]), depths, rtol=0, atol=1e-3)
    drawn = scm.sample(2, seed=0)
    columns = read_data(tmp_path / "drawn" / "values.csv", dict(scm.variables))
    for node in ("bands", "depths"):
        assert torch.equal(columns.tensor(node), drawn.canonical(node)), node


def test_a_table_answered_in_parts_holds_images_that_are_read_back(tmp_path):
    scm, model, bands, depths = _bands_and_depths(tmp_path / "model")
    scm.sample(2, seed=0).save(tmp_path / "drawn")
    cells = pd.read_csv(tmp_path / "drawn" / "values.csv")
    for node in ("bands", "depths"):
        cells[node] = [(tmp_path / "drawn" / name).read_bytes() for name in cells[node]]
    cells[["bands", "depths", "dose"]].to_parquet(tmp_path / "rows.parquet")
    words = ["--table", tmp_path / "rows.parquet", "--do", "dose=1", "--out", tmp_path / "answers"]
    result = CliRunner().invoke(cli.app, ["counterfactual", str(model), *map(str, words)])
    assert result.exit_code == 0, result.output
    (part,) = (tmp_path / "answers" / "dose=1").glob("*.parquet")
    found = pd.read_parquet(part)
    np.testing.assert_array_equal(np.load(BytesIO(found["bands"][1])), bands)
    np.testing.assert_allclose(np.load(BytesIO(found["depths"][1])), depths, rtol=0, atol=1e-3)
