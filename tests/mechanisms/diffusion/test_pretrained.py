"""Pretrained pipelines that diffusers saved: what is read of them, and samples against its schedulers."""

import json
import shutil
from importlib import import_module
from typing import Any

import networkx as nx
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import causalgen as cg
from causalgen.cli import main as cli
from causalgen.testing import check_grid, check_mechanism
from graphs.errors import CheckpointError, MechanismError, NotFittedError, SpecError
from mechanisms.diffusion.pretrained import Pretrained
from mechanisms.diffusion.trained_levels import TrainedGrid, TrainedLevels
from mechanisms.options import with_options

diffusers: Any = import_module("diffusers")  # whose names are loaded on first use

NAMES = {0: "cat, house cat", 1: "dog", 2: "eel"}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def dit(**options):
    network = diffusers.DiTTransformer2DModel(
        **{
            "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "out_channels": 8,
            "num_layers": 1, "sample_size": 8, "patch_size": 2, "num_embeds_ada_norm": 3, **options,
        }
    )  # fmt: skip
    network.proj_out_2.weight.data *= 0.3  # an estimate of noise as calm as a trained one
    return network.eval()


def kl(**options):
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    sizes = {"block_out_channels": (8, 8), "norm_num_groups": 4, "sample_size": 16}
    return diffusers.AutoencoderKL(**blocks, **sizes, scaling_factor=0.7, shift_factor=0.1, **options)


