"""Latent diffusion: an autoencoder in front, its pixel residual carried in the noise.

    z = s (enc(x) - m)         latents, s and m the autoencoder's scaling and shift factors
    u = (u_z, r)               u_z the noise of z, r = x - dec(z) what the autoencoder misses of x
    x = dec(generate(u_z)) + r

So the null is the latents' own, and r keeps what no latent holds: texture, small letters, whatever the
autoencoder never saw. Prior noise has r = 0. With ``residual: false`` nothing is kept, and the null is no
better than the autoencoder. The mean of AutoencoderKL's latents is taken, so that enc is a function.

A pretrained autoencoder stays as it is. One that is trained here learns the images of the fit before the
denoiser does: the mean absolute and squared error of a number, and ``kl`` times the divergence of the latents
from N(0, I) over how many numbers an image has. That is the loss of Rombach et al. (2022) without perceptual
and adversarial terms, but for the square: the absolute error alone stays at the median image for long, where
most of an image is background. Then s and m are such that latents have mean 0 and standard deviation 1.

Everything else, predictors and style codes too, works in the latents, as if they were the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, final

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from graphs.declared import Declared
from graphs.errors import CheckpointError, MechanismError
from graphs.variables import Image, Variable
from mechanisms.base import Abducted, Mechanism, Noise, Parents
from mechanisms.diffusion import diffusers_folder as folders
from mechanisms.diffusion.classifier import OwnPredictor
from mechanisms.diffusion.solvers import standard_normal
from mechanisms.networks import answering
from mechanisms.rows import check_finite, distinct_rows
from mechanisms.training import Stage, Training, fills, holds_none_out

__all__ = ["Autoencoder", "AutoencoderNetwork", "LatentDiffusion"]

# Pixels that are encoded or decoded in one call: what lies between is a hundred times as much.
_PIXELS_A_CALL = 128 * 128 * 4

_TRAINING = Training(epochs=10, batch_size=64, learning_rate=1e-3)
"""Of an autoencoder, where nothing else is said."""

_PREPARED = 2_048
"""Rows that the latents' mean and spread are taken of."""


