"""Evaluators of a tiny data set: what they learn, that they are the same again, saving and loading."""

import json

import networkx as nx
import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from typer.testing import CliRunner

import causalgen as cg
from causalgen.cli import main as cli
from causalgen.evaluation.readings import find_readings
from causalgen.metrics.evaluators import (
    Evaluators,
    Recipe,
    load_evaluators,
    save_evaluators,
    train_evaluators,
)
from causalgen.metrics.evaluators.evaluators import CodedRecipe, NetworkRecipe, find_roles
from causalgen.metrics.latent_divergence import im1
from graphs.errors import (
    CheckpointError,
    ChecksumError,
    DataError,
    DomainError,
    FormatVersionError,
    MechanismError,
    ShapeError,
    SpecError,
    UnknownNameError,
)

VARIABLES = {
    "kind": cg.Categorical(3),
    "light": cg.Continuous(),
    "picture": cg.Image(1, 8, 8),
}
SHORT = cg.mechanisms.Training(epochs=6, batch_size=32, learning_rate=1e-2)
CODED, PLAIN = CodedRecipe(width=6, latent=3, training=SHORT), NetworkRecipe(width=6, training=SHORT)
RECIPE = Recipe(
    class_autoencoder=CODED, autoencoder=CODED, variational=CODED, classifier=PLAIN, regressor=PLAIN
)

QUICK = Recipe.model_validate(
    {
        name: {**each, "training": {"epochs": 1, "batch_size": 32}}
        for name, each in RECIPE.model_dump().items()
    }
)


def make_rows(rows=240, seed=0):
    """A bar that is level, upright or a block, as bright as ``light`` says."""
    random = np.random.default_rng(seed)
    kind, light = np.arange(rows) % 3, random.uniform(100, 250, rows)
    shapes = np.zeros((3, 8, 8))
    shapes[0, 3:5, 1:7], shapes[1, 1:7, 3:5], shapes[2, 2:5, 2:5] = 1, 1, 1
    noise = random.integers(0, 6, (rows, 8, 8))
    pixels = (shapes[kind] * light[:, None, None] + noise).clip(0, 255).astype(np.uint8)
    return {"kind": kind, "light": light, "picture": pixels[:, None]}


@pytest.fixture(scope="module")
def evaluators():
    test = make_rows(60, seed=1)
    return train_evaluators(make_rows(), VARIABLES, test=test, name="bars", recipe=RECIPE, progress=False)


@pytest.fixture(scope="module")
def folder(evaluators, tmp_path_factory):
    place = tmp_path_factory.mktemp("evaluators") / "bars"
    save_evaluators(evaluators, place)
    return place


def weights(evaluators):
    return {
        f"{name}.{key}": value
        for name, net in evaluators.networks.items()
        for key, value in net.state_dict().items()
    }


def test_evaluators_see_what_is_there(evaluators):
    rows = make_rows(60, seed=2)
    assert (evaluators.classes(rows["picture"]) == rows["kind"]).mean() > 0.9
    light = evaluators.numbers(rows["picture"])["light"]
    assert light.shape == (60,)
    chance = np.abs(rows["light"] - rows["light"].mean()).mean()
    assert np.abs(light - rows["light"]).mean() < 0.5 * chance
    assert evaluators.metadata["figures"]["accuracy"] > 0.9
    assert evaluators.metadata["training_rows"] == 240


def test_numbers_of_a_large_offset_are_learned_and_read_as_any():
    rows = make_rows(72)
    near, far = (
        train_evaluators({**rows, "light": rows["light"] + offset}, VARIABLES, recipe=QUICK, progress=False)
        for offset in (0.0, 1.7e9)
    )
    seen = [each.numbers(rows["picture"])["light"] for each in (near, far)]
    np.testing.assert_allclose(seen[1] - 1.7e9, seen[0], atol=1e-3)


def test_readers_serve_effectiveness(evaluators):
    rows = make_rows(60, seed=2)
    wanted = {"kind": rows["kind"], "light": rows["light"]}
    scores = cg.metrics.effectiveness(rows["picture"], wanted, VARIABLES, evaluators.readers)
    assert scores["kind"].value > 0.9
    assert scores["light"].value == pytest.approx(
        np.abs(evaluators.numbers(rows["picture"])["light"] - rows["light"]).mean(), rel=1e-5
    )


def test_class_autoencoders_know_their_class(evaluators):
    rows = make_rows(60, seed=2)
    own = evaluators.class_autoencoder(rows["kind"])
    other = evaluators.class_autoencoder((rows["kind"] + 1) % 3)
    assert im1(rows["picture"], factual_autoencoder=other, counterfactual_autoencoder=own).value < 1