def unet(**options):
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    return diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1, **blocks, **options
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One of each kind, of random weights."""
    home = tmp_path_factory.mktemp("pipelines")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = diffusers.DDIMScheduler(clip_sample=False)
        diffusers.DiTPipeline(dit(), kl(), plain, id2label=NAMES).save_pretrained(home / "dit")
        diffusers.DDPMPipeline(
            unet(), diffusers.DDPMScheduler(prediction_type="v_prediction")
        ).save_pretrained(home / "unet")
        diffusers.DDPMPipeline(unet(num_class_embeds=4), plain).save_pretrained(home / "classes")
        diffusers.DiTPipeline(dit(out_channels=4), kl(), plain, id2label=NAMES).save_pretrained(home / "flow")
        diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(home / "flow" / "scheduler")
        diffusers.AutoencoderTiny(
            encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
        ).save_pretrained(home / "tiny")  # fmt: skip
        kl().save_pretrained(home / "kl")
    shutil.copytree(home / "dit", home / "named")
    edited(home / "named" / "model_index.json", id2label=NAMES)  # as on the Hub
    (home / "dit" / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# A card\n")
    return home


def bound(folder, **options):
    spec = cg.mechanisms.Diffusion.from_pipeline(folder, **options)
    return spec.bind(cg.Image(3, 16, 16), {"kind": cg.Categorical(3)}).eval()


def rows(side, n=3):
    generator = seeded()
    return 2 * torch.rand(n, 3, side, side, generator=generator) - 1, {"kind": torch.arange(n) % 3}


def told(network, x, t, kinds=None):
    """What the network says on its own, variances dropped."""
    labels = {} if kinds is None else {"class_labels": kinds}
    return network(x, torch.full((len(x),), float(t)), **labels, return_dict=False)[0][:, : x.shape[1]]


@torch.no_grad()
def test_ddim_samples_are_those_of_diffusers(folders):
    """N steps of DDIMScheduler are N - 1 of ours on its levels, and the denoising step at the end."""
    pipeline = diffusers.DiTPipeline.from_pretrained(folders / "dit", local_files_only=True)
    made = bound(folders / "dit", solver={"kind": "ddim", "steps": 9, "grid": GRID}).inner
    _, parents = rows(16)
    noise = made.sample_noise(3, generator=seeded())
    pipeline.scheduler.set_timesteps(10)
    x = noise["x_T"]
    for t in pipeline.scheduler.timesteps:
        out = told(pipeline.transformer, x, t, parents["kind"])
        x = pipeline.scheduler.step(out, t, x).prev_sample
    torch.testing.assert_close(made.generate(parents, noise), x, rtol=1e-3, atol=1e-4)


GRID = {"kind": "trained", "spacing": "leading"}


@torch.no_grad()
def test_a_velocity_of_a_latent_unet_and_a_flow_are_those_of_diffusers(folders):
    spec = cg.mechanisms.Diffusion.from_pipeline(
        folders / "unet", solver={"kind": "ddim", "steps": 9, "grid": GRID}
    )
    assert spec.prediction == "v"
    made = spec.bind(cg.Image(3, 8, 8), {})
    pipeline = diffusers.DDPMPipeline.from_pretrained(folders / "unet", local_files_only=True)
    scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    scheduler.set_timesteps(10)
    noise = made.sample_noise(2, generator=seeded())
    x = noise["x_T"]
    for t in scheduler.timesteps:
        x = scheduler.step(told(pipeline.unet, x, t), t, x).prev_sample
    torch.testing.assert_close(made.generate({}, noise), x, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_a_step_of_flow_matching_is_that_of_diffusers(folders):
    made = bound(folders / "flow").inner
    assert made.spec.prediction == "velocity"
    assert made.spec.backbone.levels == TrainedLevels(betas="flow")
    network = diffusers.DiTTransformer2DModel.from_pretrained(
        folders / "flow" / "transformer", local_files_only=True
    ).eval()
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[0.8, 0.5])
    _, parents = rows(16)
    x = torch.randn(3, 4, 8, 8, generator=seeded())
    out = told(network, x, scheduler.timesteps[0], parents["kind"])
    expected = scheduler.step(out, scheduler.timesteps[0], x).prev_sample
    high, low = 0.8 / 0.2, 0.5 / 0.5
    x_bar = x / (1 - 0.8)  # Euler's step in x_bar and sigma is Euler's step in x_t and t
    x_bar = x_bar + (low - high) * made.denoiser.eps(x_bar, high, parents)
    torch.testing.assert_close(x_bar * (1 - 0.5), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_null_class_is_the_hidden_parent(folders):
    _, parents = rows(16)
    made = bound(folders / "dit").inner
    x, sigma = torch.randn(3, 4, 8, 8, generator=seeded()), made.spec.backbone.levels.sigmas()[250].item()
    network = diffusers.DiTTransformer2DModel.from_pretrained(
        folders / "dit" / "transformer", local_files_only=True
    ).eval()
    scaled = x / (1 + sigma**2) ** 0.5
    for shown, kinds in ((True, parents["kind"]), (False, torch.full((3,), 3))):
        found = made.denoiser.eps(x, sigma, parents, shown=shown)
        torch.testing.assert_close(found, told(network, scaled, 250, kinds), rtol=1e-4, atol=1e-5)


def test_a_class_unet_hides_its_class_only_if_it_has_a_null_class(folders):
    spec = cg.mechanisms.Diffusion.from_pipeline(folders / "classes")
    x = torch.zeros(2, 3, 8, 8)
    with_null = spec.bind(cg.Image(3, 8, 8), {"kind": cg.Categorical(3)})
    network = diffusers.UNet2DModel.from_pretrained(folders / "classes" / "unet", local_files_only=True)
    sigma = spec.backbone.levels.sigmas()[5].item()
    kinds = torch.tensor([0, 1])
    with torch.no_grad():
        hidden = with_null.denoiser.eps(x, sigma, {"kind": kinds}, shown=False)
        torch.testing.assert_close(hidden, told(network, x, 5, torch.tensor([3, 3])), rtol=1e-4, atol=1e-5)
    without = spec.bind(cg.Image(3, 8, 8), {"kind": cg.Categorical(4)})
    with pytest.raises(MechanismError, match="no null class"):
        without.denoiser.eps(x, sigma, {"kind": kinds}, shown=False)


@pytest.mark.parametrize("residual", [True, False])
def test_the_null_is_exact_and_carries_what_the_autoencoder_misses(folders, residual):
    made = bound(folders / "dit", autoencoder={"residual": residual}, solver={"steps": 4})
    images, parents = rows(16)
    again = made.generate(parents, made.abduct(images, parents, generator=seeded()).noise)
    if residual:
        torch.testing.assert_close(again, images, rtol=0, atol=1e-3)
        return
    vae = diffusers.AutoencoderKL.from_pretrained(folders / "dit" / "vae", local_files_only=True)
    with torch.no_grad():
        expected = vae.decode(vae.encode(images).latent_dist.mode()).sample
    assert (expected - images).abs().mean() > 0.1  # a random autoencoder keeps nothing
    torch.testing.assert_close(again, expected, rtol=0, atol=1e-3)


@torch.no_grad()
def test_latents_are_scaled_as_the_autoencoder_says(folders):
    made = bound(folders / "dit")
    vae = diffusers.AutoencoderKL.from_pretrained(folders / "dit" / "vae", local_files_only=True)
    images, _ = rows(16)
    expected = (vae.encode(images).latent_dist.mode() - 0.1) * 0.7
    torch.testing.assert_close(made.autoencoder.encode(images), expected)
    torch.testing.assert_close(made.autoencoder.decode(expected), vae.decode(expected / 0.7 + 0.1).sample)


def test_the_laws_hold(folders):
    images, parents = rows(16)
    check_mechanism(bound(folders / "dit", solver={"steps": 2}), images, parents)


def test_trained_levels_are_told_by_their_number():
    for levels, first in ((TrainedLevels(), 0), (TrainedLevels(betas="scaled_linear"), 0), (FLOW, 1)):
        sigmas = levels.sigmas()
        assert torch.equal(levels.times(sigmas.float()), first + torch.arange(len(sigmas)).float())
        between = levels.times((sigmas[10] * sigmas[11]).sqrt().view(1))
        assert between.item() == pytest.approx(first + 10.5, abs=1e-3)
    for spacing in ("log", "leading", "linspace"):
        check_grid(TrainedGrid(spacing=spacing))
        assert set(TrainedGrid(spacing=spacing).sigmas(7).tolist()) <= set(TrainedLevels().sigmas().tolist())


FLOW = TrainedLevels(count=100, betas="flow")


def model(image, *, categories=3, shape=(3, 16, 16)):
    graph = nx.DiGraph([("kind", "x")])
    scm = cg.SCM(graph, {"kind": cg.Categorical(categories), "x": cg.Image(*shape)}, {"x": image})
    return scm.fit(
        {"kind": scm.variables["kind"].decode(torch.arange(3).numpy())}, nodes=["kind"], progress=False
    )


def test_a_saved_model_needs_no_pipeline_and_tells_the_licence(folders, tmp_path):
    scm = model(cg.mechanisms.Diffusion.from_pipeline(folders / "dit", solver={"steps": 2}))
    scm.save_pretrained(tmp_path / "saved")
    text = (tmp_path / "saved" / "scm.yaml").read_text()
    assert str(folders) not in text and "pipeline" not in text
    assert "cc-by-nc-4.0" in scm.describe()
    again = cg.SCM.from_pretrained(tmp_path / "saved")
    images, parents = rows(16)
    evidence = {"kind": parents["kind"], "x": (images + 1) / 2}
    found = [each.counterfactual(evidence, do={"kind": 1}, seed=0)["x"] for each in (scm, again)]
    assert torch.equal(*found)
    assert not torch.equal(found[0][0], torch.as_tensor(evidence["x"][0]))
    shown = again.with_options("x", solver={"steps": 3}).describe()
    assert shown == again.describe()


def test_a_folder_brings_weights_to_a_model_that_waits_for_them_and_to_no_other(folders, tmp_path):
    spec = cg.mechanisms.Diffusion.from_pipeline(folders / "classes", solver={"steps": 2})
    known, later = model(spec, shape=(3, 8, 8)), spec.model_copy(update={"pipeline": tmp_path / "later"})
    waits = model(later, shape=(3, 8, 8)).with_options("x", solver={"steps": 2})
    with pytest.raises(NotFittedError, match="do not come with the model"):
        waits.sample(1)
    brought = waits.with_options("x", pipeline=folders / "classes")
    assert torch.equal(brought.sample(2, seed=0)["x"], known.sample(2, seed=0)["x"])
    with pytest.raises(MechanismError, match="its weights were fitted with pipeline None"):
        known.with_options("x", pipeline=folders / "unet")


def test_another_autoencoder_comes_with_the_option_before_a_fit_and_never_after(folders, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        kl().save_pretrained(tmp_path / "other")
    small = {"backbone": {"channels": [8], "unshuffle": 1}, "predictor": None}
    one, other = (
        cg.mechanisms.Diffusion(**small, autoencoder={"folder": folder}).bind(cg.Image(3, 16, 16), {})
        for folder in (folders / "kl", tmp_path / "other")
    )
    images, _ = rows(16)
    swapped = with_options("x", one, {"autoencoder": {"folder": tmp_path / "other"}})
    assert torch.equal(swapped.autoencoder.encode(images), other.autoencoder.encode(images))
    one.mark_fitted()
    for name, value in (("folder", tmp_path / "other"), ("config", {"scaling_factor": 3.0})):
        with pytest.raises(MechanismError, match=rf"its weights were fitted with autoencoder\.{name} "):
            with_options("x", one, {"autoencoder": {name: value}})
    with pytest.raises(SpecError, match="the autoencoder's folder says its config: leave `config` out"):
        cg.mechanisms.Diffusion(autoencoder={"folder": folders / "kl", "config": {"scaling_factor": 3.0}})


def test_a_file_names_a_folder_below_the_working_directory(folders, tmp_path, monkeypatch):
    text = (
        "causalgen: 1\nnodes:\n  kind:\n    variable: {type: categorical, categories: [cat, dog, eel]}\n"
        "  x:\n    variable: {type: image, shape: [3, 16, 16]}\n    parents: [kind]\n"
        "    mechanism: {kind: diffusion, pipeline: FOLDER, solver: {kind: ddim, steps: 3}}\n"
    )
    file = tmp_path / "scm.yaml"
    monkeypatch.chdir(folders)
    file.write_text(text.replace("FOLDER", "dit"))
    mechanism = cg.SCM.from_yaml(file).mechanisms["x"]
    assert mechanism.fitted
    assert mechanism.spec.solver.grid == TrainedGrid()
    for wrong in (str(folders / "dit"), "../dit"):
        file.write_text(text.replace("FOLDER", wrong))
        with pytest.raises(SpecError, match=r"scm.yaml:8:.*below the working directory"):
            cg.SCM.from_yaml(file)
    file.write_text(text.replace("FOLDER", "nowhere"))
    with pytest.raises(SpecError, match="No folder 'nowhere'"):
        cg.SCM.from_yaml(file)
    file.write_text(text.replace("FOLDER", "named").replace("cat, dog", "dog, cat"))
    with pytest.raises(
        SpecError, match="'dog' is number 0, but the pipeline's class of that name is number 1"
    ):
        cg.SCM.from_yaml(file)


def changed(folders, tmp_path, change):
    copy = tmp_path / "dit"
    shutil.copytree(folders / "dit", copy)
    change(copy)
    return copy


def edited(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


WEIGHTS = "diffusion_pytorch_model.safetensors"


def poisoned(home):
    path = home / "transformer" / WEIGHTS
    state = load_file(path)
    state["proj_out_2.bias"][0] = torch.nan
    save_file(state, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda home: shutil.rmtree(home / "vae"), "incomplete: vae/config.json is missing"),
        (lambda home: (home / "model_index.json").unlink(), "model_index.json"),
        (lambda home: (home / "transformer" / WEIGHTS).unlink(), "No weights in .*transformer"),
        (
            lambda home: (home / "transformer" / WEIGHTS).rename(
                home / "transformer/diffusion_pytorch_model.bin"
            ),
            "a pickle, which may run any code",
        ),
        (lambda home: (home / "transformer" / WEIGHTS).write_bytes(b"none"), "Cannot read"),
        (
            lambda home: edited(home / "vae" / "config.json", _class_name="VQModel"),
            "'VQModel'; expected 'AutoencoderKL'",
        ),
        (
            lambda home: edited(home / "vae" / "config.json", latent_channels=3),
            "takes 4 channels and gives 8",
        ),
        (lambda home: edited(home / "vae" / "config.json", in_channels=1), "autoencoder takes 1 channels"),
        (lambda home: edited(home / "transformer" / "config.json", sample_size=4), "takes 4x4, got 8x8"),
        (lambda home: edited(home / "transformer" / "config.json", num_layers=2), "do not fit their config"),
        (
            lambda home: edited(home / "transformer" / "config.json", num_layers=10**9),
            "larger than any network",
        ),
        (lambda home: edited(home / "transformer" / "config.json", rope=True), "no option 'rope'"),
        (
            lambda home: edited(home / "scheduler" / "scheduler_config.json", prediction_type="flow"),
            "prediction type 'flow'",
        ),
        (
            lambda home: edited(home / "scheduler" / "scheduler_config.json", trained_betas=[0.1]),
            "trained_betas",
        ),
        (
            lambda home: edited(home / "scheduler" / "scheduler_config.json", invert_sigmas=True),
            "invert_sigmas",
        ),
        (
            lambda home: edited(home / "scheduler" / "scheduler_config.json", use_flow_sigmas=True),
            "use_flow_sigmas",
        ),
        (lambda home: edited(home / "model_index.json", vqvae=["diffusers", "VQModel"]), "a part 'vqvae'"),
        (
            lambda home: edited(
                home / "scheduler" / "scheduler_config.json", _class_name="EulerDiscreteScheduler"
            ),
            "not known here",
        ),
        (poisoned, "are no numbers"),
    ],
)
def test_what_is_wrong_with_a_folder_is_told(folders, tmp_path, change, message):
    home = changed(folders, tmp_path, change)
    with pytest.raises((CheckpointError, MechanismError, SpecError), match=message):
        bound(home)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prediction": "velocity"}, "predicts eps, x0 or v"),
        ({"training": {"epochs": 1}}, "is not trained"),
        (
            {"solver": {"kind": "anchored", "grid": {"kind": "log", "sigma_max": 1000.0}}},
            "knows levels sigma from",
        ),
        ({"solver": {"thresholding": True}}, "walks latents"),
        ({"code": {}}, "no style code"),
        (
            {"solver": {"grid": {"trained": {"betas": "scaled_linear"}}}},
            "are not those that the network was trained on",
        ),
        ({"coarse": 0.5}, "is not trained: leave `coarse` out"),
        ({"levels": [0.0, 1.4]}, "is not trained: leave `levels` out"),
        ({"dropout": 0.3}, "is not trained: leave `dropout` out"),
    ],
)
def test_options_that_do_not_go_with_a_pipeline_are_refused(folders, options, message):
    with pytest.raises(SpecError, match=message):
        cg.mechanisms.Diffusion.from_pipeline(folders / "dit", **options)


def test_a_pretrained_network_is_not_distilled(folders):
    with pytest.raises(SpecError, match="a pretrained network cannot be distilled: take fewer steps"):
        cg.mechanisms.Diffusion.from_pipeline(folders / "classes", distilled={})


@pytest.mark.parametrize("kind", ["ddim", "anchored"])
def test_a_grid_that_names_no_levels_has_those_of_the_network(folders, kind):
    """For a solver of another kind, too: a flow was walked over the levels of DDPM."""
    grid = {"kind": "trained", "spacing": "leading"}
    spec = cg.mechanisms.Diffusion.from_pipeline(folders / "flow", solver={"kind": kind, "grid": grid})
    assert spec.solver.grid.trained == FLOW_1000
    other = model(cg.mechanisms.Diffusion.from_pipeline(folders / "flow")).with_options(
        "x", solver={"kind": kind, "grid": grid}
    )
    assert other.mechanisms["x"].spec.solver.grid == spec.solver.grid


FLOW_1000 = TrainedLevels(betas="flow")


def test_sides_that_a_u_net_cannot_halve_are_refused(folders):
    config = {"sample_size": None, "block_out_channels": [8, 8]}
    levels = TrainedLevels()
    network = Pretrained(network="UNet2DModel", config=config, levels=levels)
    network.check_size(8, 200)
    with pytest.raises(MechanismError, match="multiples of 2, got 17x8"):
        network.check_size(17, 8)


def test_parents_that_the_network_does_not_know_are_refused(folders):
    spec = cg.mechanisms.Diffusion.from_pipeline(folders / "dit")
    image = cg.Image(3, 16, 16)
    wrong = (
        {},
        {"kind": cg.Categorical(4)},
        {"a": cg.Categorical(3), "b": cg.Continuous()},
        {"a": cg.Continuous()},
    )
    for parents in wrong:
        with pytest.raises(MechanismError, match="3 classes: it takes one categorical parent"):
            spec.bind(image, parents)
    free = cg.mechanisms.Diffusion.from_pipeline(folders / "unet")
    with pytest.raises(MechanismError, match="knows no classes"):
        free.bind(cg.Image(3, 8, 8), {"kind": cg.Categorical(3)})


def test_nothing_is_downloaded_without_a_commit(monkeypatch, tmp_path):
    import huggingface_hub

    asked = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *a, **k: asked.append((a, k)) or tmp_path
    )
    with pytest.raises(CheckpointError, match="nothing is downloaded"):
        cg.mechanisms.Diffusion.from_pipeline("user/model")
    with pytest.raises(CheckpointError, match="40 hexadecimal digits"):
        cg.mechanisms.Diffusion.from_pipeline("user/model", revision="main")
    assert not asked
    with pytest.raises(CheckpointError, match="model_index.json"):
        cg.mechanisms.Diffusion.from_pipeline("user/model", revision="0" * 40)
    ((name,), options) = asked[0]
    assert (name, options["revision"]) == ("user/model", "0" * 40)
    assert not any(pattern.endswith((".bin", "*")) for pattern in options["allow_patterns"])


def test_a_download_offline_is_told(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import OfflineModeIsEnabled

    def offline(*args, **options):
        raise OfflineModeIsEnabled("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(CheckpointError, match="cannot be reached, and the cache lacks it"):
        cg.mechanisms.Diffusion.from_pipeline("user/model", revision="0" * 40)


def test_an_anticausal_predictor_is_trained_beside_a_unet_that_knows_no_classes(folders):
    """Diff-SCM's own arrangement: an unconditional network, guided by a predictor of its cause."""
    spec = cg.mechanisms.Diffusion.from_pipeline(
        folders / "unet",
        predictor={"kind": "resnet", "channels": [8], "unshuffle": 1},
        guidance={"kind": "anticausal", "denoiser": "unconditional"},
        solver={"steps": 2},
        training={"epochs": 2, "batch_size": 8, "validation": 0.0},
    )
    scm = cg.SCM(
        nx.DiGraph([("kind", "x")]), {"kind": cg.Categorical(2), "x": cg.Image(3, 8, 8)}, {"x": spec}
    )
    mechanism = scm.mechanisms["x"]
    assert not mechanism.fitted
    before = {name: each.clone() for name, each in mechanism.state_dict().items()}
    kinds = torch.arange(16) % 2
    images = torch.rand(16, 3, 8, 8, generator=seeded()) * 0.5 + 0.5 * kinds.view(-1, 1, 1, 1)
    scm.fit({"kind": kinds, "x": images}, progress=False)
    after = scm.mechanisms["x"].state_dict()
    moved = {name for name, each in before.items() if not torch.equal(each, after[name])}
    assert moved and not any("denoiser.network" in name for name in moved)
    cf = scm.counterfactual({"kind": kinds[:2], "x": images[:2]}, do={"kind": 1}, seed=0)
    assert torch.equal(cf["x"][1], cf.factual["x"][1])
    assert not torch.equal(cf["x"][0], cf.factual["x"][0])


