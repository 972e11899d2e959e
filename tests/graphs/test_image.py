"""Encoding of images: uint8, floats and PIL pictures agree; everything else is refused with its fix."""

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphs.errors import DomainError, ShapeError
from graphs.variables import Image

GREY = Image(1, 4, 6)
COLOUR = Image(3, 4, 6)
HERE = "Evidence 'x'"
EVERY_BYTE = np.arange(256, dtype=np.uint8).reshape(-1, 1, 2, 4)


def random_bytes(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_every_byte_has_one_encoding_whatever_its_form() -> None:
    image = Image(1, 2, 4)
    encoded = image.encode(EVERY_BYTE, where=HERE)
    assert encoded.dtype == np.float32
    assert encoded.min() == -1 and encoded.max() == 1
    for same in (
        EVERY_BYTE / 255,
        (EVERY_BYTE / 255).astype(np.float32),
        torch.from_numpy(EVERY_BYTE.copy()),
        torch.from_numpy(EVERY_BYTE.copy()) / 255,
        [PIL.Image.fromarray(pixels[0]) for pixels in EVERY_BYTE],
        pd.Series([PIL.Image.fromarray(pixels[0]) for pixels in EVERY_BYTE]),
        list(EVERY_BYTE),
    ):
        assert (image.encode(same, where=HERE) == encoded).all()
    assert (np.rint(image.decode(encoded) * 255) == EVERY_BYTE).all()


@given(st.lists(st.floats(0, 1, width=32), min_size=24, max_size=24))
def test_round_trip_of_floats(pixels: list[float]) -> None:
    value = np.array(pixels, dtype=np.float32).reshape(1, 1, 4, 6)
    encoded = GREY.encode(value, where=HERE)
    assert np.abs(encoded).max() <= 1
    assert np.abs(GREY.decode(encoded) - value).max() <= 1e-7
    assert np.abs(GREY.encode(GREY.decode(encoded), where=HERE) - encoded).max() <= 1e-7


@pytest.mark.parametrize("shape", [(4, 6), (1, 4, 6), (1, 1, 4, 6)])
def test_one_row_of_grey(shape: tuple[int, ...]) -> None:
    assert GREY.encode(np.zeros(shape), where=HERE).shape == (1, 1, 4, 6)


def test_rows() -> None:
    assert GREY.encode(np.zeros((5, 4, 6)), where=HERE).shape == (5, 1, 4, 6)
    assert GREY.encode(np.zeros((0, 1, 4, 6)), where=HERE).shape == (0, 1, 4, 6)
    assert COLOUR.encode(np.zeros((3, 4, 6)), where=HERE).shape == (1, 3, 4, 6)
    assert COLOUR.encode(np.zeros((5, 3, 4, 6)), where=HERE).shape == (5, 3, 4, 6)
    assert GREY.encode(torch.zeros(5, 1, 4, 6, requires_grad=True), where=HERE).shape == (5, 1, 4, 6)
    # A square image whose batch is as large as a channel count stays a batch.
    assert Image(1, 4, 4).encode(np.zeros((3, 4, 4)), where=HERE).shape == (3, 1, 4, 4)


def test_pictures_are_height_by_width_with_channels_first() -> None:
    pixels = random_bytes(4, 6, 3)
    picture = PIL.Image.fromarray(pixels)
    assert (COLOUR.pixels(picture, where=HERE)[0] == np.moveaxis(pixels, -1, 0)).all()
    grey = np.asarray(picture.convert("L"))
    assert (GREY.pixels(picture, where=HERE)[0, 0] == grey).all()
    assert (GREY.pixels(picture.convert("RGBA"), where=HERE)[0, 0] == grey).all()
    assert GREY.pixels(picture.convert("1"), where=HERE).max() == 255


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (random_bytes(1, 4, 6).astype(np.float64), "Give uint8 for 0..255, or divide by 255"),
        (random_bytes(1, 4, 6).astype(np.int64), "got dtype int64. Convert it: value.astype"),
        (
            np.full((1, 4, 6), 2000, np.uint16),
            r"got dtype uint16. Convert it: \(value - low\) / \(high - low\)",
        ),
        (np.full((1, 4, 6), 1.05), r"Clip it: value.clip\(0, 1\)"),
        (np.zeros((1, 4, 6), dtype=bool), r"got dtype bool. Convert it: value.astype\(float\)"),
        (np.full((1, 4, 6), "a"), "got dtype <U1"),
        (np.full((1, 4, 6), -0.5), r"pixel -0.5 at \[0, 0, 0\].*\(value \+ 1\) / 2"),
        (np.full((1, 4, 6), np.nan), "pixel nan"),
        (np.full((1, 4, 6), np.inf), "pixel inf"),
        (np.full((1, 4, 6), 1 + 1e-5), "pixel 1.00001"),
        (PIL.Image.new("I", (6, 4)), "more than 8 bits"),
        (PIL.Image.new("F", (6, 4)), "more than 8 bits"),
        (PIL.Image.new("RGBA", (6, 4), (0, 0, 0, 0)), "transparent"),
    ],
)
def test_pixels_out_of_domain(value: object, message: str) -> None:
    with pytest.raises(DomainError, match=f"^Evidence 'x'.*{message}"):
        GREY.encode(value, where=HERE)


