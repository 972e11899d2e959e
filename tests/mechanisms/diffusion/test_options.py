"""What the options of a diffusion mechanism may be, and what the error says when they are not."""

import re

import pytest
import torch

from graphs.errors import MechanismError, SpecError, UnknownNameError
from graphs.variables import Categorical, Continuous, Image
from mechanisms.diffusion.anticausal import Anticausal
from mechanisms.diffusion.backbones import DiT, UNet
from mechanisms.diffusion.distillation import Jumps
from mechanisms.diffusion.guidance import ClassifierFree
from mechanisms.diffusion.mechanism import Diffusion
from mechanisms.diffusion.predictor import ResNet
from mechanisms.diffusion.solvers import BELM, Anchored
from mechanisms.encoders import Strided
from mechanisms.options import with_options

UNCONDITIONAL = Anticausal(denoiser="unconditional")
HIDDEN = ClassifierFree(against="hidden", weight=2.0)


def test_options_read_from_a_file_are_the_same_options():
    options = {
        "kind": "diffusion",
        "backbone": {"kind": "unet", "channels": [48, 96]},
        "solver": {"kind": "anchored", "steps": 16},
        "guidance": {"kind": "classifier_free", "weight": {"digit": 2}},
        "training": {"epochs": 3},
    }
    spec = Diffusion.model_validate(options)
    assert spec.solver == Anchored() and spec.guidance == ClassifierFree(weight={"digit": 2.0})
    assert spec.training is not None and (spec.training.epochs, spec.training.validation) == (3, 0.01)
    assert Diffusion.model_validate(spec.model_dump()) == spec


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"predictor": None, "guidance": Anticausal()},
            r"this guidance needs a predictor \(.*\): leave `predictor` out",
        ),
        ({"solver": BELM(), "guidance": UNCONDITIONAL}, "belm needs a conditional denoiser"),
        ({"prediction": "eps", "centred": True}, "prediction eps cannot be centred"),
        ({"solver": Jumps(), "centred": True}, "jumps were learned of noise about 0"),
        ({"dropout": 0, "guidance": UNCONDITIONAL}, "an unconditional denoiser needs dropout above 0"),
        ({"dropout": 0, "guidance": HIDDEN}, "an unconditional denoiser needs dropout above 0"),
        ({"dropout": 0, "sharpening": 0.2}, "sharpening needs dropout above 0"),
        ({"sharpening": -0.2}, "sharpening: .*greater than or equal to 0"),
        ({"autoencoder": {"training": {}}, "distilled": {}}, "latents of an autoencoder cannot be distilled"),
        (
            {"guidance": ClassifierFree(weight=3.0, interval=(200, 800))},
            r"interval, 200 to 800, holds none of the solver's levels sigma, 0.02 to 20",
        ),
        ({"dropout": 1}, r"dropout: .*less than 1"),
        ({"prediction": "score"}, r"prediction: .*'edm', 'eps', 'x0', 'v' or 'velocity'"),
        (
            {"solver": {"kind": "belm", "grid": {"kind": "karras"}}},
            r"belm needs a geometric grid \(kind: log\)",
        ),
        (
            {"solver": {"kind": "euler"}},
            "solver: unknown kind 'euler'. Known: anchored, belm, ddim",
        ),
        ({"solver": {"kind": "ddim", "step": 4}}, r"solver.ddim.step: .*unknown option"),
        ({"backbone": {"channels": [12]}}, r"backbone.channels.0: .*multiple of 8"),
        ({"backbone": {"channels": []}}, r"backbone.channels: .*at least 1 item"),
        (
            {"backbone": {"kind": "dit", "width": 24, "heads": 5}},
            r"dit: .*width \(24\) must be a multiple of heads",
        ),
        ({"backbone": {"kind": "dit", "patch": 0}}, r"dit.patch: .*greater than or equal to 1"),
        ({"backbone": {"kind": "dit", "channels": [8]}}, r"dit.channels: .*unknown option"),
        ({"levels": (0.0, -1.0)}, r"levels.1: .*greater than 0"),
        ({"guidence": {}}, r"guidence: .*unknown option"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(SpecError, match=message):
        Diffusion(**options)


@pytest.mark.parametrize(
    ("spec", "variable", "parents", "error", "message"),
    [
        (
            Diffusion(),
            Categorical(3),
            {},
            MechanismError,
            "generates images, but the variable is categorical, 3",
        ),
        (
            Diffusion(backbone=DiT(patch=4)),
            Image(1, 30, 28),
            {},
            MechanismError,
            "multiples of its patch, 4, got 30x28",
        ),
        (
            Diffusion(predictor=Strided()),
            Image(1, 29, 28),
            {"digit": Categorical(10)},
            MechanismError,
            "encoder 'strided' needs image sides that are multiples of 2 .* got 29x28",
        ),
        (
            Diffusion(backbone=UNet(channels=(8, 16)), predictor=None),
            Image(1, 4, 3),
            {"digit": Categorical(10)},
            MechanismError,
            "backbone 'unet' makes one cell of an image of 4 pixels.* Give 16 channels",
        ),
        (
            Diffusion(predictor=ResNet(channels=(8,))),
            Image(1, 1, 2),
            {"digit": Categorical(10)},
            MechanismError,
            "encoder 'resnet' makes one cell of an image of 2 pixels",
        ),
        (
            Diffusion(sharpening=0.2),
            Image(1, 28, 28),
            {"size": Continuous()},
            MechanismError,
            r"sharpening is of categorical parents, but there are none among \['size'\]: leave `sharp",
        ),
        (
            Diffusion(guidance=ClassifierFree(weight="auto")),
            Image(1, 28, 28),
            {"size": Continuous()},
            MechanismError,
            r"'auto'\) are of categorical parents, but there are none among \['size'\]. Give weight a number",
        ),
        (
            Diffusion(guidance=ClassifierFree(weight={"digt": 3.0})),
            Image(1, 28, 28),
            {"digit": Categorical(10)},
            UnknownNameError,
            "Unknown parent 'digt' in guidance 'classifier_free'. Did you mean 'digit'",
        ),
        (
            Diffusion(guidance=Anticausal(scale={"mask": 3.0})),
            Image(1, 28, 28),
            {"digit": Categorical(10), "mask": Image(1, 28, 28)},
            UnknownNameError,
            "Unknown parent 'mask' in guidance 'anticausal'.*Known: digit",
        ),
    ],
)
def test_what_does_not_fit_the_variable_or_its_parents(spec, variable, parents, error, message):
    with pytest.raises(error, match=message):
        spec.bind(variable, parents)


def test_an_odd_root_needs_no_size_of_a_predictor():
    with torch.random.fork_rng():
        mechanism = Diffusion(backbone=UNet(channels=(8,), unshuffle=1)).bind(Image(1, 5, 7), {})
    assert mechanism.sample_noise(2, generator=torch.Generator())["x_T"].shape == (2, 1, 5, 7)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("prediction", {"prediction": "v"}),
        ("sharpening", {"sharpening": 0.2}),
        ("code.nats", {"code": {"nats": 6.0}}),
    ],
)
def test_what_fitted_weights_mean_is_no_option_of_them(name, options):
    spec = Diffusion(backbone=UNet(channels=(8,)), predictor=None, code={"training": {}})
    mechanism = spec.bind(Image(1, 8, 8), {"digit": Categorical(10)})
    with_options("x", mechanism, options)  # not fitted yet
    mechanism.mark_fitted()
    with_options("x", mechanism, {"code": {"hidden": True}, "prediction": "edm"})
    with pytest.raises(MechanismError, match=f"Node 'x': its weights were fitted with {name} .*Fit a new"):
        with_options("x", mechanism, options)


