"""Presets by image size: what small images always had, what larger ones cost; saved models keep theirs."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import causalgen as cg
from causalgen.saving.declaration import Declaration
from graphs.variables import Categorical, Continuous, Image
from mechanisms.diffusion import options as presets
from mechanisms.diffusion.backbones import DiT, UNet
from mechanisms.diffusion.mechanism import Diffusion
from mechanisms.registry import dump_mechanism, parse_mechanism
from mechanisms.training import Training

PARENTS = {"kind": Categorical(3), "age": Continuous()}
SMALL = UNet(channels=(48, 96), layers=1, unshuffle=2)
"""What images of any size had before there were presets."""

FILE = """
causalgen: 1
nodes:
  picture:
    variable: {type: image, shape: [1, %d, %d]}
    mechanism: {kind: diffusion%s}
"""


def operations(image):
    """Floating-point operations of the loss of one row, and of its gradient."""
    mechanism = Diffusion().bind(image, PARENTS)
    parents = {"kind": torch.tensor([0]), "age": torch.tensor([0.0], dtype=torch.float64)}
    value = torch.zeros(1, *image.shape)
    with FlopCounterMode(display=False) as counter:
        mechanism.loss(value, parents, generator=torch.Generator().manual_seed(0)).sum().backward()
    return counter.get_total_flops()


def test_small_grey_images_are_what_they_always_were():
    spec = Diffusion().bind(Image(1, 28, 28), PARENTS).spec
    assert spec.backbone == SMALL
    settings = (spec.training.epochs, spec.training.batch_size, spec.training.steps, spec.training.validation)
    assert settings == (6, 64, 0, 0.01)
    saved = cg.SCM.from_pretrained("morphomnist").mechanisms["image"].spec
    assert (saved.backbone, saved.training.epochs, saved.training.batch_size) == (SMALL, 12, 64)


def test_what_a_row_costs_hardly_grows_with_the_image():
    """As pixels, 64 x 64 in colour are 16 of 28 x 28 in grey, and 128 x 128 are 63."""
    small = operations(Image(1, 28, 28))
    assert operations(Image(3, 64, 64)) < 3 * small
    assert operations(Image(3, 128, 128)) < 10 * small


@pytest.mark.parametrize("image", [Image(3, 47, 64), Image(1, 97, 128), Image(3, 256, 250)])
def test_images_of_other_shapes_have_a_network_too(image):
    """Of a size that nothing divides, too."""
    mechanism = Diffusion().bind(image, {"kind": Categorical(3)})
    value = torch.zeros(1, *image.shape)
    loss = mechanism.loss(value, {"kind": torch.tensor([1])}, generator=torch.Generator().manual_seed(0))
    assert loss.shape == (1,) and bool(loss.isfinite())


def test_what_is_given_is_taken():
    image = Image(3, 128, 128)
    spec = Diffusion(training={"epochs": 2, "precision": "float32"}).bind(image, PARENTS).spec
    chosen = presets.preset(image)
    assert (spec.training.epochs, spec.training.steps, spec.training.precision) == (2, 0, "float32")
    assert (spec.training.batch_size, spec.backbone) == (chosen.batch_size, chosen.backbone)
    spec = Diffusion(backbone=DiT(patch=16), training=Training(batch_size=7)).bind(image, {}).spec
    assert spec.backbone == DiT(patch=16)
    assert (spec.training.epochs, spec.training.batch_size, spec.training.validation) == (100, 7, 0.05)
    assert Diffusion(training=None).bind(image, {}).spec.training is None


def test_what_was_chosen_is_written_and_what_was_given_too(monkeypatch):
    for options in ({}, {"backbone": {"kind": "unet"}, "training": {"epochs": 6, "batch_size": 64}}):
        spec = parse_mechanism({"kind": "diffusion", **options}).bind(Image(3, 128, 128), {}).spec
        said = dump_mechanism(spec)
        assert "backbone" in said and said["training"].keys() >= {"epochs", "batch_size", "steps"}
        with monkeypatch.context() as later:
            other = [replace(each, backbone=UNet(channels=(8,)), batch_size=1) for each in presets._PRESETS]
            later.setattr(presets, "_PRESETS", tuple(other))
            assert parse_mechanism(said).bind(Image(3, 128, 128), {}).spec == spec
        assert (spec.backbone == SMALL) == bool(options)


def test_a_saved_model_stays_what_it_is_when_presets_change(tmp_path, monkeypatch):
    data = {"picture": torch.rand(20, 1, 41, 40, generator=torch.Generator().manual_seed(0)).numpy()}
    (tmp_path / "scm.yaml").write_text(FILE % (41, 40, ", predictor: null, training: {epochs: 1}"))
    scm = cg.SCM.from_yaml(tmp_path / "scm.yaml").fit(data, progress=False)
    folder = scm.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(presets, "_PRESETS", (presets._SMALL, presets.Preset(None, UNet(channels=(8,)), 1)))
    again = cg.SCM.from_pretrained(folder)
    assert again.mechanisms["picture"].spec == scm.mechanisms["picture"].spec
    assert torch.equal(again.sample(1, seed=0)["picture"], scm.sample(1, seed=0)["picture"])


@pytest.mark.parametrize("training", ["", ", training: {precision: float32}"])
def test_models_saved_before_there_were_presets_mean_what_they_meant(training):
    text = FILE % (64, 64, training)
    saved = Declaration.parse(text, weights=1).mechanisms["picture"].spec
    assert saved.backbone == SMALL
    assert (saved.training.epochs, saved.training.batch_size, saved.training.steps) == (6, 64, 0)
    declared = Declaration.parse(text).mechanisms["picture"].spec
    assert declared.backbone != SMALL and declared.training.steps == 6000
