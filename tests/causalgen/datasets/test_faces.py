"""Portraits: their laws against numbers worked out by hand, their pixels against colours and each other."""

import json
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import causalgen as cg
from causalgen.cli.main import app
from causalgen.data.reading import read_data
from causalgen.datasets.faces import CAUSES, NOISE, draw_faces

PLAIN = {
    "grey": 0.0, "beard": "none", "hair": "short", "skin": 0.0, "smile": "no", "eyes": "wide",
    "eyebrows": "neutral", "clothes": "turtleNeck", "clothes_hue": 0.0, "cut": "sideComed", "tone": "black",
    "background": 0.0, "turn": 0.0, "size": 1.1, "across": 0.0, "down": 0.0,
}  # fmt: skip
VARIABLES = {**CAUSES, "image": cg.Image(3, 64, 64)}


def portrait(**changed):
    return cg.datasets.face_images({**PLAIN, **changed})[0].astype(int)


def moved(**changed):
    """Where the plain portrait changes: its share of all pixels, and the middle of it as (down, across)."""
    change = np.abs(portrait(**changed) - portrait()).max(0) > 8
    return change.mean(), np.argwhere(change).mean(0) / 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return cg.datasets.make_faces(tmp_path_factory.mktemp("faces") / "portraits", rows=20, seed=3)


def test_laws_are_those_that_are_told():
    drawn = draw_faces(40_000, seed=0)
    woman = drawn["sex"] == "female"
    assert abs(woman.mean() - 0.5) < 0.01 and abs((drawn["smile"] == "yes").mean() - 0.5) < 0.01
    assert (drawn["beard"][woman] == "none").all()
    for name, of_man in (("beard", (0.4, 0.3, 0.3)), ("hair", (0.7, 0.15, 0.15))):
        shares = [(drawn[name][~woman] == label).mean() for label in CAUSES[name].labels or ()]
        assert np.allclose(shares, of_man, atol=0.015), name
    shares = [(drawn["hair"][woman] == label).mean() for label in CAUSES["hair"].labels or ()]
    assert np.allclose(shares, (0.2, 0.35, 0.45), atol=0.015)
    lean = np.log(drawn["grey"] / (1 - drawn["grey"])) - (drawn["age"] - 50) / 9
    assert abs(lean.mean()) < 0.02 and abs(lean.std() - 0.6) < 0.01
    assert cg.datasets.grey_of(59, 0).round(4) == 0.7311  # 1 / (1 + 1 / e)
    for name, variable in NOISE.items():
        if variable.type == "continuous":
            assert abs(drawn[name].mean() - (variable.lower + variable.upper) / 2) < 0.02 * (
                variable.upper - variable.lower
            )


def test_colours_are_those_that_are_asked_for():
    # Background: hue 0, saturation .25, value .97. The forehead and the hair lie where nothing covers them.
    assert portrait()[:, 0, 0].tolist() == [247, 186, 186]
    assert portrait(background=1 / 3)[:, 0, 0].tolist() == [186, 247, 186]
    skins = [(255, 224, 204), (215, 155, 111), (134, 78, 48), (235, 190, 158)]
    for skin, colour in zip((0.0, 0.5, 1.0, 0.25), skins, strict=True):
        assert np.abs(portrait(skin=skin)[:, 34, 32] - colour).max() <= 1
    hair = {"black": (31, 22, 19), "brown": (74, 42, 28), "blond": (232, 192, 74)}
    for tone, colour in hair.items():
        assert np.abs(portrait(tone=tone)[:, 13, 32] - colour).max() <= 1
        grey = 0.2 * np.array(colour) + 0.8 * np.array([230, 232, 238])  # never all grey
        assert np.abs(portrait(tone=tone, grey=1.0)[:, 13, 32] - grey).max() <= 1
    collar = portrait(clothes_hue=2 / 3)[:, 62, 32]
    assert np.abs(collar - [38, 38, 153]).max() <= 2


def test_each_cause_is_seen_where_it_belongs():
    share, (down, across) = moved(smile="yes")
    assert share > 0.01 and 0.6 < down < 0.8 and 0.4 < across < 0.6
    for beard in ("moustache", "full"):
        share, (down, across) = moved(beard=beard)
        assert share > 0.01 and 0.6 < down < 0.85 and 0.4 < across < 0.6
    bob, long = moved(hair="bob")[0], moved(hair="long")[0]
    assert 0.01 < bob < long
    assert moved(grey=1.0)[0] > 0.1 and moved(skin=1.0)[0] > 0.1
    # Nothing but the lower face changes with smile and beard.
    change = np.abs(portrait(smile="yes", beard="full") - portrait()).max((0, 2))
    assert change[:30].max() == 0


def test_each_part_of_the_noise_is_seen():
    drawn = {name: np.repeat(values[:1], 2) for name, values in draw_faces(1, seed=5).items()}
    for name, variable in NOISE.items():
        values = drawn[name].copy()
        if variable.type == "categorical":
            values[1] = next(label for label in variable.labels or () if label != values[0])
        else:
            values[:] = variable.lower + (variable.upper - variable.lower) * np.array([0.2, 0.6])
        pair = cg.datasets.face_images({**drawn, name: values}).astype(int)
        assert (np.abs(pair[0] - pair[1]).max(0) > 8).sum() >= 4, name


