"""A classifier of one's own as predictor: its guidance in closed form, what it sees, and what is refused."""

from importlib import import_module
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import causalgen as cg
from causalgen.data.table import Table
from causalgen.fitting.fit import run_folder
from graphs.errors import CheckpointError, MechanismError, NotFittedError, SpecError, UnknownNameError
from graphs.variables import Categorical, Continuous, Image
from mechanisms.diffusion import Anticausal, Classifier, ClassifierFree, Factual
from mechanisms.diffusion.classifier import OwnPredictor
from tests.mechanisms.diffusion.exact import EVENT, ExactDenoiser, World

diffusers: Any = import_module("diffusers")
models: Any = import_module("torchvision.models")

GREY = {"mean": [0.5], "std": [0.5]}  # images in [-1, 1], as they are
COLOUR = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
SIGMA = 0.7


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def linear(inputs, outputs, seed=0):
    """Flat pixels to logits."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs))


def own(network, parents=None, lowest=0.02, **options):
    """In float64."""
    spec = Classifier(network=network, **{"parent": "digit", **GREY, **options})
    return OwnPredictor(parents or {"digit": Categorical(3)}, spec, lowest).double()


class Gaussian(nn.Module):
    """The denoiser of x ~ N(m, S), whatever its parent: D(x_bar) = m + S (S + sigma^2)^-1 (x_bar - m)."""

    def __init__(self):
        super().__init__()
        self.variables = {"digit": Categorical(3)}
        root = torch.randn(4, 4, generator=seeded(), dtype=torch.float64)
        self.mean, self.cov = root[0], 0.3 * root @ root.T
        self.calls = 0

    def eps(self, x, sigma, parents, shown=True):
        self.calls += 1
        total = self.cov + sigma**2 * torch.eye(4, dtype=torch.float64)
        return (sigma * torch.linalg.solve(total, (x.flatten(1) - self.mean).T).T).view(x.shape)


@pytest.mark.parametrize("through", [True, False])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_guidance_by_a_linear_classifier_is_its_closed_form(through, scale):
    """Of logits W x_0 the gradient is (W_cf - W_F) S (S + sigma^2)^-1, or W_cf - W_F if D moves as x_bar."""
    world, network = Gaussian(), linear(4, 3)
    predictor = own(network, through_denoiser=through)
    x = torch.randn(5, *EVENT, generator=seeded(1), dtype=torch.float64)
    kinds = torch.arange(5) % 3
    other = (kinds + torch.tensor([1, 2, 0, 1, 2])) % 3
    guidance = Anticausal(denoiser="unconditional", scale=scale)
    factual = Factual({"digit": kinds}, torch.ones(5, dtype=torch.bool))
    found = guidance.eps(world, predictor, x, SIGMA, factual, {"digit": other})
    assert world.calls == 1
    weight = network[1].weight.detach().double()
    jacobian = torch.linalg.solve(world.cov + SIGMA**2 * torch.eye(4), world.cov)
    step = (weight[other] - weight[kinds]) @ (jacobian if through else torch.eye(4).double())
    expected = world.eps(x, SIGMA, {}).flatten(1) - SIGMA * scale * step
    torch.testing.assert_close(found.flatten(1), expected)
    assert torch.equal(found[2], world.eps(x, SIGMA, {})[2])  # whose digit stays


class Undoing(nn.Module):
    """The exact log q(digit | x_bar) of a world, computed from D(x_bar) under digit 0, which is affine."""

    def __init__(self, world):
        super().__init__()
        self.world = world

    def forward(self, estimate):
        world, zero = self.world, torch.zeros(len(estimate), dtype=torch.long)
        flat, centre = estimate.flatten(1), world.centres[0]
        total = world.noise + SIGMA**2 * torch.eye(4, dtype=torch.float64)
        x = centre + (flat - centre) @ torch.linalg.inv(torch.linalg.solve(total, world.noise))
        logs = [world.log_density(x, SIGMA, {"digit": zero + k}, ("digit",)) for k in range(3)]
        return torch.stack(logs, 1)


def test_a_classifier_that_tells_as_much_as_the_exact_predictor_guides_as_exactly():
    world = World(3, 0)
    predictor = own(Undoing(world))
    image, _ = world.draw(6)
    zero, other = torch.zeros(6, dtype=torch.long), torch.tensor([0, 1, 2, 1, 2, 0])
    x = image + SIGMA * torch.randn(image.shape, generator=seeded(), dtype=torch.float64)
    factual = Factual({"digit": zero}, torch.ones(6, dtype=torch.bool))
    guidance = Anticausal(denoiser="conditional", scale=1.0)
    found = guidance.eps(ExactDenoiser(world), predictor, x, SIGMA, factual, {"digit": other})
    expected = world.eps(x, SIGMA, {"digit": other}, ("digit",))  # by Bayes' rule
    torch.testing.assert_close(found, expected)
    assert (found - world.eps(x, SIGMA, {"digit": zero}, ("digit",))).abs().max() > 0.1


def test_the_base_takes_the_new_values_of_parents_that_it_does_not_read():
    world = World(3, 1)
    predictor = own(linear(4, 3), world.variables)
    image, parents = world.draw(6)
    other = {**parents, "t1": parents["t1"] + 1}
    factual = Factual(parents, torch.ones(6, dtype=torch.bool))
    found = Anticausal().eps(ExactDenoiser(world), predictor, image, SIGMA, factual, other)
    torch.testing.assert_close(found, world.eps(image, SIGMA, other, ("digit", "t1")))


def test_what_the_classifier_sees():
    """A grey image in each channel, in [0, 1], resized, normalised."""
    seen = []

    class Watching(nn.Module):
        def forward(self, x):
            seen.append(x)
            return x.flatten(1)[:, :3]

    predictor = own(Watching(), size=[6, 4], **COLOUR)
    image = 2 * torch.rand(2, 1, 3, 8, generator=seeded(), dtype=torch.float64) - 1
    predictor.encode(image, 0.02)
    large = nn.functional.interpolate((image + 1) / 2, (6, 4), mode="bilinear", antialias=True)
    expected = [(large - mean) / std for mean, std in zip(COLOUR["mean"], COLOUR["std"], strict=True)]
    torch.testing.assert_close(seen[0], torch.cat(expected, 1))


def test_it_reads_and_says_the_probabilities_of_the_classifier():
    network = linear(4, 3)
    predictor = own(network)
    image = torch.randn(5, *EVENT, generator=seeded(), dtype=torch.float64)
    logits = copy_of(network).double()(image.clamp(-1, 1))  # as the image is shown
    assert torch.equal(predictor.read(image, 0.0)["digit"], logits.argmax(1))
    kinds = torch.tensor([0, 1, 2, 0, 1])
    expected = logits.log_softmax(1)[torch.arange(5), kinds]
    torch.testing.assert_close(predictor.joint(image, {"digit": kinds}, 0.0, 2), expected)


def copy_of(network):
    same = linear(4, 3)
    same.load_state_dict(network.state_dict())
    return same


def test_noised_images_are_not_taken_for_clean_ones():
    predictor = own(linear(4, 3))
    with pytest.raises(MechanismError, match="reads clean images, got some at level 0.5"):
        predictor.encode(torch.zeros(1, *EVENT).double(), 0.5)


def test_logits_that_are_not_finite_are_refused():
    network = linear(4, 3)
    network[1].bias.data[1] = -torch.inf
    with pytest.raises(MechanismError, match="logits that are not finite, first in row 0"):
        own(network).encode(torch.zeros(2, *EVENT).double(), 0.0)


QUICK = {
    "backbone": {"kind": "unet", "channels": [8], "unshuffle": 1},
    "solver": {"kind": "anchored", "steps": 2},
    "training": {"epochs": 1, "batch_size": 8, "validation": 0.25},
}
PARENTS = {"kind": Categorical(3), "size": Continuous()}


def bound(classifier, parents=None, image=None, **options):
    spec = cg.mechanisms.Diffusion(**QUICK, predictor=classifier, **options)
    return spec.bind(image or Image(1, 8, 8), parents or {"kind": Categorical(3)})


def flat(outputs=3, **options):
    return Classifier(network=linear(64, outputs), **{"parent": "kind", **GREY, **options})


class Pair(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :3], x


@pytest.mark.parametrize(
    ("classifier", "options", "message"),
    [
        (flat(4), {}, r"gives \(2, 4\) for 2 images, expected logits \(2, 3\)"),
        (flat(size=[4, 4]), {}, r"does not take images of 1x4x4: .*Give the `size`"),
        (flat(**COLOUR), {}, "does not take images of 3x8x8"),
        (flat(), {"image": Image(3, 8, 8)}, "takes 1 channels, as many as `mean` has numbers"),
        (Classifier(network=Pair(), parent="kind", **GREY), {}, "gives a tuple for 2 images"),
        (flat(parent="age"), {}, "Unknown parent 'age'"),
        (flat(parent="size"), {"parents": PARENTS}, "reads categories, but parent 'size' is"),
        (
            flat(),
            {"parents": PARENTS, "guidance": Anticausal(denoiser="unconditional")},
            "does not know size either",
        ),
        (flat(), {"parents": PARENTS, "guidance": Anticausal(scale={"size": 2.0})}, "names 'size'"),
        (flat(), {"parents": PARENTS, "guidance": ClassifierFree(corrections=1)}, "corrections"),
        (flat(), {"code": {"encoder": flat()}}, "is a `predictor` of an image node, no encoder"),
        (
            Classifier(network="vit_b_16", parent="kind", size=[16, 16], **COLOUR),
            {},
            "does not take images of 3x16x16: Wrong image height",
        ),
    ],
)
def test_what_does_not_fit_is_told(classifier, options, message):
    with pytest.raises((MechanismError, UnknownNameError), match=message):
        bound(classifier, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "resnet19"}, "Unknown architecture 'resnet19' in torchvision.models. Did you mean"),
        ({"network": "inception_v3"}, "Unknown architecture"),
        ({"network": "os.system"}, "Unknown architecture"),
        ({"network": linear(4, 3), "weights": {"a": torch.zeros(1)}}, "a module has its own"),
        ({"network": "resnet18", "std": [1.0]}, "a number for each channel, got 3 and 1"),
        ({"network": "resnet18", "std": [1.0, 0.0, 1.0]}, "std is above 0"),
        ({"network": "resnet18", "weights": "../x.safetensors"}, "a weights file in a file lies below"),
    ],
)
def test_options_that_are_wrong_are_told(options, message):
    with pytest.raises(SpecError, match=message):
        Classifier(**{"parent": "kind", **COLOUR, **options})


def data(n=16):
    kinds = torch.arange(n) % 3
    images = 0.3 * torch.rand(n, 1, 8, 8, generator=seeded()) + 0.3 * kinds.view(-1, 1, 1, 1)
    return {"kind": kinds, "x": images}


def model(spec, shape=(1, 8, 8)):
    graph = nx.DiGraph([("kind", "x")])
    return cg.SCM(graph, {"kind": cg.Categorical(3), "x": cg.Image(*shape)}, {"x": spec})


def test_fitting_leaves_it_as_it_is_and_reports_what_it_recovers(tmp_path):
    network = nn.Sequential(nn.BatchNorm2d(1), linear(64, 3)).train()
    before = {name: each.clone() for name, each in network.state_dict().items()}
    spec = cg.mechanisms.Diffusion(
        **QUICK, predictor=Classifier(network=network, parent="kind", **GREY), guidance=Anticausal()
    )
    scm = model(spec).fit(data(), progress=False)
    inside = scm.mechanisms["x"].predictor.encoder
    assert "kind accuracy" in scm.fit_report["x"].figures
    for state in (network.state_dict(), inside.model.state_dict()):
        assert all(torch.equal(each, state[name]) for name, each in before.items())
    assert network.training and network[0].weight.requires_grad and not inside.model.training
    cf = scm.counterfactual(data(2), do={"kind": 1}, seed=0)
    assert not torch.equal(cf["x"][0], cf.factual["x"][0])
    with pytest.raises(MechanismError, match=r"Node 'x': its classifier, a Sequential, .*no model saves"):
        scm.save_pretrained(tmp_path / "saved")


def test_a_fitted_model_gets_one_and_keeps_it_under_other_options():
    spec = cg.mechanisms.Diffusion(**QUICK, predictor={"kind": "resnet", "channels": [8], "unshuffle": 1})
    scm = model(spec).fit(data(), progress=False)
    network = linear(64, 3)
    other = scm.with_options("x", predictor=Classifier(network=network, parent="kind", **GREY))
    third = other.with_options("x", guidance=Anticausal(scale=2.0), solver={"steps": 3})
    for each in (other, third):
        mechanism = each.mechanisms["x"]
        assert torch.equal(mechanism.predictor.encoder.model[1].weight, network[1].weight)
        weight = next(mechanism.denoiser.parameters())
        assert torch.equal(weight, next(scm.mechanisms["x"].denoiser.parameters()))
    cf = third.counterfactual(data(3), do={"kind": 2}, seed=0)
    clean = 2 * cf["x"] - 1
    assert torch.equal(torch.as_tensor(cf.readings["x"]["kind"].read), network(clean).argmax(1))


def test_an_architecture_comes_from_a_file_and_is_saved_with_the_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = models.get_model("shufflenet_v2_x0_5", num_classes=3).eval()
    network.conv1[1].running_mean += 1  # buffers count as well
    save_file(network.state_dict(), "classifier.safetensors")
    text = (
        "causalgen: 1\nnodes:\n  kind: {variable: {type: categorical, categories: 3}}\n  x:\n"
        "    variable: {type: image, shape: [3, 8, 8]}\n    parents: [kind]\n    mechanism:\n"
        "      kind: diffusion\n      backbone: {kind: unet, channels: [8], unshuffle: 1}\n"
        "      solver: {kind: anchored, steps: 2}\n      training: {epochs: 1, batch_size: 8}\n"
        "      predictor: {kind: classifier, network: shufflenet_v2_x0_5, parent: kind, size: [32, 32],\n"
        "        mean: [0.4, 0.5, 0.6], std: [0.2, 0.3, 0.4], weights: classifier.safetensors}\n"
    )
    (tmp_path / "scm.yaml").write_text(text)
    scm = cg.SCM.from_yaml(tmp_path / "scm.yaml")
    assert "classifier shufflenet_v2_x0_5 of 'kind'" in scm.describe()
    rows = {"kind": data()["kind"], "x": data()["x"].expand(-1, 3, -1, -1)}
    scm.fit(rows, progress=False)
    scm.save_pretrained(tmp_path / "saved")
    (tmp_path / "classifier.safetensors").unlink()
    again = cg.SCM.from_pretrained(tmp_path / "saved")
    assert again.to_yaml() == scm.to_yaml() and "weights" not in scm.to_yaml()
    found = [each.counterfactual(rows, do={"kind": 1}, seed=0).readings for each in (scm, again)]
    assert [torch.as_tensor(each["x"]["kind"].read).tolist() for each in found] == 2 * [
        torch.as_tensor(found[0]["x"]["kind"].read).tolist()
    ]
    image = 2 * torch.rand(2, 3, 8, 8, generator=seeded()) - 1
    own_one = again.mechanisms["x"].predictor
    with torch.no_grad():
        torch.testing.assert_close(own_one.encode(image, 0.0), network(own_one._seen(image)))


def test_without_its_weights_it_waits_for_them(tmp_path):
    spec = cg.mechanisms.Diffusion(
        **QUICK, predictor=Classifier(network="squeezenet1_1", parent="kind", size=[32, 32], **COLOUR)
    )
    scm = model(spec, (3, 8, 8))
    rows = {"kind": data()["kind"], "x": data()["x"].expand(-1, 3, -1, -1)}
    with pytest.raises(NotFittedError, match="squeezenet1_1 of 3 classes, do not come with the model"):
        scm.fit(rows, progress=False)
    (tmp_path / "old.pth").write_bytes(b"")
    for weights, message in (
        (tmp_path / "old.pth", "is a pickle"),
        (tmp_path / "none.safetensors", "Cannot read"),
        ({"classifier.bias": torch.zeros(3)}, "do not fit their config"),
    ):
        with pytest.raises((CheckpointError, MechanismError), match=message):
            scm.with_options(
                "x",
                predictor=Classifier(
                    network="squeezenet1_1", parent="kind", size=[32, 32], weights=weights, **COLOUR
                ),
            )


def test_regnets_are_laid_out_too():
    with torch.random.fork_rng():
        network = models.get_model("regnet_y_400mf", num_classes=3).eval()
    spec = Classifier(network="regnet_y_400mf", parent="kind", weights=network.state_dict(), **COLOUR)
    made = spec.make(3)
    x = torch.rand(1, 3, 32, 32, generator=seeded())
    with torch.no_grad():
        assert torch.equal(made.model(x), network(x))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A DiT in the latents of an autoencoder, of random weights."""
    home = tmp_path_factory.mktemp("pipeline")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = diffusers.DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, num_layers=1, in_channels=4, out_channels=8,
            sample_size=4, num_embeds_ada_norm=3,
        )  # fmt: skip
        transformer.proj_out_2.weight.data *= 0.3
        vae = diffusers.AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
            block_out_channels=[8, 8], norm_num_groups=4, scaling_factor=0.7,
        )  # fmt: skip
        scheduler = diffusers.DDIMScheduler(clip_sample=False)
        diffusers.DiTPipeline(transformer, vae, scheduler).save_pretrained(home)
    return home


