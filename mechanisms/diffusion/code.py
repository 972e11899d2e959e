"""The style code: what the parents leave open of an image, in a few numbers of its noise.

A denoiser at weight 1 keeps little of an image once parents change: at high noise it follows what it is given
and redraws the rest. A code z ~ q(z | x, pa) conditions it beside the parents. It is noise of the node as x_T
is, and so stays as it is under an intervention. For that, over the training rows,

    z ~ N(0, I), and independent of the parents.

**Width and nats.** With mu the encoder's means, normalised over the training rows, the code is a Gaussian
channel of known capacity (Cover & Thomas 2006, section 9.1), nats / width in each number:

    z = sqrt(1 - s^2) mu(x, pa) + s eps,    eps ~ N(0, I),    s = exp(-nats / width)

No bound has to be weighed against anything, and no number can become noise alone; they may repeat each other.

**Training** is a stage of its own, before the denoiser's, which then learns under codes that stay as they
are: see ``code_training``.

**Prior.** What training leaves of the way to N(0, I), an invertible map T goes that is fitted in closed form
at its end: each number normal by its quantiles, then all of them white, a Gaussian copula. The noise leaf is
T(z). A map that knew the parents could hide what codes tell of them, but would undo it under others.
"""

import math
from collections.abc import Callable, Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from graphs.declared import Declared
from graphs.errors import MechanismError
from graphs.variables import Image, Variable, image_variables
from mechanisms.base import Parents
from mechanisms.conditioning import Conditioning
from mechanisms.encoders import CLEAN, AnyEncoder, OfPixels, Strided
from mechanisms.networks import perceptron
from mechanisms.training import Training, fills, holds_none_out

__all__ = ["Code", "HIDDEN", "StyleCode", "in_chunks"]

_TRAINING = Training(epochs=6, batch_size=64, learning_rate=2e-3)

HIDDEN = 256
"""Width of the networks that make a code, and an image of it."""

_KNOTS = torch.linspace(-3, 3, 61, dtype=torch.float32)
"""Where the map to the prior is fixed, in standard deviations."""

_MOMENTUM = 0.02
"""Of the running normalisation."""


class Code(Declared):
    """Options of a style code.

    Attributes:
        width: numbers in the code.
        nats: the most that the code can tell of an image.
        independence: weight of what codes tell of parents, against what they miss of the image, both as
            shares of variance.
        training: settings of the stage that fits it, on the rows of the node's own fit and to the last step:
            ``validation`` and ``patience`` are the node's own, and refused here; null keeps the code of the
            model that the fit starts from.
        encoder: its network.
        hidden: leave the code out, as if the model had none: its noise is x_T alone.
    """

    width: int = Field(default=8, ge=1)
    nats: float = Field(default=12.0, gt=0)
    independence: float = Field(default=4.0, ge=0)
    training: Annotated[Training | None, fills(_TRAINING), holds_none_out("a code")] = _TRAINING
    encoder: AnyEncoder = Strided()
    hidden: bool = False

    def check(self, image: Image, parents: Mapping[str, Variable]) -> None:
        """Refuse what no code can serve, by a MechanismError."""
        pixels = math.prod(image.event_shape)
        if self.width > pixels:
            raise MechanismError(
                f"code: the width is {self.width}, but {image.describe()} has {pixels} numbers. A code is a "
                "few of them: the default is 8."
            )
        if not parents:
            raise MechanismError(
                "code: this image node has no parents, so no intervention that a code would outlast. Leave "
                "`code` out."
            )
        if images := list(image_variables(parents)):
            raise MechanismError(
                f"code: parent {images[0]!r} is an image, of which a code cannot be held independent. Leave "
                "`code` out."
            )
        try:
            self.encoder.check_size(image.height, image.width)
        except MechanismError as error:
            raise MechanismError(f"code.encoder: {error}") from None


