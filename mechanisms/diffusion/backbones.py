"""Backbones: the denoising networks ``F(x, sigma, context)``, image in, image out: a U-Net and a transformer.

Both are made of diffusers' blocks. Small images run pixel-unshuffled in the U-Net: an r x r block of pixels
becomes r * r channels, which costs r * r times fewer operations at equal quality (28 x 28: 4 times). Large
blocks in few channels lose what single pixels are, and noise stays in flat ground; ``detail`` gives it back.
In the transformer such a block is a token.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, cast, final

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from diffusers.models.embeddings import TimestepEmbedding, Timesteps, get_2d_sincos_pos_embed
from diffusers.models.normalization import AdaLayerNormContinuous, AdaLayerNormZero
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D
from pydantic import Field, model_validator
from torch import Tensor, nn

from graphs.declared import Declared
from graphs.errors import MechanismError
from graphs.variables import Variable
from mechanisms.encoders import network_time, padded
from mechanisms.networks import perceptron
from mechanisms.registry import Registry

__all__ = [
    "AnyBackbone",
    "BACKBONES",
    "Backbone",
    "DiT",
    "DiTNetwork",
    "UNet",
    "UNetNetwork",
    "Width",
    "check_cell",
]

Width = Annotated[int, Field(ge=8, multiple_of=8)]
"""Channels: of a convolution normalised in 8 groups, or of a token with sinusoids of two positions."""

# Up to here heads of 8 channels run faster on a CPU as plain products than in the fused kernel (1.2 times a
# whole 28 x 28 evaluation), and what they hold between, tokens squared, is small. At 256 tokens training
# steps take 1.25 times as long.
_FEW_TOKENS = 64


class Backbone(Declared, ABC, frozen=True):  # pyright: ignore[reportGeneralTypeIssues]
    """The options of a denoising network; plug-ins come from entry points of ``causalgen.backbones``."""

    kind: str

    @abstractmethod
    def check_size(self, height: int, width: int) -> None:
        """Refuse images of a size that the network cannot take, by a MechanismError."""

    def check_parents(self, parents: Mapping[str, Variable], conditional: bool) -> None:
        """Refuse parents that the network cannot be told of, by a MechanismError; the default takes any.

        Args:
            parents: the parents' variables, in declared order.
            conditional: whether guidance relies on a network that is told them.
        """
        return

    @abstractmethod
    def build(self, image_channels: int, extra_channels: int, context: int) -> nn.Module:
        """The network F, whose call ``F(x, sigma, context)`` gives (N, image_channels, H, W).

        Args:
            image_channels: C of the image.
            extra_channels: E, of image parents; x is (N, C + E, H, W), scaled to about unit variance.
            context: width of the context, (N, width); 0 for none. ``sigma`` is (N,), the level of each row,
                always in float32; x and context are in the dtype of the weights, of 16 bits where asked. A
                wider context, as with a style code, has further columns at its end: where it is read beside
                other inputs, it comes last, so that weights of a narrower one serve.
        """


BACKBONES: Registry[type[Backbone]] = Registry(
    "backbone",
    "causalgen.backbones",
    Backbone,
    {
        "dit": "mechanisms.diffusion.backbones:DiT",
        "pretrained": "mechanisms.diffusion.pretrained:Pretrained",
        "unet": "mechanisms.diffusion.backbones:UNet",
    },
    default="unet",
)
AnyBackbone = Annotated[Backbone, BACKBONES]
"""A field that holds any backbone, told by its ``kind``; ``unet`` where it names none."""


def check_cell(what: str, side: int, least: int) -> None:
    """Refuse a network of 8 channels that ends at one cell, where each is normalised alone, to nothing.

    ``side`` is the longer one of the image, in pixels, ``least`` the pixels a side that are one cell.
    """
    if side <= least:
        raise MechanismError(
            f"The {what} makes one cell of an image of {side} pixels, where 8 channels are normalised one by "
            "one, to nothing. Give 16 channels or more."
        )


@final
class UNet(Backbone, frozen=True):
    """A U-Net with scale-shift time conditioning and attention below the top resolution, for any size.

    Attributes:
        channels: width at each resolution, from the top; multiples of 8.
        layers: residual blocks a resolution.
        unshuffle: side of the pixel block folded into channels.
        detail: channels of convolutions over single pixels, which mend the answer at the end; 0 for none.
    """

    kind: Literal["unet"] = "unet"
    channels: tuple[Width, ...] = Field(default=(48, 96), min_length=1, max_length=8)
    layers: int = Field(default=1, ge=1, le=8)
    unshuffle: int = Field(default=2, ge=1, le=16)
    detail: int = Field(default=0, ge=0, le=64)

    @property
    def multiple(self) -> int:
        """What the sides of an image are padded to a multiple of, inside the network."""
        return self.unshuffle * 2 ** (len(self.channels) - 1)

    def check_size(self, height: int, width: int) -> None:
        """Refuse 8 channels of one cell, by a MechanismError; other sides are padded, and cut again."""
        if 8 in self.channels[-2:]:  # what comes from above is normalised at the lowest resolution, too
            check_cell("backbone 'unet'", max(height, width), self.multiple)

    def build(self, image_channels: int, extra_channels: int, context: int) -> "UNetNetwork":
        """The network for images, with ``extra_channels`` beside their own and a context vector."""
        return UNetNetwork(self, image_channels, extra_channels, context)


class _Attend(AttnProcessor2_0):
    """Attention over few pixels by plain products on a CPU, else by the fused kernel."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        few = hidden_states.device.type == "cpu" and hidden_states.shape[2:].numel() <= _FEW_TOKENS
        attend = AttnProcessor() if few else super().__call__
        return attend(attn, hidden_states, encoder_hidden_states, attention_mask, temb)