def test_each_row_goes_to_the_autoencoder_of_its_class(evaluators):
    images = torch.from_numpy(make_rows(6)["picture"] / 255).float()
    together = evaluators.class_autoencoder([2, 0, 1, 0, 2, 1])(images)
    for row, code in enumerate([2, 0, 1, 0, 2, 1]):
        alone = evaluators.class_autoencoder([code])(images[row : row + 1])
        assert torch.allclose(together[row], alone[0], atol=1e-5)


def test_the_same_seed_gives_the_same_evaluators():
    before = torch.random.get_rng_state()
    first, again, other = (
        weights(train_evaluators(make_rows(72), VARIABLES, recipe=QUICK, seed=seed, progress=False))
        for seed in (0, 0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["classifier.head.weight"], other["classifier.head.weight"])


def test_saved_evaluators_come_back(evaluators, folder):
    back = load_evaluators(folder)
    images = make_rows(20, seed=3)["picture"]
    assert repr(back) == repr(evaluators)
    assert back.metadata == evaluators.metadata
    assert np.array_equal(back.classes(images), evaluators.classes(images))
    assert torch.equal(back.autoencoder(images), evaluators.autoencoder(images))
    for one, other in zip(back.latents(images), evaluators.latents(images), strict=True):
        assert torch.equal(one, other)
    assert back.features.sha256 == back.sha256["classifier"]
    assert "Say here what the data are" in (folder / "README.md").read_text()


def test_saving_again_replaces_and_spares_other_folders(evaluators, folder, tmp_path):
    save_evaluators(evaluators, folder)
    assert load_evaluators(folder).sha256 == evaluators.sha256
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"holds other things, and no set of evaluators \(mine.txt\)"):
        save_evaluators(evaluators, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.fixture
def copy(evaluators, tmp_path):
    save_evaluators(evaluators, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_changed_byte_is_noticed(copy):
    path = copy / "classifier.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ChecksumError, match="sha256"):
        load_evaluators(copy)
    path.write_bytes(data[:-1])
    with pytest.raises(ChecksumError, match="bytes"):
        load_evaluators(copy)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"classifier.safetensors is missing"):
        load_evaluators(copy)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"version": 99}, FormatVersionError, "Update causalgen"),
        ({"format": "causalgen-model"}, CheckpointError, "no manifest of a set of evaluators"),
        ({"pixels": "[-1, 1]"}, CheckpointError, "damaged"),
        ({"label": "kin"}, CheckpointError, "describes no evaluators"),
        ({"files": {}}, CheckpointError, "expected a .safetensors"),
    ],
)
def test_a_changed_manifest_is_noticed(copy, change, error, message):
    path = copy / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(error, match=message):
        load_evaluators(copy)


