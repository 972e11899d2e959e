"""Pendulums: against matplotlib, which drew the published ones, and against geometry done by hand."""

import json
from math import cos, radians, sin, sqrt, tan

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Polygon
from typer.testing import CliRunner

import causalgen as cg
from causalgen.cli.main import app
from causalgen.data.reading import read_data
from causalgen.datasets.pendulum import ANGLES, LIGHTS, MEASURES, NUMBERS, draw_scenes

VARIABLES = {name: cg.Continuous() for name in NUMBERS} | {"image": cg.Image(3, 64, 64)}


def drawn_by_matplotlib(angle, light, length, position, size):
    """The scene as Yang et al. 2021 draw it, without snapping to whole pixels."""
    figure = Figure(figsize=(1, 1), dpi=size)
    canvas, axes = FigureCanvasAgg(figure), figure.add_subplot()
    x, y = 10 + 8 * sin(radians(angle)), 10.5 - 8 * cos(radians(angle))
    sun = 10 + 10 / tan(radians(light))
    ground = [(position - length / 2, -0.5), (position + length / 2, -0.5)]
    for shape in (
        Polygon([(10, 10.5), (x, y)], color="black", linewidth=3),
        Circle((x, y), 1.5, color="firebrick"),
        Circle((sun, 20.5), 3, color="orange"),
        Polygon(ground, color="black", linewidth=3),
    ):
        shape.set_snap(False)
        axes.add_artist(shape)
    axes.set_xlim(0, 20)
    axes.set_ylim(-1, 21)
    axes.axis("off")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].transpose(2, 0, 1)


@pytest.fixture
def folder(tmp_path):
    return cg.datasets.make_pendulum(tmp_path / "pendulums", rows=50, seed=3)


@pytest.mark.parametrize("size", [64, 96])
def test_images_are_those_that_matplotlib_draws(size):
    scenes = draw_scenes(6, seed=1, experiments=0.5)
    ours = cg.datasets.pendulum_images(*scenes.values(), size=size)
    assert ours.shape == (6, 3, size, size) and ours.dtype == np.uint8
    theirs = [drawn_by_matplotlib(*scene, size) for scene in zip(*scenes.values(), strict=True)]
    off = np.abs(ours.astype(int) - np.stack(theirs))
    assert off.mean() < 0.5
    # Matplotlib's frame ends with whole pixels, which the sun and the shadow show.
    inside = off[:, :, round(0.15 * size) : round(0.88 * size)]
    assert inside.mean() < 0.3 and inside.max() <= 40


def test_a_shadow_by_hand():
    shadow = cg.datasets.shadow_of
    # Light from straight above: the shadow is what the pendulum covers of the ground.
    assert np.allclose(shadow(30, 90), (9.5 / 2, 10 + 9.5 / 4))
    # At 45 degrees a point throws its shadow as far to the left as it is high.
    tip = 10 + 9.5 / 2 - (11 - 9.5 * sqrt(3) / 2)
    assert np.allclose(shadow(30, 45), (tip - (10 - 11), (10 - 11 + tip) / 2))
    assert np.allclose(shadow(0, 90), (3, 10))  # at least 3


def test_scenes_follow_their_law():
    scenes = draw_scenes(4000, seed=0)
    for name, (low, high) in (("angle", ANGLES), ("light", LIGHTS)):
        values = (scenes[name] - low) / (high - low)
        assert values.min() >= 0 and values.max() < 1
        assert np.abs(np.sort(values) - (np.arange(4000) + 0.5) / 4000).max() < 0.03
    assert np.array_equal(
        cg.datasets.shadow_of(scenes["angle"], scenes["light"]), [scenes[name] for name in NUMBERS[2:]]
    )
    assert (draw_scenes(9, seed=0)["angle"] != draw_scenes(9, seed=1)["angle"]).all()


def test_experiments_set_shadows_and_nothing_else():
    scenes = draw_scenes(4000, seed=0, experiments=0.6)
    due = cg.datasets.shadow_of(scenes["angle"], scenes["light"])
    length, position = (scenes[name] != each for name, each in zip(NUMBERS[2:], due, strict=True))
    # Two lengths in 6 are equal: both 3, which 0.396 of all are.
    assert abs(position.mean() - 0.4) < 0.03
    assert abs((length & ~position).mean() - 0.2 * (1 - 0.396**2)) < 0.03
    assert abs(np.corrcoef(scenes["angle"][position], scenes["shadow_position"][position])[0, 1]) < 0.1
    whole = draw_scenes(4000, seed=0, experiments=0.6)
    assert all(np.array_equal(whole[name], scenes[name]) for name in NUMBERS)
    with pytest.raises(cg.DomainError, match=r"a share in \[0, 1\], got 1.5"):
        draw_scenes(4, seed=0, experiments=1.5)


def test_true_worlds_follow_the_graph():
    scenes = draw_scenes(5, seed=4)
    truth = cg.datasets.pendulum_truth(scenes, 64)
    rows = np.array([4, 0])
    same = truth(rows, {})
    assert np.array_equal(same["image"] * 255, cg.datasets.pendulum_images(*scenes.values())[rows])
    world = truth(rows, {"angle": np.array([10.0, -20.0])})
    assert np.array_equal(world["light"], scenes["light"][rows])
    length, position = cg.datasets.shadow_of(world["angle"], world["light"])
    assert np.array_equal(world["shadow_length"], length)
    assert np.array_equal(world["shadow_position"], position)
    world = truth(rows, {"light": np.array([60.0, 130.0]), "shadow_length": np.array([5.0, 6.0])})
    assert world["shadow_length"].tolist() == [5, 6]
    assert np.array_equal(
        world["shadow_position"], cg.datasets.shadow_of(scenes["angle"][rows], world["light"])[1]
    )
    # What is set low down changes nothing above the ground.
    changed = truth(rows, {"shadow_position": np.array([9.0, 12.0])})["image"] != same["image"]
    assert changed.any() and not changed[:, :, :52].any()
    with pytest.raises(cg.DataError, match="Row 1: expected shadow_length .* by its angle and light"):
        cg.datasets.pendulum_truth(scenes | {"shadow_length": scenes["shadow_length"] + [0, 1, 0, 0, 0]}, 64)


