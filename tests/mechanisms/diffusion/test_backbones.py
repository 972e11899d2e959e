"""Networks: attention by plain products; the transformer is diffusers' DiT; how encoders pool."""

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

from graphs.errors import MechanismError
from graphs.variables import Continuous, Image
from mechanisms.diffusion import ClassifierFree, Diffusion
from mechanisms.diffusion.backbones import DiT, UNet
from mechanisms.diffusion.denoiser import Denoiser
from mechanisms.diffusion.predictor import ResNet, ResNetNetwork
from mechanisms.encoders import network_time
from mechanisms.networks import reproducible_initialisation
from mechanisms.options import fit_afresh, take_weights


@pytest.mark.parametrize(("side", "plain"), [(8, True), (48, False)])
def test_attention_over_few_pixels_is_plain_and_the_same(side, plain, monkeypatch):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UNet(channels=(8, 16), unshuffle=1).build(1, 0, 0).eval()
        x = torch.randn(2, 1, side, side)
    calls = []
    original = AttnProcessor.__call__

    def counted(self, *args, **options):
        calls.append(self)
        return original(self, *args, **options)

    monkeypatch.setattr(AttnProcessor, "__call__", counted)
    with torch.no_grad():
        found = network(x, torch.ones(2), torch.zeros(2, 0))
        assert bool(calls) == plain
        for module in network.modules():
            if isinstance(module, Attention):
                module.set_processor(AttnProcessor2_0())
        torch.testing.assert_close(found, network(x, torch.ones(2), torch.zeros(2, 0)), rtol=1e-4, atol=1e-5)


def noise_left(detail):
    """Mean squared error of the noise in pictures of one colour, by a network of few channels for a block."""
    network = built(UNet(channels=(16,), unshuffle=4, detail=detail), 3, 0, 0).train()
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    errors = []
    for _ in range(150):
        noise = torch.randn(4, 3, 16, 16, generator=generator)
        x = torch.randn(4, 3, 1, 1, generator=generator) + noise
        error = (network(x, torch.ones(4), torch.zeros(4, 0)) - noise).square().mean()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
        errors.append(error.item())
    return sum(errors[-20:]) / 20


def _gradient(network, precision):
    generator = torch.Generator().manual_seed(1)
    x, context = torch.randn(8, 1, 16, 16, generator=generator), torch.randn(8, 4, generator=generator)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        loss = network(x, torch.rand(8, generator=generator) + 0.1, context).float().square().mean()
    return torch.cat([each.flatten() for each in torch.autograd.grad(loss, list(network.parameters()))])


def test_gradients_in_bfloat16_hold_however_large_what_passes_through_a_unet_has_grown():
    with reproducible_initialisation(0):
        network = UNet(channels=(16, 16)).build(1, 0, 4)
    with torch.no_grad():
        for value in network.unet.conv_in.parameters():
            value.mul_(1e5)
    exact, rounded = (_gradient(network, each) for each in (torch.float32, torch.bfloat16))
    assert (rounded - exact).norm() < 0.05 * exact.norm()


def test_weights_of_a_unet_without_normalised_attention_answer_as_they_did():
    with reproducible_initialisation(0):
        new, without, loaded, started = (UNet(channels=(16, 16)).build(1, 0, 4) for _ in range(4))
    without.unet.mid_block.attentions[0].group_norm = None
    loaded.load_state_dict(without.state_dict())
    take_weights("", started, loaded)
    generator = torch.Generator().manual_seed(1)
    x, context = torch.randn(2, 1, 16, 16, generator=generator), torch.randn(2, 4, generator=generator)
    sigma = torch.ones(2)
    for each in (loaded, started):
        with torch.no_grad():
            torch.testing.assert_close(each(x, sigma, context), without(x, sigma, context), rtol=0, atol=0)
        assert each.state_dict().keys() == without.state_dict().keys()
    loaded.load_state_dict(new.state_dict())
    take_weights("", started, new)
    for each in (loaded, started):
        with torch.no_grad():
            torch.testing.assert_close(each(x, sigma, context), new(x, sigma, context), rtol=0, atol=0)


def test_a_fit_of_a_model_whose_attention_is_not_normalised_begins_as_that_of_a_new_one():
    options = Diffusion(backbone=UNet(channels=(16,)), predictor=None, guidance=ClassifierFree())
    new, saved = (options.bind(Image(1, 8, 8), {"t": Continuous()}) for _ in range(2))
    saved.denoiser.network.unet.mid_block.attentions[0].group_norm = None
    saved.mark_fitted()
    begun = fit_afresh(saved)
    assert begun.state_dict().keys() == new.state_dict().keys() != saved.state_dict().keys()
    for name, value in begun.named_parameters():
        torch.testing.assert_close(value, dict(new.named_parameters())[name], rtol=0, atol=0)


def test_detail_tells_the_noise_of_single_pixels_that_few_channels_lose():
    # 48 numbers a block in 16 channels: two thirds of white noise cannot pass.
    assert noise_left(0) > 0.5
    assert noise_left(8) < 0.15