class Autoencoder(Declared):
    """An autoencoder of diffusers': pretrained, and its folder says it all, or trained with the node.

    Attributes:
        network: its class.
        config: its options, as its config.json has them.
        residual: whether noise carries what it misses of an image, which makes the null exact.
        origin: where its weights are from, in words.
        licence: of the weights, as their card names it.
        folder: where they are until the model is made; below the working directory in a file.
        training: settings of the stage that trains it, an AutoencoderKL, on the rows of the node's own fit
            and to the last step: ``validation`` and ``patience`` are the node's own, and refused here;
            ``{}`` for the usual ones. What ``config`` leaves out then follows the image. None for pretrained
            weights.
        kl: weight of the divergence in training.
    """

    network: Literal["AutoencoderKL", "AutoencoderTiny"] = "AutoencoderKL"
    config: folders.Config = Field(default={})
    residual: bool = True
    origin: folders.Words = ""
    licence: folders.Words = ""
    folder: Path | None = None
    training: Annotated[Training | None, fills(_TRAINING), holds_none_out("an autoencoder")] = None
    kl: float = Field(default=1e-6, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _from_folder(cls, value: object) -> object:
        """A folder, or options with one, to which the folder adds what it says."""
        given = value
        if not (isinstance(given, dict) and isinstance(given.get("folder"), str | Path)):
            return given
        if "network" in given:
            return {**given, "folder": folders.inside(given["folder"])}
        try:
            home = folders.local_folder(folders.inside(given["folder"]), "autoencoder")
            if not (home / "config.json").is_file() and (home / "vae" / "config.json").is_file():
                home = home / "vae"
            network, config = folders.read_network(home, ("AutoencoderKL", "AutoencoderTiny"))
        except CheckpointError as error:
            raise ValueError(str(error).removesuffix(".")) from error
        if "config" in given:
            raise ValueError("the autoencoder's folder says its config: leave `config` out")
        told = {"origin": home.resolve().name, "licence": folders.licence_of(home)}
        return told | given | {"network": network, "config": config, "folder": home}

    @model_validator(mode="after")
    def _supported(self) -> Autoencoder:
        unknown = [each for each in ("latents_mean", "latents_std") if self.config.get(each)]
        if unknown:
            raise ValueError(
                f"an autoencoder with {unknown[0]} is not supported: its latents are scaled by channel"
            )
        if self.training and (self.folder or self.network != "AutoencoderKL"):
            told = "one from a folder" if self.folder else self.network
            raise ValueError(f"an autoencoder that is trained is a new AutoencoderKL, not {told}")
        return self

    def settled(self, image: Image) -> Autoencoder:
        """With the whole config, where it is trained: what it leaves out follows the image.

        >>> Autoencoder(training={}).settled(Image(3, 64, 64)).config["block_out_channels"]
        [32, 64, 64]
        """
        if self.training is None:
            return self
        usual = [32, 64, 64] if min(image.height, image.width) >= 64 else [16, 32]
        blocks = self.config.get("block_out_channels", usual)
        count = len(blocks) if isinstance(blocks, list) else 1
        config = {
            "in_channels": image.channels, "out_channels": image.channels, "latent_channels": 4,
            "block_out_channels": blocks, "layers_per_block": 1, "norm_num_groups": 8,
            "down_block_types": ["DownEncoderBlock2D"] * count,
            "up_block_types": ["UpDecoderBlock2D"] * count,
            "mid_block_add_attention": False, "sample_size": [image.height, image.width],
        }  # fmt: skip
        return self.model_copy(update={"config": config | self.config})


class AutoencoderNetwork(folders.FrozenNetwork):
    """Images to latents and back, of ``latents`` channels and ``factor`` times smaller.

    They are less ``shift`` and times ``scaling``.
    """

    scaling: Tensor | float
    shift: Tensor | float

    def __init__(self, spec: Autoencoder, image: Image) -> None:
        trained = spec.training is not None
        super().__init__(
            folders.laid_out(spec.network, spec.config, "cpu" if trained else "meta"),
            f"The weights of its autoencoder, {spec.network} {spec.origin}, do not come with the model. Give "
            "`autoencoder: {folder: FOLDER}`, one that diffusers saved.",
            waits=not trained,
        )
        config: Any = getattr(self.model, "config")  # noqa: B009
        if (config.in_channels, config.out_channels) != (image.channels,) * 2:
            raise MechanismError(
                f"The autoencoder takes {config.in_channels} channels and gives {config.out_channels}, but "
                f"the variable is {image.describe()}."
            )
        tiny = spec.network == "AutoencoderTiny"
        stages = config.encoder_block_out_channels if tiny else config.block_out_channels
        self.latents, self.factor = int(config.latent_channels), 2 ** (len(stages) - 1)
        if trained:
            self.register_buffer("scaling", torch.tensor(1.0, dtype=torch.float32))
            self.register_buffer("shift", torch.tensor(0.0, dtype=torch.float32))
        else:
            self.scaling, self.shift = float(config.scaling_factor), float(config.shift_factor or 0.0)
        if image.height % self.factor or image.width % self.factor:
            raise MechanismError(
                f"The autoencoder needs image sides that are multiples of {self.factor}, got "
                f"{image.height}x{image.width}. Resize the images in the data."
            )
        self._tiny, self._at_once = tiny, max(1, _PIXELS_A_CALL // (image.height * image.width))

    @answering()
    def encode(self, value: Tensor) -> Tensor:
        """Latents of images (N, C, H, W) in [-1, 1]: (N, latents, H / factor, W / factor)."""
        self.check_weights()
        with torch.autocast(value.device.type, enabled=False):  # in training as in questions
            parts = [self._encoded(part.float()) for part in value.split(self._at_once)]
        return (torch.cat(parts) - self.shift) * self.scaling

    @answering()
    def decode(self, latents: Tensor) -> Tensor:
        """Images of scaled latents, (N, C, H, W), about in [-1, 1]."""
        return self.decode_tracked(latents)

    def decode_tracked(self, latents: Tensor) -> Tensor:
        """The same, differentiable in the latents."""
        self.check_weights()
        model: Any = self.model
        unscaled = latents / self.scaling + self.shift
        return torch.cat([model.decode(part).sample for part in unscaled.split(self._at_once)])

    def _encoded(self, part: Tensor) -> Tensor:
        model: Any = self.model
        found = model.encode(part)
        return found.latents if self._tiny else found.latent_dist.mode()


class AutoencoderTraining(nn.Module):
    """The training of an autoencoder, a stage of its own."""

    def __init__(self, autoencoder: AutoencoderNetwork, kl: float) -> None:
        super().__init__()
        self.autoencoder, self.kl = autoencoder, kl

    def loss(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Tensor:
        """(N,) what drawn latents miss of their images, and how far their laws are from the normal one."""
        model: Any = self.autoencoder.model
        law = model.encode(value).latent_dist
        drawn = standard_normal(len(value), tuple(law.mean.shape[1:]), generator=generator).to(law.mean)
        made = model.decode(law.mean + law.std * drawn).sample
        error = (made - value).flatten(1)
        missed = (error.abs() + error.square()).mean(1)
        far = 0.5 * (law.mean**2 + law.var - 1 - law.logvar).flatten(1).sum(1) / value[0].numel()
        return missed + self.kl * far

    @answering()
    def finish(self, value: Tensor, parents: Parents) -> None:
        """Take shift and scaling factor from the latents of rows."""
        network = self.autoencoder
        assert isinstance(network.scaling, Tensor) and isinstance(network.shift, Tensor)
        network.scaling.fill_(1.0)
        network.shift.fill_(0.0)
        latents = network.encode(value).double()
        std = latents.std(correction=0).item()
        if not 1e-6 < std < 1e6:
            raise MechanismError(
                f"The autoencoder's latents have a standard deviation of {std:.3g}: its training failed. "
                "Train it longer, at another learning rate, or with a smaller `kl`."
            )
        network.shift.fill_(latents.mean().item())
        network.scaling.fill_(1 / std)


@final
class LatentDiffusion(Mechanism):
    """An image node whose diffusion is of latents; see the module.

    Attributes:
        autoencoder: between images and latents.
        inner: the diffusion mechanism, bound to the latents as its variable.
    """

    spec: Any  # DiffusionOptions, whose module imports this one
    variable: Image
    abduction = "approximate"

    def __init__(self, spec: Any, variable: Image, parents: Mapping[str, Variable]) -> None:
        spec = spec.model_copy(update={"autoencoder": spec.autoencoder.settled(variable)})
        super().__init__(spec, variable, parents)
        self.autoencoder = AutoencoderNetwork(spec.autoencoder, variable)
        self._residual = spec.autoencoder.residual
        factor = self.autoencoder.factor
        size = (self.autoencoder.latents, variable.height // factor, variable.width // factor)
        # As it is: of many channels and few columns nobody has mistaken the order.
        self.inner = spec.in_pixels(Image.model_construct(shape=size), parents)
        if isinstance(self.inner.predictor, OwnPredictor):  # which reads pixels
            self.inner.predictor.decode = self.autoencoder.decode_tracked
        self.abduction = "none" if self.inner.abduction == "none" else "approximate"
        self.deterministic = self.inner.deterministic
        self.chunk_rows = max(1, _PIXELS_A_CALL // (variable.height * variable.width))

    def sample_noise(self, n: int, *, generator: torch.Generator) -> Noise:
        """That of the latents, and no residual."""
        leaves = dict(self.inner.sample_noise(n, generator=generator))
        if self._residual:
            leaves["pixel_residual"] = leaves["x_T"].new_zeros(n, *self.variable.shape)
        return Noise(n, leaves)

    @property
    def large_networks(self) -> tuple[nn.Module, ...]:
        """What denoises the latents. The autoencoder stays in float32."""
        return self.inner.large_networks

    @answering()
    def generate(self, parents: Parents, noise: Noise) -> Tensor:
        """The image under these parents, with what the autoencoder missed of the factual one."""
        image = self.autoencoder.decode(self.inner.generate(parents, noise))
        check_finite(image, "image", parents)
        return image + noise["pixel_residual"] if self._residual else image

    @answering()
    def abduct(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Abducted:
        """Encode, and invert the latents."""
        first, inverse = distinct_rows([value])
        latents = self.autoencoder.encode(value[first])
        abducted = self.inner.abduct(latents[inverse], parents, generator=generator)
        if not self._residual:
            return abducted
        missed = value[first] - self.autoencoder.decode(latents)
        noise = Noise(len(value), {**abducted.noise, "pixel_residual": missed[inverse]})
        return replace(abducted, noise=noise)

    def prepare(self, value: Tensor, parents: Parents) -> None:
        """Take the latents' statistics, of some thousand rows, and the parents' standardising of all."""
        some = torch.linspace(0, len(value) - 1, min(len(value), _PREPARED), device=value.device).long()
        self.inner.prepare(self.autoencoder.encode(value[some]), parents)

    def loss(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Tensor:
        """(N,) the loss in latents; images are encoded as they come."""
        return self.inner.loss(self.autoencoder.encode(value), parents, generator=generator)

    def validate(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Mapping[str, float]:
        """What the latents tell of each cause, and what the autoencoder misses of a pixel, on 0..255."""
        latents = self.autoencoder.encode(value)
        missed = (self.autoencoder.decode(latents) - value).abs().mean().item()
        figures = self.inner.validate(latents, parents, generator=generator)
        return {**figures, "autoencoder L1": 127.5 * missed}

    def first_stage(self) -> Stage | None:
        """The autoencoder's, where it is trained, or the code's, in latents."""
        own = self.spec.autoencoder
        if own.training is not None:
            training = AutoencoderTraining(self.autoencoder, own.kl).to(self.device)

            def settle(value: Tensor, parents: Parents) -> None:
                training.finish(value, parents)
                for part in filter(None, (self.inner.denoiser, self.inner.predictor)):
                    part.pixel_mean.fill_(0.0)  # of latents as they are now
                    part.pixel_std.fill_(1.0)

            return Stage(
                "autoencoder", self.autoencoder, training, own.training, training.loss, lambda _: None, settle
            )
        stage = self.inner.first_stage()
        if stage is None:
            return None
        encode, loss, finish = self.autoencoder.encode, stage.loss, stage.finish

        def in_latents(value: Tensor, parents: Parents, *, generator: torch.Generator) -> Tensor:
            return loss(encode(value), parents, generator=generator)

        return replace(stage, loss=in_latents, finish=lambda value, parents: finish(encode(value), parents))

    def log_prob_of_parents(self, value: Tensor, parents: Parents) -> Tensor | None:
        """log q(pa | x) of the anticausal predictor, which reads latents, or of a classifier of the image."""
        if self.inner.predictor is None:  # encoding may take long
            return None
        own = self.inner.predictor
        if isinstance(own, OwnPredictor) and len(own.names) == len(self.parents):
            with torch.no_grad():
                return own.of_pixels().joint(value, parents, 0.0, self.chunk_rows or len(value))
        return self.inner.log_prob_of_parents(self.autoencoder.encode(value), parents)

    def read(self, value: Tensor) -> Mapping[str, Tensor]:
        """What the anticausal predictor reads in the latents, a classifier in the image; nothing without."""
        if self.inner.predictor is None:
            return {}
        if isinstance(self.inner.predictor, OwnPredictor):
            with torch.no_grad():
                return self.inner.predictor.of_pixels().read(value, 0.0)
        return self.inner.read(self.autoencoder.encode(value))
