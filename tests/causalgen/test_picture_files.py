"""Picture files are read exactly or refused, alike as evidence, in a table and on the command line."""

import re
import struct
import subprocess
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image as Pictures
from PIL.Image import Transpose

from causalgen.cli.given import read_evidence
from causalgen.counterfactuals.evidence import encode_evidence
from causalgen.data.reading import read_data
from graphs.errors import DataError, DomainError
from graphs.variables import Image

HEIGHT, WIDTH = 4, 6
GENERATOR = np.random.default_rng(0)
COLOUR = GENERATOR.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
GREY = GENERATOR.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
FEW = GENERATOR.integers(0, 4, (HEIGHT, WIDTH), dtype=np.uint8) * np.uint8(85)

# How the picture lies in its file where a camera says that it was held so (EXIF 2.3, tag 0x0112).
LAID = {
    1: None,
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_270,
}


def saved(pixels, ending, mode=None, **options):
    """Writes the pixels; what they are as RGB is what the file means."""

    def write(path):
        picture = Pictures.fromarray(pixels)
        (picture if mode is None else picture.convert(mode)).save(path, **options)
        return pixels if pixels.ndim == 3 else np.stack([pixels] * 3, axis=-1)

    return ending, write, None


def turned(ending, orientation, **options):
    def write(path):
        picture = Pictures.fromarray(COLOUR)
        exif = Pictures.Exif()
        exif[0x0112] = orientation
        method = LAID[orientation]
        (picture if method is None else picture.transpose(method)).save(path, exif=exif, **options)
        if ending != "jpg":
            return COLOUR
        laid = Pictures.open(path).convert("RGB")  # lossy: what stands in the file, laid upright by hand
        back = {Transpose.ROTATE_90: Transpose.ROTATE_270, Transpose.ROTATE_270: Transpose.ROTATE_90}
        return np.asarray(laid if method is None else laid.transpose(back.get(method, method)))

    return ending, write, None


def refused(ending, words, write):
    return ending, write, words


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def deep_png(colour_type, channels, width=WIDTH, height=HEIGHT):
    """A PNG of 16 bits a channel."""
    rows = np.full((height, 1 + 2 * width * channels), 200, np.uint8)
    rows[:, 0] = 0
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b"")]
    return lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))


def deep_tiff(path):
    """A TIFF of 16 bits a channel: a header, the pixels, the bits of each channel, the directory."""
    pixels = np.full((HEIGHT, WIDTH, 3), 200, "<u2").tobytes()
    bits, start = 8 + len(pixels), 8
    tags = [(256, 3, 1, WIDTH), (257, 3, 1, HEIGHT), (258, 3, 3, bits), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, 1, start), (277, 3, 1, 3), (278, 3, 1, HEIGHT), (279, 4, 1, len(pixels))]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = struct.pack("<2sHI", b"II", 42, bits + 6)
    path.write_bytes(head + pixels + struct.pack("<3H", 16, 16, 16) + directory + struct.pack("<I", 0))


def frames(**options):
    def write(path):
        others = [Pictures.fromarray(255 - COLOUR)]
        Pictures.fromarray(COLOUR).save(path, save_all=True, append_images=others, **options)

    return write