def test_the_bad_row_is_named() -> None:
    value = np.zeros((5, 1, 4, 6))
    value[3, 0, 2, 1] = 7
    with pytest.raises(DomainError, match=r"row 3 has the pixel 7.0 at \[0, 2, 1\]"):
        GREY.encode(value, where=HERE)
    with pytest.raises(DomainError, match="row 1: the PIL image is transparent"):
        GREY.encode([PIL.Image.new("L", (6, 4)), PIL.Image.new("LA", (6, 4))], where=HERE)


def test_rounding_beyond_the_range_is_clipped() -> None:
    encoded = GREY.encode(np.full((4, 6), 1 + 5e-7), where=HERE)
    assert encoded.max() == 1
    assert GREY.encode(np.full((4, 6), -5e-7), where=HERE).min() == -1


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            GREY,
            np.zeros((1, 32, 32)),
            r"shape \(1, 4, 6\).*got shape \(1, 32, 32\). Resize it to height 4 and width 6",
        ),
        (
            GREY,
            PIL.Image.new("L", (4, 6)),
            "row 0: expected an image of height 4 and width 6, got height 6 and width 4. Resize",
        ),
        (GREY, np.zeros((3, 4, 6, 1)), "Channels come first"),
        (COLOUR, np.zeros((4, 6, 3)), "Channels come first"),
        (COLOUR, np.zeros((4, 6)), r"got shape \(4, 6\)"),
        (COLOUR, np.zeros((1, 4, 6)), r"got shape \(1, 4, 6\)"),
        (GREY, np.zeros((2, 2, 1, 4, 6)), r"got shape \(2, 2, 1, 4, 6\)"),
        (GREY, 0.5, r"got shape \(\)"),
        (GREY, [np.zeros((4, 6)), np.zeros((5, 6))], r"row 1 has shape \(5, 6\)"),
        (
            GREY,
            [PIL.Image.new("L", (6, 4)), PIL.Image.new("L", (7, 4))],
            "row 1: expected .* got height 4 and width 7",
        ),
    ],
)
def test_images_of_another_size(variable: Image, value: object, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        variable.encode(value, where=HERE)


def test_too_many_channels_for_a_picture() -> None:
    with pytest.raises(DomainError, match="1 to 4 channels"):
        Image(5, 4, 6).encode(PIL.Image.new("L", (6, 4)), where=HERE)


def test_decoding_clamps_in_the_library_given() -> None:
    for values in (np.array([-3.0, 0.0, 3.0], np.float32), torch.tensor([-3.0, 0.0, 3.0])):
        decoded = GREY.decode(values)
        assert type(decoded) is type(values) and decoded.dtype == values.dtype
        assert decoded.tolist() == [0.0, 0.5, 1.0]


def test_the_input_is_left_alone() -> None:
    for value in (
        random_bytes(2, 1, 4, 6),
        np.full((2, 1, 4, 6), 1 + 5e-7, np.float32),
        np.ones((1, 4, 6), np.float32),
    ):
        before = value.copy()
        encoded = GREY.encode(value, where=HERE)
        assert not np.shares_memory(encoded, value)
        assert (value == before).all()


@pytest.mark.parametrize("shape", [(3, 64, 64), (64, 64, 64), (16, 4, 4), (1, 5, 3), (4, 8, 2)])
def test_few_columns_alone_are_no_channels(shape):
    assert Image(*shape).shape == shape


def test_bytes_of_zeros_and_ones_are_told_to_be_black():
    mask = np.eye(4, 6, dtype=np.uint8)[None]
    with pytest.warns(UserWarning, match=r"all but black. For a mask .* value.astype\(float\), or 255 for 1"):
        assert Image(1, 4, 6).encode(mask, where="Mask").max() < -0.99
    assert Image(1, 4, 6).encode(mask.astype(float), where="Mask").max() == 1