def of_pipeline(pipeline, **options):
    classifier = Classifier(
        network=linear(3 * 64, 3), parent="kind", mean=[0.5] * 3, std=[0.5] * 3, **options
    )
    guidance = {"kind": "anticausal", "denoiser": "unconditional", "scale": 4.0}
    return cg.mechanisms.Diffusion.from_pipeline(
        pipeline, predictor=classifier, guidance=guidance, solver={"steps": 3}
    )


def test_in_latents_it_reads_decoded_pixels_and_its_gradient_is_that_of_differences(pipeline):
    made = of_pipeline(pipeline).bind(Image(3, 8, 8), {"kind": Categorical(3)}).double()
    inner, kinds = made.inner, torch.tensor([0, 1])
    x = torch.randn(2, 4, 4, 4, generator=seeded(), dtype=torch.float64)
    way = torch.randn(x.shape, generator=seeded(1), dtype=torch.float64)

    def base(at):
        return inner.denoiser.eps(at, SIGMA, {"kind": kinds}, shown=False)

    image = x.clone().requires_grad_()
    logits, noise = inner.predictor.encode_estimate(image, SIGMA, base)
    with torch.no_grad():
        pixels = made.autoencoder.decode(x - SIGMA * base(x))
        expected = inner.predictor.encoder.model(pixels)
        torch.testing.assert_close(logits, expected)
        torch.testing.assert_close(noise, base(x))
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), image)
    with torch.no_grad():
        ends = [inner.predictor.encode_estimate(x + h * way, SIGMA, base)[0] for h in (1e-5, -1e-5)]
    slope = (ends[0] - ends[1])[:, 1].sum() / 2e-5
    torch.testing.assert_close((gradient * way).sum(), slope, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("through", [True, False])
def test_a_pipeline_is_steered_by_it_and_the_null_stays_exact(pipeline, through):
    scm = model(of_pipeline(pipeline, through_denoiser=through), (3, 8, 8))
    scm.fit({"kind": [0, 1, 2]}, nodes=["kind"], progress=False)
    images = torch.rand(6, 3, 8, 8, generator=seeded())
    evidence = {"kind": torch.arange(6) % 3, "x": images}
    null = scm.counterfactual(evidence, do={}, seed=0, copy_unaffected=False)
    torch.testing.assert_close(null["x"], images, rtol=0, atol=1e-4)
    cf = scm.counterfactual(evidence, do={"kind": 1}, seed=0)
    assert torch.equal(cf["x"][1], images[1]) and torch.equal(cf["x"][4], images[4])
    network = scm.mechanisms["x"].inner.predictor.encoder.model
    with torch.no_grad():
        read = network(2 * cf["x"] - 1).argmax(1)
    assert torch.equal(torch.as_tensor(cf.readings["x"]["kind"].read), read)  # of the image itself
    moved, gaps = torch.tensor([0, 2, 3, 5]), []
    for scale in (0.0, 0.003, 4.0):  # a random autoencoder is soon at its end
        weaker = scm.with_options("x", guidance={"scale": scale})
        with torch.no_grad():
            logits = network(2 * weaker.counterfactual(evidence, do={"kind": 1}, seed=0)["x"] - 1)
        gaps.append((logits[:, 1] - logits[torch.arange(6), evidence["kind"]])[moved])
    assert bool((torch.stack(gaps[1:]) > gaps[0] + 0.1).all()), gaps


def test_a_run_folder_knows_a_module_by_its_weights(tmp_path):
    """Options cannot say it; where they were to, the fit ended in an error of pydantic's."""
    table = Table({"x": np.zeros((4, 1, 4, 4), np.uint8), "digit": np.arange(4) % 3})

    def begin(seed, resume=False):
        predictor = Classifier(network=linear(16, 3, seed), parent="digit", **GREY)
        spec = cg.mechanisms.Diffusion(predictor=predictor, backbone={"channels": [8], "unshuffle": 1})
        mechanism = spec.bind(Image(1, 4, 4), {"digit": Categorical(3)})
        run_folder("x", mechanism, table, 0, tmp_path, resume)

    begin(0)
    begin(0, resume=True)
    with pytest.raises(CheckpointError, match="brought"):
        begin(1, resume=True)
