"""Networks: attention by plain products gives what the fused kernel gives; how encoders pool."""

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0

from mechanisms.diffusion.backbones import UNet
from mechanisms.diffusion.predictor import ResNet, ResNetNetwork


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