@pytest.mark.parametrize("name", ["kl", "tiny"])
def test_a_node_is_fitted_in_the_latents_of_an_autoencoder(folders, tmp_path, name):
    spec = cg.mechanisms.Diffusion(
        autoencoder={"folder": folders / name},
        backbone={"kind": "unet", "channels": [8], "unshuffle": 1},
        predictor={"kind": "resnet", "channels": [8], "unshuffle": 1},
        solver={"kind": "anchored", "steps": 2},
        training={"epochs": 1, "batch_size": 8, "validation": 0.25, "precision": "bfloat16"},
    )
    scm = cg.SCM(
        nx.DiGraph([("kind", "x")]), {"kind": cg.Categorical(3), "x": cg.Image(3, 16, 16)}, {"x": spec}
    )
    frozen = {key: each.clone() for key, each in scm.mechanisms["x"].autoencoder.state_dict().items()}
    images, parents = rows(16, 12)
    data = {"kind": parents["kind"], "x": (images + 1) / 2}
    report = scm.fit(data, progress=False).fit_report
    assert "autoencoder L1" in str(report)
    for key, each in scm.mechanisms["x"].autoencoder.state_dict().items():
        assert torch.equal(each, frozen[key])
    inner = scm.mechanisms["x"].inner.denoiser
    latents = scm.mechanisms["x"].autoencoder.encode(images)
    assert inner.pixel_mean.item() == pytest.approx(latents.mean().item(), rel=0.5)
    null = scm.counterfactual(data, do={}, seed=0, copy_unaffected=False)
    torch.testing.assert_close(null["x"], null.factual["x"], rtol=0, atol=1e-4)
    scm.save_pretrained(tmp_path / "saved")
    again = cg.SCM.from_pretrained(tmp_path / "saved")
    assert again.to_yaml() == scm.to_yaml()
    draws = [each.sample(2, seed=1)["x"] for each in (scm, again)]
    assert torch.equal(*draws)


