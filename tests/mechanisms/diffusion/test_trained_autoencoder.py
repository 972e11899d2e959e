"""An autoencoder that is trained in the fit of its node: what it learns, how latents are scaled, resuming."""

import networkx as nx
import numpy as np
import pytest
import torch

import causalgen as cg
from graphs.errors import MechanismError, SpecError
from graphs.variables import Categorical, Image
from mechanisms.diffusion import Autoencoder, Diffusion
from mechanisms.diffusion.latents import AutoencoderTraining
from mechanisms.training import Training
from tests.mechanisms.diffusion.stages import SHORT, Stop, fit_counted, same_weights

STAGE = SHORT.model_copy(update={"validation": Training().validation})
CONFIG = {"block_out_channels": [16, 16], "norm_num_groups": 4}
SMALL = {
    "backbone": {"kind": "unet", "channels": [8], "unshuffle": 1},
    "predictor": {"kind": "resnet", "channels": [8], "unshuffle": 1},
    "solver": {"kind": "anchored", "steps": 2},
}


def rows(n, side=8):
    """Bars, one at a random place, whose colour is the kind, on grounds that differ: no two alike."""
    draw = np.random.default_rng(0)
    kinds = np.arange(n) % 3
    images = draw.integers(36, 45, (n, 3, 1, 1), dtype=np.uint8).repeat(side, 2).repeat(side, 3)
    for row, place in enumerate(draw.integers(0, side - 3, n)):
        images[row, kinds[row], place : place + 4] = 220
    return {"kind": kinds, "x": images}


def spec(epochs=50, **options):
    training = {"epochs": epochs, "batch_size": 16, "learning_rate": 1e-2, "ema": 0.9}
    autoencoder = {"config": CONFIG, "training": training}
    rest = {"epochs": 1, "batch_size": 16, "validation": 0.25}
    return Diffusion(**{**SMALL, "autoencoder": autoencoder, "training": rest, **options})


@pytest.fixture(scope="module")
def fitted():
    graph = nx.DiGraph([("kind", "x")])
    scm = cg.SCM(graph, {"kind": cg.Categorical(3), "x": cg.Image(3, 8, 8)}, {"x": spec()})
    return scm.fit(rows(64), progress=False)


@torch.no_grad()
def test_it_reconstructs_better_than_any_constant_image_and_latents_are_standard(fitted):
    mechanism = fitted.mechanisms["x"]
    images = torch.as_tensor(rows(64)["x"]).float() / 127.5 - 1
    latents = mechanism.autoencoder.encode(images)
    assert latents.shape == (64, 4, 4, 4)
    assert latents.mean().item() == pytest.approx(0, abs=1e-3)
    assert latents.std(correction=0).item() == pytest.approx(1, abs=1e-3)
    missed = (mechanism.autoencoder.decode(latents) - images).abs().mean()
    assert missed < 0.5 * (images.median(0).values - images).abs().mean()  # which no constant beats
    inner = mechanism.inner
    for part in (inner.denoiser, inner.predictor):
        assert (part.pixel_mean.item(), part.pixel_std.item()) == (0.0, 1.0)
    assert fitted.fit_report["x"].figures["autoencoder L1"] == pytest.approx(127.5 * missed.item(), rel=0.5)
    assert "pretrained" not in fitted.describe()


def test_the_null_is_exact_and_the_saved_model_needs_nothing_else(fitted, tmp_path):
    evidence = rows(4)
    null = fitted.counterfactual(evidence, do={}, seed=0, copy_unaffected=False)
    torch.testing.assert_close(null["x"], null.factual["x"], rtol=0, atol=1e-4)
    fitted.save_pretrained(tmp_path / "saved")
    again = cg.SCM.from_pretrained(tmp_path / "saved")
    assert again.to_yaml() == fitted.to_yaml()
    found = [each.counterfactual(evidence, do={"kind": 1}, seed=0)["x"] for each in (fitted, again)]
    assert torch.equal(*found) and not torch.equal(found[0][0], null.factual["x"][0])
    bare = again.with_options("x", autoencoder={"residual": False})
    lost = bare.counterfactual(evidence, do={}, seed=0, copy_unaffected=False)["x"]
    assert (lost - null.factual["x"]).abs().max() > 1e-3


@torch.no_grad()
def test_the_loss_is_absolute_and_squared_error_and_the_divergence():
    """Of the normal law N(mean, var): 0.5 (mean^2 + var - 1 - log var), by torch.distributions."""
    mechanism = spec().bind(Image(3, 8, 8), {"kind": Categorical(3)})
    value = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    losses = [
        AutoencoderTraining(mechanism.autoencoder, kl).loss(
            value, {}, generator=torch.Generator().manual_seed(1)
        )
        for kl in (0.0, 2.0)
    ]
    law = mechanism.autoencoder.model.encode(value).latent_dist
    normal = torch.distributions.Normal(law.mean, law.std)
    far = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).flatten(1).sum(1)
    torch.testing.assert_close(losses[1] - losses[0], 2 * far / (3 * 8 * 8))
    drawn = torch.randn(law.mean.shape, generator=torch.Generator().manual_seed(1))
    made = mechanism.autoencoder.model.decode(law.mean + law.std * drawn).sample
    error = (made - value).abs()
    torch.testing.assert_close(losses[0], (error + error**2).mean((1, 2, 3)))