def test_true_counterfactuals_follow_the_equations():
    drawn = draw_faces(6, seed=2)
    truth = cg.datasets.faces_truth(drawn, 64)
    rows = np.array([4, 1])
    same = truth(rows, {})
    assert np.array_equal(np.rint(255 * same["image"]), cg.datasets.face_images(drawn)[rows])
    assert same["sex"].tolist() == drawn["sex"][rows].tolist()
    older = truth(rows, {"age": drawn["age"][rows] + 9})  # odds of grey grow e-fold
    odds = drawn["grey"][rows] / (1 - drawn["grey"][rows])
    assert np.allclose(older["grey"] / (1 - older["grey"]), np.e * odds)
    set_by_hand = {name: each[rows] for name, each in drawn.items()} | {"grey": older["grey"]}
    assert np.array_equal(np.rint(255 * older["image"]), cg.datasets.face_images(set_by_hand))
    both = truth(rows, {"age": np.array([20.0, 20.0]), "grey": np.array([1.0, 1.0])})
    assert both["grey"].tolist() == [1, 1]
    bearded = truth(rows, {"beard": np.array(["full", "none"])})
    assert bearded["beard"].tolist() == ["full", "none"]
    # Nobody knows the beard of another sex, unless it is set too.
    other = truth(rows, {"sex": np.array(["male", "male"])})
    assert not {"beard", "hair", "image"} & set(other) and other["sex"].tolist() == ["male", "male"]
    known = truth(
        rows, {"sex": np.array(["male"] * 2), "beard": np.array(["full"] * 2), "hair": drawn["hair"][rows]}
    )
    assert known["image"].shape == (2, 3, 64, 64)


def test_a_folder_is_read_as_it_was_drawn(folder):
    for split, rows in (("train", 16), ("test", 4)):
        columns, drawn = cg.datasets.faces(folder, split), draw_faces(rows, seed=[3, split == "test"])
        for name in (*CAUSES, *NOISE):
            assert columns[name].tolist() == drawn[name].tolist()
    assert np.array_equal(columns["image"], cg.datasets.face_images(drawn))
    named = read_data(f"faces:{folder}:test", VARIABLES)
    table = read_data(folder / "test.csv", VARIABLES)
    assert np.array_equal(named["image"], table["image"])
    assert np.array_equal(named["beard"], table["beard"])
    about = json.loads((folder / "faces.json").read_text())
    assert about["rows"] == {"train": 16, "test": 4} and "Johan Melin, CC BY 4.0" in about["parts"]


def test_the_command_draws_them(tmp_path):
    out = tmp_path / "out"
    words = ["data", "faces", "--out", out, "--rows", 6, "--size", 32, "--seed", 9]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0 and f"--data faces:{out}" in result.output
    assert cg.datasets.faces(out)["image"].shape == (5, 3, 32, 32)
    with pytest.raises(cg.DataError, match="causalgen data faces --out"):
        cg.datasets.faces(tmp_path, "test")
    table = out / "test.csv"
    table.write_text(table.read_text().replace("test/000000.png", "train/000000.png").replace("male", "mail"))
    with pytest.raises(cg.DomainError, match=r"Column 'sex' of .*test.csv"):
        cg.datasets.faces(out, "test")


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"beard": "goatee"}, r"beard.*'goatee'.*none, moustache, full|beard.*'none', 'moustache', 'full'"),
        ({"grey": 1.2}, "grey, row 0: expected 0 to 1, got 1.2"),
        ({"skin": [0.5, np.nan]}, "skin, row 1: expected 0 to 1, got nan"),
        ({"turn": 40}, "turn, row 0: expected -6 to 6"),
    ],
)
def test_no_portrait_of_what_cannot_be(changed, error):
    with pytest.raises(cg.DomainError, match=error):
        cg.datasets.face_images({**PLAIN, **changed})


def test_columns_that_lack_or_disagree_are_told():
    with pytest.raises(cg.DataError, match="Expected a column 'eyes'"):
        cg.datasets.face_images({name: value for name, value in PLAIN.items() if name != "eyes"})
    with pytest.raises(cg.ShapeError, match=r"grey \(1,\).*skin \(2,\)"):
        cg.datasets.face_images({**PLAIN, "skin": [0.1, 0.2]})
    with pytest.raises(cg.DomainError, match="at least 16 pixels, got 8"):
        cg.datasets.face_images(PLAIN, size=8)


def test_without_the_extra_folders_are_read_and_drawing_names_it(folder):
    code = (
        "import sys; sys.modules['resvg_py'] = None\n"
        "import causalgen as cg\n"
        "columns = cg.datasets.faces(sys.argv[1], 'test')\n"
        "cg.datasets.face_images(columns)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    assert run.returncode == 1
    assert "Drawing portraits needs resvg_py: in the checkout, pip install '.[datasets]'" in run.stderr
