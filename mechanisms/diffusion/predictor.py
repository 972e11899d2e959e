"""Anticausal predictors q(pa_k | x_t, pa_<k): the noise-conditional classifiers of classifier guidance.

They go from a noised image back to its causes, one a parent, by heads on one encoder of the image.
The sum over parents of log q is log q(pa | x_t) by the chain rule, in declared order; treating parents as
independent given x_t would be exact only by luck. Predictors train on noised images at log-uniform levels
over the range they guide on, a third of the rows at the lowest one, where clean images are read; they share
nothing with the denoiser.

Categorical parents have logits. Continuous ones have a mean and a log variance of the standardised value; for
gradients in the image the variance counts as a constant, so that guidance moves the mean and never buys
likelihood by inflating its own uncertainty.
"""

import math
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Literal, final

import torch
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.resnet import ResnetBlock2D
from pydantic import Field
from torch import Tensor, nn

from graphs.errors import warn
from graphs.variables import Categorical, Image, Integer, Variable, table_variables
from mechanisms.base import Parents
from mechanisms.conditioning import Conditioning
from mechanisms.diffusion.backbones import Width, check_cell
from mechanisms.diffusion.denoiser import stratified
from mechanisms.encoders import CLEAN, Encoder, OfPixels, network_time, padded
from mechanisms.networks import perceptron
from mechanisms.training import OwnLoss

__all__ = ["AnticausalPredictor", "ResNet", "ResNetNetwork", "guided_levels", "recovery"]

_HIDDEN = 128

# Rows on which the predictor trains at the lowest level, where corrections, strengths by row and abduction
# read it: after an epoch without them what it reads of a clean image's brightness errs 1.5 times as much.
_CLEAN_SHARE = 1 / 3


def guided_levels(sigma: Sequence[float], n: int, *, generator: torch.Generator) -> Tensor:
    """The lowest level for a share of the rows, log-uniform over the solver's range for others, (n,)."""
    uniform = stratified(n, generator=generator)
    # Shuffled, so that a row's level here says nothing of its level in the denoiser's loss.
    uniform = uniform[torch.randperm(n, generator=generator, device=generator.device)]
    above = (uniform - _CLEAN_SHARE).clamp(min=0) / (1 - _CLEAN_SHARE)
    return sigma[0] * (sigma[-1] / sigma[0]) ** above


@final
class ResNet(Encoder, frozen=True):
    """Residual blocks conditioned on the level, from diffusers.

    Attributes:
        channels: width at each resolution, from the top; multiples of 8.
        layers: residual blocks a resolution.
        unshuffle: side of the pixel block folded into channels.
    """

    kind: Literal["resnet"] = "resnet"
    channels: tuple[Width, ...] = Field(default=(48, 96, 128), min_length=1, max_length=8)
    layers: int = Field(default=1, ge=1, le=8)
    unshuffle: int = Field(default=2, ge=1, le=16)

    def check_size(self, height: int, width: int) -> None:
        """Refuse, by a MechanismError, 8 channels of one cell; sides that do not divide are padded inside."""
        if self.channels[-1] == 8:
            check_cell("encoder 'resnet'", max(height, width), self.unshuffle * 2 ** (len(self.channels) - 1))

    @property
    def features(self) -> int:
        """Width of the encoding."""
        return 2 * self.channels[-1]

    def build(self, image_channels: int) -> "ResNetNetwork":
        """The network."""
        return ResNetNetwork(self, image_channels)