def steps_of(stop_at=None, seed=0, **options):
    """The mechanism after a fit of 4 steps of its autoencoder and 4 of the rest, and how many were done."""
    made = spec(autoencoder=Autoencoder(config=CONFIG, training=STAGE), training=SHORT)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        mechanism = made.make(Image(3, 8, 8), {"kind": Categorical(3)})
    return mechanism, fit_counted(mechanism, rows(12), stop_at, **options)


@pytest.mark.slow
def test_a_fit_stopped_in_either_stage_resumes_bit_for_bit(tmp_path):
    whole, steps = steps_of()
    assert steps == 8
    for stop_at in (3, 6):
        with pytest.raises(Stop):
            steps_of(stop_at, run_dir=tmp_path / str(stop_at))
        resumed, left = steps_of(seed=1, run_dir=tmp_path / str(stop_at), resume=True)
        assert left == steps - stop_at
        assert same_weights(whole, resumed)


def test_every_fit_begins_anew_and_leaves_earlier_models_as_they_are():
    graph, variables = nx.DiGraph([("kind", "x")]), {"kind": cg.Categorical(3), "x": cg.Image(3, 8, 8)}
    made = spec(autoencoder=Autoencoder(config=CONFIG, training=STAGE), training=SHORT)
    scm, new = (cg.SCM(graph, variables, {"x": made}) for _ in range(2))
    before = scm.with_options("x", shrinkage=0.1)
    kept = scm.fit(rows(12), progress=False).with_options("x", shrinkage=0.1)
    answers = kept.sample(2, seed=0)["x"]
    assert same_weights(before.mechanisms["x"], new.mechanisms["x"])
    again, whole = (each.fit(rows(15), seed=1, progress=False).mechanisms["x"] for each in (scm, new))
    assert same_weights(again, whole)
    assert torch.equal(kept.sample(2, seed=0)["x"], answers)


def test_latents_that_are_all_the_same_are_refused():
    mechanism = spec().bind(Image(3, 8, 8), {"kind": Categorical(3)})
    for weight in mechanism.autoencoder.parameters():
        weight.zero_()
    with pytest.raises(MechanismError, match=r"a standard deviation of 0: its training failed"):
        mechanism.first_stage().finish(torch.zeros(4, 3, 8, 8), {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"training": None}, "its `training` is null"),
        ({"code": {}}, "a style code is learned of latents that stay"),
        ({"autoencoder": {"network": "AutoencoderTiny", "training": {}}}, "is a new AutoencoderKL, not"),
        ({"autoencoder": {"training": {"epochs": 0}}}, "greater than or equal to 1"),
    ],
)
def test_what_does_not_go_with_it_is_refused(options, message):
    with pytest.raises(SpecError, match=message):
        spec(**options)


def test_its_config_follows_the_image():
    large = Autoencoder(training={}).settled(Image(1, 64, 96))
    assert (large.config["in_channels"], large.config["sample_size"]) == (1, [64, 96])
    named = Autoencoder(training={}, config={"block_out_channels": [8], "latent_channels": 2})
    assert len(named.settled(Image(3, 8, 8)).config["down_block_types"]) == 1
    assert named.settled(Image(3, 8, 8)).config["latent_channels"] == 2
    with pytest.raises(MechanismError, match="multiples of 2"):
        spec().bind(Image(3, 9, 8), {"kind": Categorical(3)})
    with pytest.raises(MechanismError, match="does not describe a AutoencoderKL"):
        spec(autoencoder={"training": {}, "config": {"block_out_channels": [9, 9]}}).bind(
            Image(3, 8, 8), {"kind": Categorical(3)}
        )


@pytest.mark.parametrize("setting", [{"validation": 0.2}, {"patience": 3}])
def test_settings_without_effect_are_refused(setting):
    with pytest.raises(ValueError, match="no effect on an autoencoder"):
        Autoencoder(training=setting)


def test_latents_of_many_channels_may_be_narrow():
    autoencoder = {"config": CONFIG | {"latent_channels": 16}, "training": {}}
    mechanism = Diffusion(**{**SMALL, "autoencoder": autoencoder}).bind(
        Image(3, 16, 8), {"k": Categorical(2)}
    )
    noise = mechanism.sample_noise(2, generator=torch.Generator().manual_seed(0))
    assert noise["x_T"].shape == (2, 16, 8, 4)
    assert mechanism.generate({"k": torch.tensor([0, 1])}, noise).shape == (2, 3, 16, 8)
