"""Coloured digits: their equation pixel by pixel, their laws, their true worlds."""

import numpy as np
import pytest

import causalgen as cg
from causalgen.data.reading import read_data
from causalgen.datasets.colour_digits import INK, PAPER

COLOUR = cg.Continuous(shape=(3,), lower=0, upper=1)
VARIABLES = {
    "digit": cg.Categorical(10),
    "shape": cg.Image(1, 28, 28),
    "ink": COLOUR,
    "paper": COLOUR,
    "picture": cg.Image(3, 28, 28),
}


@pytest.fixture
def columns(mnist_folder):
    return cg.datasets.colour_digits(mnist_folder, "test")


def test_a_picture_is_ink_on_paper():
    random = np.random.default_rng(0)
    shape, ink, paper, grain = random.random((2, 4, 5)), random.random((2, 3)), random.random((2, 3)), 0.0
    made = cg.datasets.colour_pictures(shape, ink, paper, grain)
    for (row, channel, y, x), pixel in np.ndenumerate(made):
        cover = shape[row, y, x]
        assert pixel == round(255 * (cover * ink[row, channel] + (1 - cover) * paper[row, channel]))
    lit = cg.datasets.colour_pictures(shape, ink, paper, np.full((2, 4, 5), 2.0))
    low = np.rint(255 * (made / 255 + 0.08)).clip(0, 255)
    assert np.abs(lit - low).max() <= 1


def test_rows_are_those_of_mnist_in_colours_of_their_law(rows, columns, mnist_folder):
    assert np.array_equal(columns["shape"], rows["original"])
    assert np.array_equal(columns["digit"], rows["label"])
    for name, (low, high) in (("ink", INK), ("paper", PAPER)):
        assert columns[name].shape == (24, 3)
        assert low <= columns[name].min() < columns[name].max() < high
    again = cg.datasets.colour_digits(mnist_folder, "test")
    assert all(np.array_equal(again[name], columns[name]) for name in columns)
    assert (cg.datasets.colour_digits(mnist_folder, "train")["ink"] != columns["ink"]).all()
    table = read_data(f"colour-digits:{mnist_folder}:test", VARIABLES)
    assert np.array_equal(table["picture"], columns["picture"])


def test_grain_is_standard_normal_and_smooth(columns):
    shape, ink, paper = columns["shape"][:, None] / 255, columns["ink"], columns["paper"]
    flat = shape * ink[:, :, None, None] + (1 - shape) * paper[:, :, None, None]
    grain = (columns["picture"] / 255 - flat).mean(1) / 0.04
    assert abs(grain.std() - 1) < 0.05 and abs(grain.mean()) < 0.1
    # Two Gaussians of 1.5 px, d apart, overlap by exp(-(d / 1.5)^2 / 4).
    for apart in (1, 3):
        found = (grain[:, :, apart:] * grain[:, :, :-apart]).mean()
        assert abs(found - np.exp(-((apart / 1.5) ** 2) / 4)) < 0.06


def test_colours_are_read_back(columns):
    ink, paper = cg.datasets.colours_of(columns["picture"] / 255, columns["shape"] / 255)
    assert np.abs(ink - columns["ink"]).mean() < 0.02 and np.abs(paper - columns["paper"]).mean() < 0.01
    plain = cg.datasets.colour_pictures(columns["shape"] / 255, columns["ink"], columns["paper"])
    ink, paper = cg.datasets.colours_of(plain / 255, columns["shape"] / 255)
    assert np.abs(ink - columns["ink"]).max() < 0.003 and np.abs(paper - columns["paper"]).max() < 0.003
    blank = cg.datasets.colours_of(plain[:1] / 255, np.zeros((1, 28, 28)))
    assert np.isnan(blank).all()


def test_true_worlds_keep_the_grain(columns):
    truth = cg.datasets.colour_digits_truth(columns)
    rows = np.array([3, 1, 7])
    null = truth(rows, {})
    assert np.abs(null["picture"] * 255 - columns["picture"][rows]).max() <= 1
    ink = np.array([[0.2, 0.3, 0.4]] * 3)
    world = truth(rows, {"ink": ink})
    assert np.array_equal(world["shape"], null["shape"]) and np.array_equal(world["paper"], null["paper"])
    # A picture whose grain is known: the difference of two worlds of it has none.
    shape = null["shape"]
    due = shape * (ink - columns["ink"][rows])[:, :, None, None]
    assert np.abs(world["picture"] - null["picture"] - due).max() <= 1.01 / 255
    other = truth(rows, {"shape": null["shape"][::-1]})
    due = (shape[::-1] - shape) * (columns["ink"] - columns["paper"])[rows][:, :, None, None]
    assert np.abs(other["picture"] - null["picture"] - due).max() <= 1.01 / 255
    # Of another digit of the same hand nothing is known, but of a shape that is set.
    assert set(truth(rows, {"digit": np.array([1, 2, 3])})) == {"digit", "ink", "paper"}
    assert "picture" in truth(rows, {"digit": np.array([1, 2, 3]), "shape": null["shape"]})


def test_what_disagrees_is_refused(columns):
    shapes, picture = columns["shape"] / 255, columns["picture"] / 255
    with pytest.raises(cg.ShapeError, match=r"inks \(N, 3\) and papers \(N, 3\), got"):
        cg.datasets.colour_pictures(shapes, columns["ink"][:5], columns["paper"])
    with pytest.raises(cg.DomainError, match=r"Shapes: expected values in \[0, 1\]"):
        cg.datasets.colour_pictures(columns["shape"], columns["ink"], columns["paper"])
    with pytest.raises(cg.ShapeError, match="Pictures: expected"):
        cg.datasets.colours_of(picture[:, :, :20], shapes)
    with pytest.raises(cg.ShapeError, match="picture: expected"):
        cg.datasets.colour_digits_truth(columns | {"picture": columns["picture"][:3]})
    with pytest.raises(cg.DataError, match="There is no folder|no folder"):
        cg.datasets.colour_digits("nowhere")