class ResNetNetwork(nn.Module):
    """Noised image and level -> feature vector, by diffusers' residual blocks, then mean and maximum.

    Without the last normalisation of Dhariwal and Nichol (2021): so categories are told after fewer steps of
    training.
    """

    def __init__(self, spec: ResNet, image_channels: int) -> None:
        super().__init__()
        self.unshuffle = spec.unshuffle
        self.least = spec.unshuffle * 2 ** (len(spec.channels) - 1)  # which leaves a pixel at the end
        embedding = 4 * spec.channels[0]
        self.time = Timesteps(spec.channels[0], flip_sin_to_cos=True, downscale_freq_shift=0)
        self.embed = TimestepEmbedding(spec.channels[0], embedding)
        self.stem = nn.Conv2d(image_channels * spec.unshuffle**2, spec.channels[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        width = spec.channels[0]
        for depth, channels in enumerate(spec.channels):
            for layer in range(spec.layers):
                self.blocks.append(
                    ResnetBlock2D(
                        in_channels=width,
                        out_channels=channels,
                        temb_channels=embedding,
                        groups=8,
                        time_embedding_norm="scale_shift",
                        down=depth > 0 and layer == 0,
                    )
                )
                width = channels

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Features (N, width) of scaled images x (N, C, H, W) at levels sigma (N,)."""
        time = self.embed(self.time(network_time(sigma)).to(x.dtype))
        multiple = self.unshuffle if min(x.shape[2:]) >= self.least else self.least
        h = self.stem(nn.functional.pixel_unshuffle(padded(x, multiple), self.unshuffle))
        for block in self.blocks:
            h = block(h, time)
        return torch.cat([nn.functional.silu(h).mean((2, 3)), h.amax((2, 3))], 1)


class _ByParent(nn.ModuleDict):
    """Modules by the names of parents, which may be those of a module's attributes, as ``type``."""

    def __setitem__(self, key: str, module: nn.Module) -> None:
        self._modules[key] = module

    def train(self, mode: bool = True) -> "_ByParent":
        for module in self.values():
            module.train(mode)
        return self


class AnticausalPredictor(OfPixels, OwnLoss):
    """log q(pa | x_bar at level sigma), of tabular parents one by one; image parents are not predicted.

    ``lowest`` is the lowest level that it was trained on, where clean images are read, whatever levels a
    solver walks over later.
    """

    lowest: Tensor | float
    filled_in = ("lowest",)  #: of its state, what models lack that were saved before it had one

    def __init__(
        self, image: Image, parents: Mapping[str, Variable], spec: Encoder, lowest: float = CLEAN
    ) -> None:
        super().__init__()
        self.register_buffer("lowest", torch.tensor(lowest, dtype=torch.float32))
        self.variables = table_variables(parents)
        self.names = tuple(self.variables)
        self.conditioning = Conditioning(self.variables, dtype=torch.float32)
        self.encoder = spec.build(image.channels)
        self.heads = _ByParent()
        for name, part in self.conditioning.slices.items():
            outputs = (part.stop - part.start) * (1 if isinstance(self.variables[name], Categorical) else 2)
            # The columns before this parent's are those of the parents it is conditioned on.
            self.heads[name] = perceptron(spec.features + part.start, _HIDDEN, outputs)

    def prepare(self, value: Tensor, parents: Parents, lowest: float = CLEAN) -> None:
        """Take the pixel statistics and the parents' standardising from all training rows."""
        self.measure_pixels(value)
        self.conditioning.prepare(parents)
        if isinstance(self.lowest, Tensor):
            self.lowest.fill_(lowest)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        if isinstance(self.lowest, Tensor):  # that of the solver it was saved with
            state_dict.setdefault(f"{prefix}lowest", self.lowest.clone())
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def scales(self) -> dict[str, Tensor]:
        """The standard deviation of each parent's columns over the training rows, (width,) by name."""
        return {name: self.conditioning.std[part] for name, part in self.conditioning.slices.items()}

    def encode(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Features (N, width) of x_bar (N, C, H, W) at one level or (N,) levels."""
        levels = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x))
        spread = (levels**2 + self.pixel_std**2).sqrt().view(-1, 1, 1, 1)
        return self.encoder((x - self.pixel_mean) / spread, levels).to(x.dtype)

    def features(self, value: Tensor, sigma: float, rows: int) -> Tensor:
        """``encode`` at one level, so many rows at a time: (N, features)."""
        return torch.cat([self.encode(part, sigma) for part in value.split(rows)])

    def log_probs(self, features: Tensor, parents: Parents) -> dict[str, Tensor]:
        """log q(pa_k | x_t, pa_<k) of each parent, (N,) by name, at values (N, *event).

        Differentiable in ``features``, (N, width), of ``encode``; densities are of the standardised value.
        """
        columns = self.conditioning(parents).to(features.dtype)
        return {name: self._log_prob(name, features, columns, parents) for name in self.names}

    def joint(self, value: Tensor, parents: Parents, sigma: float, rows: int) -> Tensor:
        """The sum of ``log_probs``, (K N,) float64, of N images at one level, under K N proposals."""
        features = self.features(value, sigma, rows)
        proposals = len(next(iter(parents.values()))) // len(value)
        log_probs = self.log_probs(features.repeat(proposals, 1), parents)
        return torch.stack(list(log_probs.values())).sum(0).double()

    def most_likely(self, features: Tensor, parents: Parents, name: str) -> Tensor:
        """The mode of q(pa_k | x_t, pa_<k), (N, *event) in canonical encoding; ``parents`` holds pa_<k."""
        columns = self.conditioning(parents).to(features.dtype)
        out, part = self._head(name, features, columns), self.conditioning.slices[name]
        if isinstance(self.variables[name], Categorical):
            return out.argmax(1)
        # In float64: float32 would round a number of a large offset, such as 10,000 mm, by its own spread.
        mean = out.chunk(2, 1)[0].double() * self.conditioning.std[part] + self.conditioning.mean[part]
        return mean.view(len(features), *self.variables[name].event_shape)

    def read(self, x: Tensor, sigma: float) -> dict[str, Tensor]:
        """The mode of each parent given the modes of those before it, (N, *event) by name, of images alone.

        Images are (N, C, H, W) in [-1, 1], at the lowest level it was trained on, where they are clean. Modes
        are in canonical encoding and declared order; whole numbers are rounded.
        """
        features, found = self.encode(x, sigma), dict[str, Tensor]()
        for name, variable in self.variables.items():  # their means, until they are read
            width, part = prod(variable.event_shape), self.conditioning.slices[name]
            mean = self.conditioning.mean[part][:width].to(getattr(torch, variable.dtype))
            found[name] = mean.repeat(len(x), 1).view(len(x), *variable.event_shape)
        for name, variable in self.variables.items():
            mode = self.most_likely(features, found, name)
            found[name] = mode.round() if isinstance(variable, Integer) else mode
        return found

    def recovered(self, features: Tensor, parents: Parents) -> dict[str, float]:
        """How well each cause is recovered from held-out images, beside what guessing achieves."""
        figures = dict[str, float]()
        for name in self.names:
            guess, truth = self.most_likely(features, parents, name), parents[name]
            figures |= recovery(name, guess, truth, categorical=isinstance(self.variables[name], Categorical))
        return figures

    def _head(self, name: str, features: Tensor, columns: Tensor) -> Tensor:
        before = columns[:, : self.conditioning.slices[name].start]
        return self.heads[name](torch.cat([features, before], 1)).to(features.dtype)

    def _log_prob(self, name: str, features: Tensor, columns: Tensor, parents: Parents) -> Tensor:
        out = self._head(name, features, columns)
        if isinstance(self.variables[name], Categorical):
            return out.log_softmax(1).gather(1, parents[name].view(-1, 1))[:, 0]
        mean, log_variance = out.chunk(2, 1)
        log_variance = log_variance.clamp(-10, 10)
        if not self.training:
            log_variance = log_variance.detach()
        target = columns[:, self.conditioning.slices[name]]
        density = -0.5 * ((target - mean) ** 2 / log_variance.exp() + log_variance + math.log(2 * math.pi))
        return density.sum(1)


_ENOUGH_ROWS = 100
"""Fewer held-out rows than this tell nothing."""


def recovery(name: str, guess: Tensor, truth: Tensor, *, categorical: bool) -> dict[str, float]:
    """How well a cause is recovered from the image; warns where it is no better than guessing.

    Diff-SCM's second assumption (Sanchez & Tsaftaris 2022, section 3), which guidance rests on: the image
    holds enough to recover its causes. Held-out guesses and truths, (N, *event), say whether it does. Figures
    are accuracy and the share of the commonest category, else the mean absolute error and that of guessing
    the median.

    Returns:
        "<name> accuracy" or "<name> error", and "<name> chance".
    """
    if categorical:
        figure, chance = (guess == truth).double().mean().item(), truth.bincount().max().item() / len(truth)
        # Within two standard errors of guessing.
        useless = figure < chance + 2 * (chance * (1 - chance) / len(truth)) ** 0.5
    else:
        figure = (guess - truth).abs().mean().item()
        chance = (truth - truth.median(0).values).abs().mean().item()
        useless = figure > 0.95 * chance
    what = "accuracy" if categorical else "error"
    if useless and len(truth) >= _ENOUGH_ROWS:
        warn(
            f"Parent {name!r} is not recovered from the image: {what} {figure:.3g} on held-out rows, where "
            f"guessing gives {chance:.3g}. Guidance towards it will do little: train longer, or doubt it."
        )
    return {f"{name} {what}": figure, f"{name} chance": chance}
