"""Latent diffusion: a pretrained autoencoder in front, its pixel residual carried in the noise.

    z = s (enc(x) - m)         latents, s and m the autoencoder's scaling and shift factors
    u = (u_z, r)               u_z the noise of z, r = x - dec(z) what the autoencoder misses of x
    x = dec(generate(u_z)) + r

So the null is the latents' own, and r keeps what no latent holds: texture, small letters, whatever the
autoencoder never saw. Prior noise has r = 0. With ``residual: false`` nothing is kept, and the null is no
better than the autoencoder. The mean of AutoencoderKL's latents is taken, so that enc is a function.

Everything else, predictors and style codes too, works in the latents, as if they were the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, final

import torch
from pydantic import Field, model_validator
from torch import Tensor

from graphs.declared import Declared
from graphs.errors import CheckpointError, MechanismError
from graphs.variables import Image, Variable
from mechanisms.base import Abducted, Mechanism, Noise, Parents
from mechanisms.diffusion.classifier import OwnPredictor
from mechanisms.diffusion.diffusers_folder import (
    Config,
    FrozenNetwork,
    Words,
    inside,
    laid_out,
    licence_of,
    local_folder,
    read_network,
)
from mechanisms.rows import check_finite, distinct_rows
from mechanisms.training import Stage

__all__ = ["Autoencoder", "AutoencoderNetwork", "LatentDiffusion"]

# Pixels that are encoded or decoded in one call: what lies between is a hundred times as much.
_PIXELS_A_CALL = 128 * 128 * 4

_PREPARED = 2_048
"""Rows that the latents' mean and spread are taken of."""


class Autoencoder(Declared):
    """A pretrained autoencoder of diffusers', whose weights stay as they are; its folder says it all.

    Attributes:
        network: its class.
        config: its options, as its config.json has them.
        residual: whether noise carries what it misses of an image, which makes the null exact.
        origin: where its weights are from, in words.
        licence: of the weights, as their card names it.
        folder: where they are until the model is made; below the working directory in a file.
    """

    network: Literal["AutoencoderKL", "AutoencoderTiny"] = "AutoencoderKL"
    config: Config = Field(default={})
    residual: bool = True
    origin: Words = ""
    licence: Words = ""
    folder: Path | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_folder(cls, value: object) -> object:
        """A folder, or options with one, to which the folder adds what it says."""
        given = value
        if not (isinstance(given, dict) and isinstance(given.get("folder"), str | Path)):
            return given
        if "network" in given:
            return {**given, "folder": inside(given["folder"])}
        try:
            home = local_folder(inside(given["folder"]), "autoencoder")
            if not (home / "config.json").is_file() and (home / "vae" / "config.json").is_file():
                home = home / "vae"
            network, config = read_network(home, ("AutoencoderKL", "AutoencoderTiny"))
        except CheckpointError as error:
            raise ValueError(str(error).removesuffix(".")) from error
        told = {"origin": home.resolve().name, "licence": licence_of(home)}
        return told | given | {"network": network, "config": config, "folder": home}

    @model_validator(mode="after")
    def _supported(self) -> Autoencoder:
        unknown = [each for each in ("latents_mean", "latents_std") if self.config.get(each)]
        if unknown:
            raise ValueError(
                f"an autoencoder with {unknown[0]} is not supported: its latents are scaled by channel"
            )
        return self


class AutoencoderNetwork(FrozenNetwork):
    """Images to scaled latents and back.

    Attributes:
        latents: channels of the latents.
        factor: by how much they are smaller than the image.
    """

    def __init__(self, spec: Autoencoder, image: Image) -> None:
        super().__init__(
            laid_out(spec.network, spec.config),
            f"The weights of its autoencoder, {spec.network} {spec.origin}, do not come with the model. Give "
            "`autoencoder: {folder: FOLDER}`, one that diffusers saved.",
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
        self.scaling, self.shift = float(config.scaling_factor), float(config.shift_factor or 0.0)
        if image.height % self.factor or image.width % self.factor:
            raise MechanismError(
                f"The autoencoder needs image sides that are multiples of {self.factor}, got "
                f"{image.height}x{image.width}. Resize the images in the data."
            )
        self._tiny, self._at_once = tiny, max(1, _PIXELS_A_CALL // (image.height * image.width))

    @torch.no_grad()
    def encode(self, value: Tensor) -> Tensor:
        """Latents of images (N, C, H, W) in [-1, 1]: (N, latents, H / factor, W / factor)."""
        self.check_weights()
        with torch.autocast(value.device.type, enabled=False):  # in training as in questions
            parts = [self._encoded(part.float()) for part in value.split(self._at_once)]
        return (torch.cat(parts) - self.shift) * self.scaling

    @torch.no_grad()
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


@final
class LatentDiffusion(Mechanism):
    """An image node whose diffusion is of latents; see the module.

    Attributes:
        autoencoder: between images and latents.
        inner: the diffusion mechanism, bound to the latents as its variable.
    """

    variable: Image
    abduction = "approximate"

    def __init__(self, spec: Any, variable: Image, parents: Mapping[str, Variable]) -> None:
        super().__init__(spec, variable, parents)
        self.autoencoder = AutoencoderNetwork(spec.autoencoder, variable)
        self._residual = spec.autoencoder.residual
        factor = self.autoencoder.factor
        latents = Image(self.autoencoder.latents, variable.height // factor, variable.width // factor)
        self.inner = spec.in_pixels(latents, parents)
        if isinstance(self.inner.predictor, OwnPredictor):  # which reads pixels
            self.inner.predictor.decode = self.autoencoder.decode_tracked
        self.abduction = "none" if self.inner.abduction == "none" else "approximate"
        self.deterministic = self.inner.deterministic
        self.chunk_rows = max(1, _PIXELS_A_CALL // (variable.height * variable.width))

    def sample_noise(self, n: int, *, generator: torch.Generator) -> Noise:
        """That of the latents, and no residual."""
        leaves = dict(self.inner.sample_noise(n, generator=generator))
        if self._residual:
            leaves["pixel_residual"] = torch.zeros(n, *self.variable.shape, device=generator.device)
        return Noise(n, leaves)

    @torch.no_grad()
    def generate(self, parents: Parents, noise: Noise) -> Tensor:
        """The image under these parents, with what the autoencoder missed of the factual one."""
        image = self.autoencoder.decode(self.inner.generate(parents, noise))
        check_finite(image, "image", parents)
        return image + noise["pixel_residual"] if self._residual else image

    @torch.no_grad()
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
        """The code's, in latents."""
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