class _UNet(UNet2DModel):
    """diffusers' network, which looks its dtype up among all its modules, twice an evaluation."""

    @property
    def dtype(self) -> torch.dtype:
        return self.conv_in.weight.dtype


class _Detail(nn.Module):
    """What single pixels add to an answer made of blocks of them; nothing until it is trained.

    Three convolutions over the answer beside the input, the first scaled and shifted by the level: where the
    answer tells that the ground is flat, what a pixel differs by is noise.
    """

    def __init__(self, image_channels: int, extra_channels: int, width: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(2 * image_channels + extra_channels, width, 3, padding=1)
        self.frequencies = Timesteps(32, flip_sin_to_cos=True, downscale_freq_shift=1)
        self.level = TimestepEmbedding(32, 2 * width)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.leave = _zero(nn.Conv2d(width, image_channels, 3, padding=1))

    def forward(self, answer: Tensor, x: Tensor, time: Tensor) -> Tensor:
        told = self.level(self.frequencies(time).to(x.dtype))[:, :, None, None]
        scale, shift = told.chunk(2, dim=1)
        h = nn.functional.silu(self.enter(torch.cat([answer, x], 1)) * (1 + scale) + shift)
        return self.leave(nn.functional.silu(self.middle(h)))


_MID_NORM = "unet.mid_block.attentions.0.group_norm."


class UNetNetwork(nn.Module):
    """diffusers' ``UNet2DModel`` on pixel-unshuffled images.

    The attention at the lowest resolution is normalised, too, which diffusers leaves out under scale-shift
    conditioning. Nothing else holds the size of what passes through the residual blocks: without it attention
    grew to one pixel alone, and gradients in bfloat16 without bound. Weights that were trained without it are
    loaded without it.
    """

    def __init__(self, spec: UNet, image_channels: int, extra_channels: int, context: int) -> None:
        super().__init__()
        self.unshuffle, self.multiple = spec.unshuffle, spec.multiple
        folded = spec.unshuffle**2
        embedding = 4 * spec.channels[0]
        below = len(spec.channels) - 1
        self.unet = _UNet(
            in_channels=(image_channels + extra_channels) * folded,
            out_channels=image_channels * folded,
            block_out_channels=spec.channels,
            layers_per_block=spec.layers,
            down_block_types=("DownBlock2D", *["AttnDownBlock2D"] * below),
            up_block_types=(*["AttnUpBlock2D"] * below, "UpBlock2D"),
            norm_num_groups=8,
            attn_norm_num_groups=8,
            resnet_time_scale_shift="scale_shift",
            class_embed_type="identity" if context else None,
        )
        for module in self.unet.modules():
            if isinstance(module, Attention):
                module.set_processor(_Attend())  # pyright: ignore[reportArgumentType]
        self.embed = perceptron(context, embedding, embedding) if context else None
        self.detail = _Detail(image_channels, extra_channels, spec.detail) if spec.detail else None

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Leave attention as the weights know it: see the class."""
        ours = [name for name in state_dict if name.startswith(prefix)]
        known = any(name.startswith(prefix + _MID_NORM) for name in ours)
        for each in cast(UNetMidBlock2D, self.unet.mid_block).attentions if ours else ():
            attention = cast(Attention, each)
            if known and attention.group_norm is None:
                width = attention.to_q.in_features
                attention.group_norm = nn.GroupNorm(8, width, device=attention.to_q.weight.device)
            elif not known:
                attention.group_norm = None
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def forward(self, x: Tensor, sigma: Tensor, context: Tensor) -> Tensor:
        """F(x, sigma, context), (N, C, H, W); see ``Backbone.build``."""
        height, width = x.shape[2:]
        folded = nn.functional.pixel_unshuffle(padded(x, self.multiple), self.unshuffle)
        labels = None if self.embed is None else self.embed(context)
        time = network_time(sigma)
        out = self.unet(folded, time, class_labels=labels, return_dict=False)[0]
        out = nn.functional.pixel_shuffle(out, self.unshuffle)[:, :, :height, :width]
        return out if self.detail is None else out + self.detail(out, x, time)


@final
class DiT(Backbone, frozen=True):
    """A diffusion transformer: attention over all patches, adaLN-Zero conditioning (Peebles & Xie 2023).

    A pass costs about depth * T * (12 width^2 + 2 T width) multiplications, T the number of patches.

    Attributes:
        patch: side of the pixel block that is a token; image sides must be multiples of it.
        width: channels of a token, a multiple of 8 and of ``heads``.
        depth: transformer blocks.
        heads: parts of the width that attend each by themselves.
    """

    kind: Literal["dit"] = "dit"
    patch: int = Field(default=4, ge=1, le=64)
    width: Width = 192
    depth: int = Field(default=6, ge=1, le=64)
    heads: int = Field(default=6, ge=1, le=64)

    @model_validator(mode="after")
    def _heads_divide(self) -> "DiT":
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        return self

    def check_size(self, height: int, width: int) -> None:
        """Refuse an image that is not made of whole patches, by a MechanismError."""
        if height % self.patch or width % self.patch:
            raise MechanismError(
                f"Backbone 'dit' needs image sides that are multiples of its patch, {self.patch}, got "
                f"{height}x{width}. Give a patch that divides both sides, or resize the images in the data."
            )

    def build(self, image_channels: int, extra_channels: int, context: int) -> "DiTNetwork":
        """The network for images, with ``extra_channels`` beside their own and a context vector."""
        return DiTNetwork(self, image_channels, extra_channels, context)


_Layer = TypeVar("_Layer", nn.Linear, nn.Conv2d)


def _zero(layer: _Layer) -> _Layer:
    """The layer with weights and bias 0, until it is trained."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class _Modulation(AdaLayerNormZero):
    """adaLN-Zero by an embedding of level and context, which diffusers' block passes on as its timestep."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        _zero(self.linear)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor | None = None,
        class_labels: Tensor | None = None,
        hidden_dtype: torch.dtype | None = None,
        emb: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        return super().forward(x, emb=timestep)


class _Block(BasicTransformerBlock):
    """diffusers' block as in DiT, modulated by an embedding; the identity until it is trained."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(
            width,
            heads,
            width // heads,
            activation_fn="gelu-approximate",
            attention_bias=True,
            norm_elementwise_affine=False,
            norm_type="ada_norm_zero",
            num_embeds_ada_norm=1,  # classes of a modulation that is replaced: ours come in the embedding
        )
        self.norm1 = _Modulation(width)