def test_a_folder_that_is_no_autoencoder_is_refused(folders):
    with pytest.raises(SpecError, match="'UNet2DModel'; expected 'AutoencoderKL'"):
        cg.mechanisms.Diffusion(autoencoder={"folder": folders / "unet" / "unet"})
    odd = cg.mechanisms.Diffusion(autoencoder={"folder": folders / "kl"})
    with pytest.raises(MechanismError, match="multiples of 2"):
        odd.bind(cg.Image(3, 15, 16), {})


def test_imagenet_is_shown_and_says_how_to_get_its_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(cli.app, ["show", "imagenet"])
    assert shown.exit_code == 0, shown.output
    assert "cc-by-nc-4.0" in shown.output and "class -> image" in shown.output
    scm = cg.SCM.from_pretrained("imagenet")
    labels = scm.variables["class"].labels
    assert (len(labels), labels[281], labels[207]) == (1000, "tabby", "golden retriever")
    scm.to("cpu")
    scm.with_options("image", solver={"steps": 3}).to("cpu")  # which has nothing to move either
    evidence = {"class": "beagle", "image": torch.rand(3, 256, 256, generator=seeded())}
    for ask in (
        lambda: scm.counterfactual(evidence, do={"class": "tabby"}),
        lambda: scm.sample(1),
        lambda: scm.save_pretrained(tmp_path / "saved"),
    ):
        with pytest.raises(NotFittedError, match=r"revision='eab87f77.*save_pretrained\('DiT-XL-2-256'\)"):
            ask()
    with pytest.raises(cg.DomainError, match="Did you mean 'tabby'"):
        scm.counterfactual(evidence, do={"class": "tabbi"})
