"""Encoders: networks from an image to a vector of features.

    predictor of an image node          noised image and level -> features -> its causes
    code of an image node               image and causes -> features -> style code
    an image parent of a table node     image -> features, columns of the context (``conditioning.py``)

The first sees images at every level, the last two clean ones, at the level ``CLEAN``.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Literal, final

import torch
from pydantic import Field
from torch import Tensor, nn

from graphs.declared import Declared
from graphs.errors import MechanismError
from graphs.variables import Image, Variable, image_variables
from mechanisms.networks import single_precision
from mechanisms.options import TrainedSpec
from mechanisms.registry import Registry

__all__ = [
    "AnyEncoder",
    "CLEAN",
    "ENCODERS",
    "EncodedImage",
    "Encoder",
    "EncodingSpec",
    "OfPixels",
    "Strided",
    "StridedNetwork",
    "network_time",
    "padded",
]

CLEAN = 0.02
"""The level that an encoder is told of an image without noise."""

# The levels any image model sees; log sigma over this range becomes a diffusers "timestep" in 0..1000.
_LOG_SIGMA_RANGE = math.log(0.002), math.log(80.0)

_PIXELS_A_CALL = 2**20
"""Pixels that are encoded at once where no gradient is asked for."""

_MOST_HALVINGS = 8


def network_time(sigma: Tensor) -> Tensor:
    """Levels sigma (N,) as timesteps for diffusers' sinusoidal embedding, about 0..1000, float32."""
    low, high = _LOG_SIGMA_RANGE
    return (1000 * (sigma.log() - low) / (high - low)).float()


def padded(x: Tensor, multiple: int) -> Tensor:
    """Images (N, C, H, W), their last row and column repeated until both sides are multiples of a number."""
    below, right = (-side % multiple for side in x.shape[2:])
    return nn.functional.pad(x, (0, right, 0, below), mode="replicate") if below or right else x


class Encoder(Declared, ABC, frozen=True):  # pyright: ignore[reportGeneralTypeIssues]
    """The options of an encoder's network; plug-ins come from entry points of ``causalgen.encoders``."""

    kind: str

    @abstractmethod
    def check_size(self, height: int, width: int) -> None:
        """Refuse images of a size that the network cannot take, by a MechanismError."""

    @property
    @abstractmethod
    def features(self) -> int:
        """Width of the encoding."""

    @abstractmethod
    def build(self, image_channels: int) -> nn.Module:
        """The network, whose call with scaled images (N, C, H, W) and sigma (N,) gives (N, features)."""


ENCODERS: Registry[type[Encoder]] = Registry(
    "encoder",
    "causalgen.encoders",
    Encoder,
    {
        "classifier": "mechanisms.diffusion.classifier:Classifier",
        "resnet": "mechanisms.diffusion.predictor:ResNet",
        "strided": "mechanisms.encoders:Strided",
    },
    default="resnet",
)
AnyEncoder = Annotated[Encoder, ENCODERS]
"""A field that holds any encoder, told by its ``kind``; ``resnet`` where it names none."""