def test_a_denoiser_that_saw_all_parents_knows_no_hidden_ones_whatever_dropout_is_said_later():
    hidden = {"guidance": {"against": "hidden", "weight": 3.0}}
    mechanism = Diffusion(backbone=UNet(channels=(8,)), predictor=None, dropout=0).bind(
        Image(1, 8, 8), {"digit": Categorical(10)}
    )
    mechanism.mark_fitted()
    with pytest.raises(SpecError, match="needs dropout above 0"):
        with_options("x", mechanism, hidden)
    with pytest.raises(MechanismError, match="fitted with hides_parents False, .* Fit a new model"):
        with_options("x", mechanism, {**hidden, "dropout": 0.2})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"solver": {"stpes": 4}},
            r"Node 'x': solver.anchored.stpes: unknown option. Did you mean 'steps'\? Known: .*steps.*\.",
        ),
        (
            {"solver": {"kind": "anchord"}},
            r"Node 'x': solver: unknown kind 'anchord'. Did you mean 'anchored'.*",
        ),
        ({"abduction": "draw"}, r"Node 'x': abduction: must be 'point' or 'posterior', got 'draw'\."),
        (
            {"solver": {"thresholding": True}, "autoencoder": {"training": {}}, "code": None},
            "Node 'x': thresholding clips pixels, but with an autoencoder the solver walks latents.",
        ),
    ],
)
def test_wrong_options_of_the_same_weights_are_told_as_those_of_a_new_node(options, message):
    spec = Diffusion(backbone=UNet(channels=(8,)), predictor=None)
    mechanism = spec.bind(Image(1, 8, 8), {"digit": Categorical(10)})
    with pytest.raises(SpecError) as caught:
        with_options("x", mechanism, options)
    assert re.fullmatch(message, str(caught.value))


def test_a_parent_that_is_called_kind_has_a_strength_like_any_other():
    guidance = ClassifierFree(weight={"kind": 1.0, "sort": 3.0})
    mechanism = Diffusion(backbone=UNet(channels=(8,)), predictor=None, guidance=guidance).bind(
        Image(1, 8, 8), {"kind": Categorical(2), "sort": Categorical(2)}
    )
    changed = with_options("x", mechanism, {"guidance": {"weight": {"kind": 5.0}}})
    assert changed.spec.guidance.weight == {"kind": 5.0, "sort": 3.0}


@pytest.mark.parametrize("side", [1, 3])
def test_one_row_of_the_smallest_images_is_generated(side):
    with torch.random.fork_rng():
        mechanism = Diffusion(backbone=UNet(channels=(16, 16))).bind(Image(1, side, 1), {"k": Categorical(2)})
    noise = mechanism.sample_noise(1, generator=torch.Generator().manual_seed(0))
    assert mechanism.generate({"k": torch.tensor([1])}, noise).shape == (1, 1, side, 1)