@pytest.mark.parametrize(("size", "angle", "light", "shadow"), [(64, 0.3, 0.1, 0.2), (96, 0.2, 0.1, 0.15)])
def test_measures_read_what_was_drawn(size, angle, light, shadow):
    scenes = {name: each[:6] for name, each in draw_scenes(10, seed=7).items()}
    assert (scenes["shadow_position"] + scenes["shadow_length"] / 2).max() < 20  # the frame cuts none
    images = cg.datasets.pendulum_images(*scenes.values(), size=size) / 255
    noisy = (images + np.random.default_rng(0).normal(0, 0.02, images.shape)).clip(0, 1)
    most = {"angle": angle, "light": light, "shadow_length": shadow, "shadow_position": shadow}
    for name, measure in MEASURES.items():
        assert np.abs(measure(images) - scenes[name]).max() < most[name], name
        assert np.abs(measure(noisy) - scenes[name]).mean() < most[name], name
        assert np.isnan(measure(np.ones((1, 3, size, size)))).all()
    with pytest.raises(cg.ShapeError, match=r"expected \(N, 3, S, S\)"):
        MEASURES["angle"](images[0])
    with pytest.raises(cg.DomainError, match=r"expected floats in \[0, 1\]"):
        MEASURES["angle"](images * 255)


def test_a_folder_is_read_as_it_was_drawn(folder):
    for split, rows in (("train", 40), ("test", 10)):
        columns = cg.datasets.pendulum(folder, split)
        scenes = draw_scenes(rows, seed=[3, split == "test"])
        for name in NUMBERS:
            assert np.array_equal(columns[name], scenes[name])
        assert np.array_equal(columns["image"], cg.datasets.pendulum_images(*scenes.values()))
    # By its name, under another name of the image, and as the table that it is.
    named = read_data(f"pendulum:{folder}:test", VARIABLES)
    renamed = read_data(f"pendulum:{folder}:test", {"scene": VARIABLES["image"]})
    table = read_data(folder / "test.csv", VARIABLES)
    assert np.array_equal(named["image"], renamed["scene"])
    assert np.array_equal(named["image"], table["image"]) and np.array_equal(named["light"], table["light"])
    assert json.loads((folder / "pendulum.json").read_text())["rows"] == {"train": 40, "test": 10}


def test_the_command_draws_them_anew(folder):
    words = ["data", "pendulum", "--out", folder, "--rows", 10, "--size", 32, "--experiments", 1]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0 and f"--data pendulum:{folder}" in result.output
    train, test = (cg.datasets.pendulum(folder, split) for split in ("train", "test"))
    assert train["image"].shape == (8, 3, 32, 32) and test["image"].shape == (2, 3, 32, 32)
    cg.datasets.pendulum_truth(test, 32)  # no experiments among test rows
    with pytest.raises(cg.DataError, match="by its angle and light"):
        cg.datasets.pendulum_truth(train, 32)


def test_what_is_wrong_with_a_folder_is_said(folder, tmp_path):
    with pytest.raises(
        cg.DataError, match=r"no table .*test.csv. Make the set with: causalgen data pendulum"
    ):
        cg.datasets.pendulum(tmp_path, "test")
    with pytest.raises(cg.DataError, match="holds other things"):
        cg.datasets.make_pendulum(tmp_path)
    with pytest.raises(cg.DataError, match="at least 5 rows"):
        cg.datasets.make_pendulum(tmp_path / "few", rows=4)
    cg.datasets.make_pendulum(tmp_path / "small", rows=5, size=32)
    (tmp_path / "small" / "test" / "000000.png").rename(folder / "test" / "000003.png")
    with pytest.raises(cg.DataError, match=r"row 3 \(000003.png\).*height 64 and width 64, got height 32"):
        cg.datasets.pendulum(folder, "test")
    (folder / "test" / "000000.png").unlink()
    with pytest.raises(cg.DataError, match="row 0: expected a PNG file"):
        cg.datasets.pendulum(folder, "test")


@pytest.mark.parametrize(
    ("causes", "size", "error"),
    [
        ((0, 0, 3, 10), 64, "light, row 0: expected degrees above 0 and below 180, got 0"),
        ((0, 180, 3, 10), 64, "light, row 0"),
        ((0, [90, np.nan], 3, 10), 64, "light, row 1"),
        ((0, 90, -1, 10), 64, "shadow_length, row 0: expected a number of at least 0"),
        ((np.inf, 90, 3, 10), 64, "angle, row 0: expected a finite number"),
        (([0, 1], [90, 91, 92], 3, 10), 64, r"got shapes angle \(2,\), light \(3,\)"),
        ((0, 90, 3, 10), 8, "at least 16 pixels, got 8"),
    ],
)
def test_no_image_of_what_cannot_be(causes, size, error):
    with pytest.raises(cg.DomainError, match=error):
        cg.datasets.pendulum_images(*causes, size=size)