class StyleCode(OfPixels):
    """q(z | x, pa) for one image variable and its parents, and the map to the prior.

    ``knots`` are quantiles of codes, (width, knots), which become ``_KNOTS``; codes times ``whiten``,
    (width, width), are then white. ``spread`` is s.
    """

    whiten: Tensor
    knots: Tensor

    def __init__(self, image: Image, parents: Mapping[str, Variable], spec: Code) -> None:
        super().__init__()
        self.width = spec.width
        self.spread = math.exp(-spec.nats / spec.width)
        self.conditioning = Conditioning(parents, dtype=torch.float32)
        self.encoder = spec.encoder.build(image.channels)
        self.head = perceptron(spec.encoder.features + self.conditioning.width, HIDDEN, spec.width)
        self.normalise = nn.BatchNorm1d(spec.width, affine=False, momentum=_MOMENTUM)
        self.register_buffer("whiten", torch.eye(spec.width))
        self.register_buffer("knots", _KNOTS.repeat(spec.width, 1))

    def prepare(self, value: Tensor, parents: Parents) -> None:
        """Take the pixel statistics and the parents' standardising from all training rows."""
        self.measure_pixels(value)
        self.conditioning.prepare(parents)

    @torch.no_grad()
    def settle(self, value: Tensor, parents: Parents, chunk_rows: int, *, generator: torch.Generator) -> None:
        """Normalise the means and fit the map to the prior, by the weights as they are, on training rows."""
        if len(value) <= self.width:
            raise MechanismError(
                f"A style code of {self.width} numbers needs at least {self.width + 1} training rows, got "
                f"{len(value)}. Give more rows, a smaller `width`, or leave `code` out."
            )
        self.eval()  # whoever trained it left it normalising batch by batch
        encoded = in_chunks(self._encoded, value, parents, chunk_rows).double()
        assert self.normalise.running_mean is not None and self.normalise.running_var is not None
        self.normalise.running_mean.copy_(encoded.mean(0))
        self.normalise.running_var.copy_(encoded.var(0))
        code = self.around(in_chunks(self.mean, value, parents, chunk_rows), generator=generator).double()
        knots = code.quantile(torch.special.ndtr(_KNOTS.double()).to(code.device), dim=0).T
        # Rising, where few rows leave several knots on one value.
        steps = knots.diff(dim=1).clamp(min=1e-3)
        self.knots.copy_(torch.cat([knots[:, :1], knots[:, :1] + steps.cumsum(1)], 1))
        normal = _piecewise(code.float(), self.knots, _KNOTS.to(self.knots).expand_as(self.knots)).double()
        values, vectors = torch.linalg.eigh(normal.T @ normal / len(normal))
        self.whiten.copy_(vectors @ (values.rsqrt()[:, None] * vectors.T))

    def to_prior(self, code: Tensor) -> Tensor:
        """T: codes as the noise leaf, N(0, I) over the training rows, (N, width)."""
        return _piecewise(code, self.knots, _KNOTS.to(code).expand_as(self.knots)) @ self.whiten

    def from_prior(self, leaf: Tensor) -> Tensor:
        """The code of a leaf, the inverse of ``to_prior`` up to rounding, (N, width)."""
        normal = torch.linalg.solve(self.whiten, leaf.T).T
        return _piecewise(normal, _KNOTS.to(leaf).expand_as(self.knots).contiguous(), self.knots)

    def mean(self, value: Tensor, parents: Parents) -> Tensor:
        """The mean of q(z | x, pa) of clean images (N, C, H, W), (N, width)."""
        scaled = self.normalise(self._encoded(value, parents))
        return (1 - self.spread**2) ** 0.5 * scaled.to(value.dtype)

    def around(self, mean: Tensor, *, generator: torch.Generator) -> Tensor:
        """A draw of q(z | x, pa) of these means, (N, width)."""
        return self.moved(mean, self.sample(len(mean), generator=generator))

    def moved(self, mean: Tensor, sample: Tensor) -> Tensor:
        """The draw of q(z | x, pa) of these means that draws from the prior give, (N, width)."""
        return mean + self.spread * sample.to(mean)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """n codes from their prior, (n, width)."""
        return torch.randn(n, self.width, generator=generator, device=generator.device, dtype=torch.float32)

    def scaled(self, value: Tensor) -> Tensor:
        """Images of mean 0 and standard deviation 1 over the training rows."""
        return (value - self.pixel_mean) / self.pixel_std

    def _encoded(self, value: Tensor, parents: Parents) -> Tensor:
        """The encoder's means before normalising, (N, width) float32."""
        level = value.new_full((len(value),), CLEAN)
        features = self.encoder(self.scaled(value), level)
        context = self.conditioning(parents).to(features.dtype)
        return self.head(torch.cat([features, context], 1)).float()


def in_chunks(
    encode: Callable[[Tensor, Parents], Tensor], value: Tensor, parents: Parents, chunk_rows: int
) -> Tensor:
    """``encode`` of all rows, so many at a time."""
    every = torch.arange(len(value), device=value.device).split(chunk_rows)
    return torch.cat([encode(value[at], {name: each[at] for name, each in parents.items()}) for at in every])


def _piecewise(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Column d of x (N, width) by the line through (knots[d], values[d]), its ends going on straight."""
    columns = x.T.contiguous()
    at = torch.searchsorted(knots, columns).clamp(1, knots.shape[1] - 1)
    left, right = knots.gather(1, at - 1), knots.gather(1, at)
    low, high = values.gather(1, at - 1), values.gather(1, at)
    return (low + (columns - left) * (high - low) / (right - left)).T