class DiTNetwork(nn.Module):
    """diffusers' transformer blocks on patches of pixels, with fixed two-dimensional sinusoidal positions.

    The last projection starts at zero, so that the untrained network is F = 0: under preconditioning ``edm``
    the exact denoiser of Gaussian pixels.
    """

    def __init__(self, spec: DiT, image_channels: int, extra_channels: int, context: int) -> None:
        super().__init__()
        self.patch, width = spec.patch, spec.width
        folded = spec.patch**2
        self.tokens = nn.Linear((image_channels + extra_channels) * folded, width)
        self.frequencies = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=1)
        self.level = TimestepEmbedding(256, width)
        self.embed = perceptron(context, width, width) if context else None
        self.blocks = nn.ModuleList(_Block(width, spec.heads) for _ in range(spec.depth))
        self.last_norm = AdaLayerNormContinuous(width, width, elementwise_affine=False, eps=1e-6)
        _zero(self.last_norm.linear)
        self.pixels = _zero(nn.Linear(width, image_channels * folded))

    def forward(self, x: Tensor, sigma: Tensor, context: Tensor) -> Tensor:
        """F(x, sigma, context), (N, C, H, W); see ``Backbone.build``."""
        folded = nn.functional.pixel_unshuffle(x, self.patch)
        rows, columns = folded.shape[2:]
        tokens = self.tokens(folded.flatten(2).mT)
        size, most = (rows, columns), max(rows, columns)
        tokens = tokens + get_2d_sincos_pos_embed(
            tokens.shape[2], size, base_size=most, device=x.device, output_type="pt"
        ).to(tokens.dtype)
        told = self.level(self.frequencies(network_time(sigma)).to(x.dtype))
        if self.embed is not None:
            told = told + self.embed(context)
        for block in self.blocks:
            tokens = block(tokens, timestep=told)
        out = self.pixels(self.last_norm(tokens, told)).mT.unflatten(2, (rows, columns))
        return nn.functional.pixel_shuffle(out, self.patch)