def test_untrained_detail_adds_nothing():
    plain, detailed = (built(UNet(channels=(8, 16), unshuffle=2, detail=width), 3, 1, 2) for width in (0, 8))
    detailed.load_state_dict({**detailed.state_dict(), **plain.state_dict()})
    x = torch.randn(2, 4, 10, 14, generator=torch.Generator().manual_seed(0))
    asked = (x, torch.ones(2), torch.ones(2, 2))
    assert torch.equal(plain(*asked), detailed(*asked))


SMALL_DIT = DiT(patch=2, width=16, depth=2, heads=2)


def built(spec, *sizes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return spec.build(*sizes).eval()


def moved(network):
    """Away from zeros."""
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network


def test_the_transformer_with_the_weights_of_diffusers_dit_gives_what_that_gives():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=3,
            out_channels=2,
            num_layers=2,
            sample_size=8,
            patch_size=2,
            num_embeds_ada_norm=4,
        )
        ours = moved(SMALL_DIT.build(2, 1, 0)).eval()
        x, sigma = torch.randn(3, 3, 8, 8), torch.tensor([0.05, 1.0, 20.0])
    theirs = moved(theirs).eval()
    first = theirs.transformer_blocks[0].norm1.emb
    first.class_embedder.embedding_table.weight.data.zero_()
    ours.level.load_state_dict(first.timestep_embedder.state_dict())
    for mine, other in zip(ours.blocks, theirs.transformer_blocks, strict=True):
        other.norm1.emb = first  # theirs has an embedding a block, in place of one for all
        state = other.state_dict()
        mine.load_state_dict({name: state[name] for name in mine.state_dict()})
    ours.tokens.load_state_dict(
        {"weight": theirs.pos_embed.proj.weight.flatten(1), "bias": theirs.pos_embed.proj.bias}
    )
    for name in ("weight", "bias"):
        shift, scale = getattr(theirs.proj_out_1, name).data.chunk(2)
        getattr(ours.last_norm.linear, name).data = torch.cat([scale, shift])
        last = getattr(theirs.proj_out_2, name).data  # pixels before channels, in theirs
        getattr(ours.pixels, name).data = last.unflatten(0, (4, 2)).transpose(0, 1).flatten(0, 1)
    with torch.no_grad():
        expected = theirs(x, timestep=network_time(sigma), class_labels=torch.zeros(3, dtype=torch.long))
        torch.testing.assert_close(ours(x, sigma, torch.zeros(3, 0)), expected.sample, rtol=1e-4, atol=1e-5)
        assert expected.sample.std() > 0.1


def test_the_untrained_transformer_is_the_denoiser_of_gaussian_pixels():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Denoiser(Image(3, 4, 6), {"size": Continuous()}, SMALL_DIT, "edm", 0.1)
        x, size = torch.randn(2, 3, 4, 6), torch.tensor([0.0, 1e3], dtype=torch.float64)
    module.pixel_mean.fill_(0.2)
    for sigma in (0.02, 0.5, 20.0):
        expected = sigma * (x - 0.2) / (sigma**2 + module.pixel_std**2)
        torch.testing.assert_close(module.eps(x, sigma, {"size": size}), expected)


def test_blocks_of_the_untrained_transformer_are_the_identity_and_trained_ones_look_everywhere():
    network = built(SMALL_DIT, 1, 0, 0)
    torch.nn.init.ones_(network.pixels.weight[:, 3].data)
    x = torch.linspace(-1, 1, 64).view(1, 1, 8, 8)
    other = x.clone()
    other[..., :2, :2] = 3.0
    away = torch.ones(8, 8, dtype=torch.bool)
    away[:2, :2] = False

    def difference():
        with torch.no_grad():
            both = network(torch.cat([x, other]), torch.ones(2), torch.zeros(2, 0))
        return (both[1, 0] - both[0, 0]).abs()

    assert difference()[~away].min() > 1e-3 and difference()[away].max() < 1e-6
    moved(network)
    assert difference()[away].median() > 1e-3


def test_the_transformer_takes_any_whole_number_of_patches():
    network = built(DiT(patch=4, width=8, depth=1, heads=1), 3, 1, 5)
    assert network(torch.zeros(2, 4, 8, 20), torch.ones(2), torch.zeros(2, 5)).shape == (2, 3, 8, 20)
    DiT(patch=4).check_size(28, 4)
    for height, width in [(30, 28), (28, 30)]:
        with pytest.raises(MechanismError, match=f"multiples of its patch, 4, got {height}x{width}. Give a"):
            DiT(patch=4).check_size(height, width)


def test_features_grow_with_the_image():
    spec = ResNet(channels=(8, 16), unshuffle=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = ResNetNetwork(spec, 1).eval()
        x = torch.randn(1, 1, 8, 8)
    with torch.no_grad():
        dim, bright = encoder(10 * x, torch.ones(1)), encoder(1000 * x, torch.ones(1))
    assert dim.shape == (1, 32) and spec.features == 32
    assert bright.norm() > 50 * dim.norm()  # no last normalisation bounds them