@final
class Strided(Encoder, frozen=True):
    """Strided convolutions, whose last map is read cell by cell: where things are stays told.

    Attributes:
        channels: width after each convolution, which halves the sides.
        unshuffle: side of the pixel block folded into channels.
        cells: side of the grid of cells that the last map is averaged over.
        width: of the encoding.
    """

    kind: Literal["strided"] = "strided"
    channels: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(16, 32), min_length=1, max_length=_MOST_HALVINGS
    )
    unshuffle: int = Field(default=2, ge=1, le=16)
    cells: int = Field(default=4, ge=1, le=16)
    width: int = Field(default=64, ge=1)

    @classmethod
    def for_size(cls, height: int, width: int) -> "Strided":
        """The default for images of a size: their longer side is halved down to at most 4 cells.

        >>> Strided.for_size(64, 64).channels
        (16, 32, 64)
        """
        side = max(height, width)
        unshuffle = 2 if side >= 16 and height % 2 == width % 2 == 0 else 1
        halvings = min(max((side // unshuffle - 1).bit_length() - 2, 1), _MOST_HALVINGS)
        return cls(channels=tuple(min(16 * 2**depth, 64) for depth in range(halvings)), unshuffle=unshuffle)

    @property
    def features(self) -> int:
        """Width of the encoding."""
        return self.width

    def check_size(self, height: int, width: int) -> None:
        """Refuse an image whose sides are no multiples of ``unshuffle``, by a MechanismError."""
        if height % self.unshuffle or width % self.unshuffle:
            raise MechanismError(
                f"The encoder 'strided' needs image sides that are multiples of {self.unshuffle} (its "
                f"unshuffle), got {height}x{width}. Give it unshuffle: 1."
            )

    def build(self, image_channels: int) -> "StridedNetwork":
        """The network."""
        return StridedNetwork(self, image_channels)


class StridedNetwork(nn.Module):
    """Scaled image and level -> feature vector."""

    def __init__(self, spec: Strided, image_channels: int) -> None:
        super().__init__()
        self.unshuffle, self.cells = spec.unshuffle, spec.cells
        # One channel more, the level.
        widths = (image_channels * spec.unshuffle**2 + 1, *spec.channels)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1) for before, after in pairwise(widths)
        )
        self.last = nn.Linear(spec.channels[-1] * spec.cells**2, spec.width)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Features (N, width) of scaled images x (N, C, H, W) at levels sigma (N,)."""
        h = nn.functional.pixel_unshuffle(x, self.unshuffle)
        level = (network_time(sigma) / 1000).to(h.dtype).view(-1, 1, 1, 1)
        h = torch.cat([h, level.expand(-1, 1, *h.shape[2:])], 1)
        for convolution in self.convolutions:
            h = nn.functional.silu(convolution(h))
        cells = nn.functional.adaptive_avg_pool2d(h, self.cells)
        return nn.functional.silu(self.last(cells.flatten(1)))


class OfPixels(nn.Module):
    """What reads images by their pixels, standardised by training's mean and deviation, in [-1, 1]."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", torch.tensor(0.0, dtype=dtype))
        self.register_buffer("pixel_std", torch.tensor(0.5, dtype=dtype))

    def measure_pixels(self, value: Tensor) -> None:
        """Take the pixel statistics from all training rows, (N, C, H, W); a deviation is at least .001.

        Part by part, since a float64 copy of all training images would be the most memory that a fit takes.
        """
        parts = value.split(max(1, _PIXELS_A_CALL // math.prod(value.shape[1:])))
        mean = sum(part.sum(dtype=torch.float64).item() for part in parts) / value.numel()
        variance = sum((part.double() - mean).square().sum().item() for part in parts) / value.numel()
        self.pixel_mean.fill_(mean)
        self.pixel_std.fill_(max(math.sqrt(variance), 1e-3))


class EncodedImage(OfPixels):
    """A clean image as features, by a network that is trained with whatever reads them."""

    def __init__(self, image: Image, encoder: Encoder, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        with single_precision():
            self.network = encoder.build(image.channels).to(dtype)
        self.at_once = max(1, _PIXELS_A_CALL // (image.height * image.width))

    def forward(self, value: Tensor) -> Tensor:
        """Features (N, width) of images (N, C, H, W)."""
        if torch.is_grad_enabled() or len(value) <= self.at_once:
            return self._encoded(value)
        return torch.cat([self._encoded(part) for part in value.split(self.at_once)])

    def _encoded(self, value: Tensor) -> Tensor:
        scaled = (value.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std
        return self.network(scaled, scaled.new_full((len(scaled),), CLEAN))


class EncodingSpec(TrainedSpec, frozen=True):
    """A spec of a mechanism that reads its image parents, of any size, each by an encoder of its own.

    Attributes:
        encoder: of image parents, trained with the mechanism; None for strided convolutions by their size.
    """

    encoder: AnyEncoder | None = None

    def why_unwritable(self) -> str | None:
        """An encoder from Python that is not registered."""
        return None if self.encoder is None else ENCODERS.why_unwritable(self.encoder)

    def encoders(self, parents: Mapping[str, Variable]) -> dict[str, Encoder]:
        """The encoder of each image parent, by name."""
        images = image_variables(parents)
        if self.encoder is not None and not images:
            told = f"none of {', '.join(map(repr, parents))} is one" if parents else "there are no parents"
            raise MechanismError(f"Option 'encoder' reads parents that are images, but {told}. Leave it out.")
        found: dict[str, Encoder] = {}
        for name, image in images.items():
            found[name] = self.encoder or Strided.for_size(image.height, image.width)
            try:
                found[name].check_size(image.height, image.width)
            except MechanismError as error:
                raise MechanismError(f"Parent {name!r}: {error}") from error
        return found