def test_what_is_no_evaluators_is_told(tmp_path):
    with pytest.raises(UnknownNameError, match="mnits"):
        load_evaluators("mnits")
    with pytest.raises(CheckpointError, match="no manifest.json"):
        load_evaluators(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        load_evaluators(tmp_path)


def test_wrong_questions_are_refused(evaluators):
    images = make_rows(6)["picture"]
    with pytest.raises(ShapeError, match="evaluators of bars"):
        evaluators.classes(np.zeros((2, 1, 28, 28)))
    with pytest.raises(DomainError, match="divide by 255"):
        evaluators.classes(images.astype(float))
    with pytest.raises(ShapeError, match="images 6, classes 5"):
        evaluators.class_autoencoder([0] * 5)(images)
    with pytest.raises(DomainError, match=r"0\.\.2"):
        evaluators.class_autoencoder([3] * 6)
    plain = {name: VARIABLES[name] for name in ("kind", "picture")}
    unsaved = Evaluators("bars", find_roles(plain), RECIPE)
    with pytest.raises(MechanismError, match="no continuous variable"):
        unsaved.numbers(images)
    with pytest.raises(MechanismError, match="Save them first"):
        _ = unsaved.features


def test_wrong_training_data_are_refused():
    rows = make_rows(120)
    keep = (rows["kind"] != 2) | (np.arange(120) < 30)
    few = {name: column[keep] for name, column in rows.items()}
    with pytest.raises(DataError, match=r"'kind': class 2 has 10 images, expected at least 20"):
        train_evaluators(few, VARIABLES, recipe=RECIPE, progress=False)
    with pytest.raises(DataError, match="light"):
        train_evaluators({"kind": rows["kind"], "picture": rows["picture"]}, VARIABLES, progress=False)
    odd = VARIABLES | {"picture": cg.Image(1, 10, 8)}
    with pytest.raises(ShapeError, match="multiples of 4"):
        train_evaluators(rows | {"picture": np.zeros((120, 1, 10, 8), np.uint8)}, odd, progress=False)


def test_roles_are_found_or_asked_for():
    assert find_roles(VARIABLES).numbers == ("light",)
    with pytest.raises(SpecError, match="one image variable, and the variables hold none"):
        find_roles({"kind": cg.Categorical(3)})
    two = VARIABLES | {"other": cg.Categorical(2)}
    with pytest.raises(SpecError, match="several: kind, other. Name one by label="):
        find_roles(two)
    assert find_roles(two, label="other").label == "other"
    with pytest.raises(UnknownNameError, match="Did you mean 'kind'"):
        find_roles(two, label="knid")
    with pytest.raises(SpecError, match="label='light': expected a categorical variable"):
        find_roles(two, label="light")


def test_command_line(tmp_path, monkeypatch):
    rows = make_rows(90)
    lines = ["kind,picture,outline"]
    for row, pixels in enumerate(rows["picture"]):
        PILImage.fromarray(pixels[0]).save(tmp_path / f"{row}.png")
        lines.append(f"{rows['kind'][row]},{row}.png,{row}.png")
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    variables = {"kind": VARIABLES["kind"], "picture": VARIABLES["picture"], "outline": cg.Image(1, 8, 8)}
    scm = cg.SCM(nx.DiGraph([("kind", "picture"), ("outline", "picture")]), variables)
    scm.to_yaml(tmp_path / "scm.yaml")
    monkeypatch.chdir(tmp_path)
    told = [
        "evaluators",
        "scm.yaml",
        "--data",
        "rows.csv",
        "--test",
        str(tmp_path / "rows.csv"),
        "--out",
        "bars",
        "--about",
        "Bars.",
        "--image",
        "picture",
        "--label",
        "kind",
    ]
    done = CliRunner().invoke(cli.app, told)
    assert done.exit_code == 0, done.output
    assert "accuracy: " in done.stdout
    evaluators = load_evaluators(tmp_path / "bars")
    assert evaluators.name == "bars"
    assert evaluators.metadata["test_rows"] == 90
    card = (tmp_path / "bars" / "README.md").read_text()
    assert "Bars." in card
    assert "causalgen evaluators scm.yaml --data rows.csv" in card and "--test rows.csv" in card
    assert "--image picture --label kind" in card  # or it could not be typed again
    assert str(tmp_path) not in card


@pytest.mark.parametrize("name", ["Judges", "load_judges", "save_judges", "train_judges"])
def test_former_names_are_refused_with_the_new_one(name):
    new = {"Judges": "Evaluators"}.get(name, name.replace("judges", "evaluators"))
    with pytest.raises(ImportError, match=rf"cg\.metrics\.{name} is now cg\.metrics\.{new}"):
        getattr(cg.metrics, name)
    with pytest.raises(ImportError, match=f"is now .*{new}"):
        exec(f"from causalgen.metrics import {name}", {})
    with pytest.raises(ImportError, match=f"is now .*{new}"):
        exec(f"from causalgen.metrics.evaluators import {name}", {})
    with pytest.raises(AttributeError, match="jugdes"):
        _ = cg.metrics.jugdes


def test_the_former_command_is_refused_with_the_new_one():
    done = CliRunner().invoke(cli.app, ["judges", "mnist", "--data", "mnist:DIR", "--out", "x"])
    assert done.exit_code == 1
    assert "causalgen judges is now causalgen evaluators" in str(done.exception)
    assert "judges " not in CliRunner().invoke(cli.app, ["--help"]).stdout


def test_evaluators_of_other_labels_or_another_unit_are_refused():
    """A class is a number to them, and a length is one: they would have read another one, without a word."""
    ours = {"kind": cg.Categorical(["hale", "ill"]), "light": cg.Continuous(unit="lx")}
    picture = VARIABLES["picture"]

    def found(**theirs):
        evaluators = Evaluators("others", find_roles({**ours, "picture": picture, **theirs}), RECIPE)
        return find_readings(picture, ours, evaluators, None).by["predictor"]

    for same in ({}, {"kind": cg.Categorical(2)}, {"light": cg.Continuous()}):
        assert set(found(**same)) == {"kind", "light"}
    for other in ({"kind": cg.Categorical(["ill", "hale"])}, {"light": cg.Continuous(unit="klx")}):
        with pytest.raises(DomainError, match="were trained on another variable"):
            found(**other)


def test_the_format_on_the_disk_is_the_first_one(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    assert (manifest["format"], manifest["version"]) == ("causalgen-judges", 1)
    assert {"name", "image", "label", "numbers", "pixels", "variables", "recipe", "told", "files"} < set(
        manifest
    )
    (copy / "README.md").write_text("edited")
    assert load_evaluators(copy).metadata == manifest["told"]


def test_no_name_in_a_manifest_leads_out_of_the_folder(copy):
    path = copy / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["../classifier.safetensors"] = manifest["files"]["classifier.safetensors"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="is no file of a saved set of evaluators"):
        load_evaluators(copy)