def cut(ending, **options):
    def write(path):
        noise = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Pictures.fromarray(noise).save(path, **options)
        path.write_bytes(path.read_bytes()[: -path.stat().st_size // 4])

    return refused(ending, "cannot read", write)


def plain(mode, fill, **options):
    return lambda path: Pictures.new(mode, (WIDTH, HEIGHT), fill).save(path, **options)


def clear_palette(path):
    Pictures.fromarray(COLOUR).quantize(8).save(path, transparency=0)


def palette_of_2_bits(path):
    picture = Pictures.fromarray(FEW // np.uint8(85))
    picture.putpalette([0, 0, 0, 85, 85, 85, 170, 170, 170, 255, 255, 255])
    picture.save(path, bits=2)
    return np.stack([FEW] * 3, axis=-1)


def grey_key(path):
    Pictures.fromarray(FEW).save(path, transparency=int(FEW[0, 0]))


FILES = {
    "grey": saved(GREY, "png"),
    "colour": saved(COLOUR, "png"),
    "colour with alpha of 255": saved(COLOUR, "png", "RGBA"),
    "grey with alpha of 255": saved(GREY, "png", "LA"),
    "palette": saved(FEW, "png", "P"),
    "palette of 2 bits": ("png", palette_of_2_bits, None),
    "one bit": saved(FEW // 128 * np.uint8(255), "png", "1"),
    "grey bmp": saved(GREY, "bmp"),
    "colour bmp": saved(COLOUR, "bmp"),
    "one bit bmp": saved(FEW // 128 * np.uint8(255), "bmp", "1"),
    "gif": saved(FEW, "gif"),
    "grey tiff": saved(GREY, "tif"),
    "colour tiff": saved(COLOUR, "tiff", compression="tiff_lzw"),
    "deflated tiff": saved(COLOUR, "tif", compression="tiff_adobe_deflate"),
    "one bit tiff": saved(FEW // 128 * np.uint8(255), "tif", "1", compression="group4"),
    "webp": saved(COLOUR, "webp", lossless=True),
    "webp with alpha": saved(COLOUR, "webp", "RGBA", lossless=True),
    **{f"png {each}": turned("png", each) for each in LAID},
    **{f"jpeg {each}": turned("jpg", each, quality=95) for each in LAID},
    **{f"tiff {each}": turned("tif", each) for each in LAID},
    **{f"webp {each}": turned("webp", each, lossless=True) for each in LAID},
    "16-bit grey": refused("png", "more than 8 bits", deep_png(0, 1)),
    "16-bit colour": refused("png", "more than 8 bits", deep_png(2, 3)),
    "16-bit grey with alpha": refused("png", "more than 8 bits", deep_png(4, 2)),
    "16-bit colour with alpha": refused("png", "more than 8 bits", deep_png(6, 4)),
    "16-bit grey tiff": refused("tif", "more than 8 bits", plain("I;16", 200)),
    "16-bit colour tiff": refused("tif", "more than 8 bits", deep_tiff),
    "floats": refused("tif", "more than 8 bits", plain("F", 0.5)),
    "glass": refused("png", "transparent", plain("RGBA", (9, 9, 9, 100))),
    "grey glass": refused("png", "transparent", plain("LA", (9, 100))),
    "webp glass": refused("webp", "transparent", plain("RGBA", (9, 9, 9, 100), lossless=True)),
    "clear colour of a palette": refused("png", "transparent", clear_palette),
    "clear grey": refused("png", "transparent", grey_key),
    "film": refused("gif", "2 frames", frames()),
    "film in png": refused("png", "2 frames", frames()),
    "pages": refused("tif", "2 frames", frames()),
    "film in webp": refused("webp", "2 frames", frames(lossless=True)),
    "inks": refused("jpg", "depend on a profile", plain("CMYK", (1, 2, 3, 4))),
    "inks in tiff": refused("tif", "depend on a profile", plain("CMYK", (1, 2, 3, 4))),
    "truncated png": cut("png"),
    "truncated jpeg": cut("jpg", quality=100),
    "truncated bmp": cut("bmp"),
    "truncated webp": cut("webp", lossless=True),
    "nothing": refused("png", "cannot read", lambda path: path.write_bytes(b"")),
    "text": refused("png", "cannot read", lambda path: path.write_text("no picture")),
    "PostScript": refused("png", "cannot read", plain("RGB", (1, 2, 3), format="EPS")),
    "PDF": refused("png", "cannot read", plain("RGB", (1, 2, 3), format="PDF")),
    "PPM": refused("png", "cannot read", plain("RGB", (1, 2, 3), format="PPM")),
    "on its side": refused("png", "expected", lambda path: Pictures.new("L", (HEIGHT, WIDTH)).save(path)),
    "larger": refused("png", "expected", lambda path: Pictures.new("L", (WIDTH, 5)).save(path)),
    "a bomb": refused("png", "expected|more than 8", deep_png(2, 3, 20_000, 1)),
}


def by_evidence(path, variable):
    with Pictures.open(path) as picture:
        values, _, _ = encode_evidence({"x": picture}, {"x": variable}, torch.device("cpu"))
        return values["x"].numpy()


def by_table(path, variable):
    table = path.with_name("table.csv")
    table.write_text(f"x\n{path.name}\n")
    return read_data(table, {"x": variable}).tensor("x").numpy()


def by_command_line(path, variable):
    variables = {"x": variable}
    return variable.encode(
        read_evidence(str(path), SimpleNamespace(variables=variables), ())["x"], where="Evidence 'x'"
    )


def by_pil(path, read):
    """Whether PIL refuses to open the file, which for evidence is the user's to do."""
    try:
        Pictures.open(path).close()
    except OSError:
        return read is by_evidence
    return False


@pytest.fixture(autouse=True)
def no_other_program(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError(f"a program was started: {arguments}")

    monkeypatch.setattr(subprocess, "Popen", refuse)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("read", [by_evidence, by_table, by_command_line])
def test_a_picture_is_read_exactly_or_refused(tmp_path, name, read):
    ending, write, told = FILES[name]
    path = tmp_path / f"picture.{ending}"
    expected = write(path)
    if read is by_evidence and name in ("PostScript", "PDF", "PPM"):
        return  # opened by the user, who may open what PIL opens
    for channels in (1, 3):
        variable = Image(channels, HEIGHT, WIDTH)
        if told is not None:
            unopened = by_pil(path, read)
            with pytest.raises(OSError if unopened else (DataError, DomainError)) as error:
                read(path, variable)
            assert unopened or re.search(told, str(error.value)), error.value
            continue
        wanted = expected.astype(np.int64)
        if channels == 1 and (wanted == wanted[..., :1]).all():
            wanted = wanted[..., :1]
        elif channels == 1:  # ITU-R 601-2, in fixed point as PIL computes it
            wanted = (wanted @ [19595, 38470, 7471] + 0x8000)[..., None] >> 16
        pixels = np.moveaxis(wanted, -1, 0).astype(np.float32) / np.float32(255)
        assert np.array_equal(read(path, variable), (pixels * np.float32(2) - np.float32(1))[None])


def test_a_picture_keeps_its_orientation_through_what_is_done_to_it(tmp_path):
    path = tmp_path / "a.jpg"
    turned("jpg", 6, quality=95)[1](path)
    picture = Pictures.open(path)
    variable = Image(3, HEIGHT, WIDTH)
    upright = by_table(path, variable)
    for each in (picture, picture.copy(), picture.convert("RGB")):
        assert np.array_equal(variable.encode(each, where="x"), upright)
        assert np.array_equal(read_data({"x": [each]}, {"x": variable}).tensor("x").numpy(), upright)
    assert picture.size == (HEIGHT, WIDTH)  # the user's picture is left alone
