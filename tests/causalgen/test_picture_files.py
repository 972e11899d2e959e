"""Picture files are read exactly or refused, alike as evidence, in a table and on the command line.

An audit hook watches every test: no reading of a picture starts a program.
"""

import io
import re
import resource
import struct
import sys
import zlib
from contextlib import suppress
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin
from PIL import Image as Pictures
from PIL.Image import Transpose

import causalgen as cg
from causalgen.cli import main as cli
from causalgen.cli.given import read_evidence
from causalgen.counterfactuals.evidence import encode_evidence
from causalgen.data.pictures import MAX_BYTES
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


def tiff(tags, data):
    """A TIFF: a header, the data, the values that do not fit into a tag, the directory."""

    def write(path):
        base, extra, directory = 8 + len(data), b"", b""
        for tag, values in sorted(({256: (WIDTH,), 257: (HEIGHT,), 277: (1,), 262: (1,)} | tags).items()):
            raw = struct.pack(f"<{len(values)}I", *values)
            place = struct.pack("<I", base + len(extra)) if len(values) > 1 else raw
            directory += struct.pack("<HHI", tag, 4, len(values)) + place
            extra += raw if len(values) > 1 else b""
        head = struct.pack("<2sHI", b"II", 42, base + len(extra))
        count = struct.pack("<H", len(directory) // 12)
        path.write_bytes(head + data + extra + count + directory + struct.pack("<I", 0))
        return None

    return write


def strips(bits, data, *, channels=1, planes=1, rows=HEIGHT, **tags):
    """A TIFF of uncompressed strips, one a plane."""
    size = len(data) // planes
    layout = {258: (bits,) * channels, 259: (1,), 273: tuple(8 + size * each for each in range(planes))}
    layout |= {277: (channels,), 278: (rows,), 279: (size,) * planes, 284: (2 if planes > 1 else 1,)}
    colour = {262: (2,)} if channels == 3 else {}
    return tiff(layout | colour | {int(tag[1:]): (value,) for tag, value in tags.items()}, data)


@lru_cache
def zeros(size):
    return zlib.compress(bytes(size))


def huge_tile(path):
    """24 pixels, in a tile of 256 million that compresses to little."""
    side = 16_000
    data = zeros(side**2)
    tags = {258: (8,), 259: (8,), 322: (side,), 323: (side,), 324: (8,), 325: (len(data),)}
    tiff(tags, data)(path)


def of_nibbles(path):
    """4 bits a pixel: 0 to 15 are 0 to 255."""
    values = FEW // np.uint8(85) * np.uint8(5)
    strips(4, (values[:, ::2] * 16 + values[:, 1::2]).tobytes())(path)
    return np.stack([values * np.uint8(17)] * 3, axis=-1)


def white_is_zero(path):
    strips(8, GREY.tobytes(), t262=0)(path)
    return np.stack([255 - GREY] * 3, axis=-1)


def in_planes(path):
    strips(8, np.moveaxis(COLOUR, -1, 0).tobytes(), channels=3, planes=3)(path)
    return COLOUR


def frame_within_screen(path):
    """A GIF whose only frame is smaller than its screen; the rest of the screen has no colour."""
    small = io.BytesIO()
    Pictures.fromarray(FEW[:2, :3]).save(small, "GIF")
    data = bytearray(small.getvalue())
    data[6:10] = struct.pack("<HH", WIDTH, HEIGHT)
    path.write_bytes(data)


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
    "tiff of 4 bits": ("tif", of_nibbles, None),
    "tiff whose white is 0": ("tif", white_is_zero, None),
    "tiff in planes": ("tif", in_planes, None),
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
    "16-bit colour tiff": refused("tif", "more than 8 bits", strips(16, bytes(144), channels=3)),
    "16-bit colour tiff in planes": refused(
        "tif", "more than 8 bits", strips(16, bytes(144), channels=3, planes=3)
    ),
    "12-bit tiff": refused("tif", "more than 8 bits", strips(12, bytes(36))),
    "floats": refused("tif", "more than 8 bits", plain("F", 0.5)),
    "glass": refused("png", "transparent", plain("RGBA", (9, 9, 9, 100))),
    "grey glass": refused("png", "transparent", plain("LA", (9, 100))),
    "webp glass": refused("webp", "transparent", plain("RGBA", (9, 9, 9, 100), lossless=True)),
    "clear colour of a palette": refused("png", "transparent", clear_palette),
    "clear grey": refused("png", "transparent", grey_key),
    "film": refused("gif", "several frames", frames()),
    "film in png": refused("png", "several frames", frames()),
    "pages": refused("tif", "several frames", frames()),
    "film in webp": refused("webp", "several frames", frames(lossless=True)),
    "camera with two pictures": refused("jpg", "several frames", frames(format="MPO")),
    "frame within its screen": refused("gif", "a part of its 6 x 4 only", frame_within_screen),
    "strips that are missing": refused("tif", "a part of its 6 x 4 only", strips(8, bytes(12), rows=2)),
    "a huge tile": refused("tif", "tiles of 16,000 pixels", huge_tile),
    "inks": refused("jpg", "depend on a profile", plain("CMYK", (1, 2, 3, 4))),
    "inks in tiff": refused("tif", "depend on a profile", plain("CMYK", (1, 2, 3, 4))),
    "truncated png": cut("png"),
    "truncated jpeg": cut("jpg", quality=100),
    "truncated bmp": cut("bmp"),
    "truncated gif": cut("gif"),
    "truncated tiff": cut("tif", compression="raw"),
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


def by_picture(path, variable):
    with Pictures.open(path) as picture:
        values, _, _ = encode_evidence({"x": picture}, {"x": variable}, torch.device("cpu"))
        return values["x"].numpy()


def by_path(path, variable):
    values, _, _ = encode_evidence({"x": path}, {"x": variable}, torch.device("cpu"))
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
    """Whether PIL refuses to open the file, before it comes to us."""
    try:
        Pictures.open(path).close()
    except OSError:
        return read is by_picture
    return False


STARTED = []
"""Programs that were started, by the events of PEP 578; a hook cannot be taken off again."""
sys.addaudithook(
    lambda event, arguments: (
        STARTED.append((event, arguments))
        if event.startswith(("subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn"))
        else None
    )
)


@pytest.fixture(autouse=True)
def no_other_program():
    STARTED.clear()
    yield
    assert not STARTED


def test_the_hook_sees_what_pil_starts(tmp_path, monkeypatch):
    """The control: PIL itself asks for Ghostscript, installed or not, to decode PostScript named .png."""
    path = tmp_path / "postscript.png"
    plain("RGB", (1, 2, 3), format="EPS")(path)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # looked for once a process
    with Pictures.open(path) as picture, suppress(OSError):
        picture.load()
    assert STARTED
    STARTED.clear()


@pytest.mark.attack("picture files, each read in four ways")
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("read", [by_picture, by_path, by_table, by_command_line])
def test_a_picture_is_read_exactly_or_refused(tmp_path, name, read):
    ending, write, told = FILES[name]
    path = tmp_path / f"picture.{ending}"
    expected = write(path)
    if read is by_picture and name in ("PostScript", "PPM"):
        told = f"expected a picture of one of PNG, .*, got {'EPS' if name == 'PostScript' else name}"
    for channels in (1, 3):
        variable = Image(channels, HEIGHT, WIDTH)
        if told is not None:
            unopened = by_pil(path, read)
            with pytest.raises(OSError if unopened else (DataError, DomainError)) as error:
                read(path, variable)
            said = str(error.value)
            assert unopened or (re.search(told, said) and re.match("Evidence 'x'|Column 'x'", said)), said
            continue
        wanted = expected.astype(np.int64)
        if channels == 1 and (wanted == wanted[..., :1]).all():
            wanted = wanted[..., :1]
        elif channels == 1:  # ITU-R 601-2, in fixed point as PIL computes it
            wanted = (wanted @ [19595, 38470, 7471] + 0x8000)[..., None] >> 16
        pixels = np.moveaxis(wanted, -1, 0).astype(np.float32) / np.float32(255)
        assert np.array_equal(read(path, variable), (pixels * np.float32(2) - np.float32(1))[None])


@pytest.mark.parametrize("channels", [1, 3])
def test_each_refused_file_as_evidence_of_the_command_itself(tmp_path, monkeypatch, capsys, channels):
    """One line and exit code 1; a picture that is taken gets as far as the model, which is not fitted."""
    model = tmp_path / "scm.yaml"
    shape = [channels, HEIGHT, WIDTH]
    model.write_text(
        "causalgen: 1\nnodes:\n  k:\n    variable: {type: categorical, categories: 2}\n"
        f"  x:\n    variable: {{type: image, shape: {shape}}}\n    parents: [k]\n"
        "    mechanism: {kind: diffusion, backbone: {kind: unet, channels: [8], unshuffle: 1}}\n"
    )
    scm = cg.SCM.from_yaml(model)
    monkeypatch.setattr("causalgen.cli.counterfactual.load_model", lambda *_, **__: scm)  # once
    for name, (ending, write, told) in FILES.items():
        if told is None and name not in ("grey", "colour", "tiff 6", "webp"):
            continue
        path = tmp_path / f"picture.{ending}"
        write(path)
        words = ["counterfactual", model, "--evidence", path, "--do", "k=1", "--out", tmp_path / "out"]
        monkeypatch.setattr(sys, "argv", ["causalgen", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        said = capsys.readouterr().err
        assert stopped.value.code == 1, name
        assert re.match(f"error: .*({told or 'not been fitted|fit it first'}).*\n$", said), (name, said)
        path.unlink()


def test_limits_come_before_decoding(tmp_path):
    """A huge file, a huge picture and a huge tile are refused without the memory that they would take."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    variable = Image(1, HEIGHT, WIDTH)
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(
        DataError, match=r"row 0: the file .*huge.png has 268,435,457 bytes, expected at most"
    ):
        by_path(path, variable)
    deep_png(0, 1, 20_000, 1)(path)
    for size, told in (((2**20, 2**20), "larger than 50,000,000 pixels"), ((9000, 9000), "at most 50,000")):
        data = bytearray(path.read_bytes())
        data[16:24] = struct.pack(">II", *size)
        data[24] = 8
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
        path.write_bytes(data)
        with pytest.raises(DataError, match=told):
            by_path(path, variable)
    huge_tile(path)
    with pytest.raises(DataError, match="tiles of 16,000"):
        by_path(path, variable)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


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


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("", "row 1: the path is empty. Give a picture's, or None where there is none."),
        (GREY, r"row 1: expected a picture or the path of one, .* got an array of shape \(4, 6\)\. Give all"),
    ],
)
def test_what_is_no_picture_among_pictures_is_told_in_a_line(tmp_path, other, message):
    Pictures.fromarray(GREY).save(tmp_path / "grey.png")
    column = [str(tmp_path / "grey.png"), other]
    for read in (read_data, encode_evidence):
        given = {"p": Image(1, HEIGHT, WIDTH)}
        with pytest.raises(DataError, match=message) as caught:
            read({"p": column}, given) if read is read_data else read(
                {"p": column}, given, torch.device("cpu")
            )
        assert "\n" not in str(caught.value)
