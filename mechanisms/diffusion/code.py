"""The style code: what the parents leave open of an image, in a few numbers of its noise.

A denoiser at weight 1 keeps little of an image once parents change: at high noise it follows what it is given
and redraws the rest. A code z ~ q(z | x, pa) conditions it beside the parents. It is noise of the node as x_T
is, and so stays as it is under an intervention. For that, over the training rows,

    z ~ N(0, I), and independent of the parents.

**Width and nats.** With mu the encoder's means, normalised over the training rows, the code is a Gaussian
channel of known capacity (Cover & Thomas 2006, section 9.1), nats / width in each number:

    z = sqrt(1 - s^2) mu(x, pa) + s eps,    eps ~ N(0, I),    s = exp(-nats / width)

No bound has to be weighed against anything, and no number can become noise alone; they may repeat each other.

**Training.** The code is an autoencoder's, beside the denoiser and within the same fit. Its decoder g(z, pa)
of a coarse image has no further use; the denoiser takes codes as they come:

    loss_n = |x_n - g(z_n, pa_n)|^2 / var(x) + independence [sum over parents R^2_n + 0.75 MMD^2_n]

R^2 is the share of the parents' variance that a kernel ridge regression on the last codes tells of new ones:
an adversary at its best response, in closed form, so that there is no game to lose. It regresses each parent,
and random features (Rahimi & Recht 2007) of all of them jointly. The maximum mean discrepancy (Gretton et al.
2012), whose part of the prior is exact, draws codes to N(0, I).

**Prior.** What training leaves of the way to N(0, I), an invertible map T goes that is fitted in closed form
at its end: each number normal by its quantiles, then all of them white, a Gaussian copula. The noise leaf is
T(z). A map that knew the parents could hide what codes tell of them, but would undo it under others.
"""

import math
import warnings
from collections.abc import Callable, Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from graphs.declared import Declared
from graphs.errors import MechanismError
from graphs.variables import Categorical, Image, Variable
from mechanisms.base import Parents
from mechanisms.conditioning import Conditioning
from mechanisms.encoders import CLEAN, AnyEncoder, Strided

__all__ = ["Code", "StyleCode", "in_chunks", "told"]

_HIDDEN = 256

_KEPT = 1024
"""Codes of the last training rows that the adversary learns from."""

_FEATURES = 64
"""Random features of the parents' joint law."""

_DISCREPANCY = 0.75
"""Weight of the discrepancy beside R^2."""

_SCALES = (2.0, 8.0, 32.0)
"""Squared widths of the kernels of the discrepancy; codes of 8 numbers are 16 apart on average."""

_KNOTS = torch.linspace(-3, 3, 61)
"""Where the map to the prior is fixed, in standard deviations."""

_MOMENTUM = 0.02
"""Of the running normalisation."""

_ERRORS = 2.0
"""Standard errors beyond which a figure is no chance."""

_COARSE = 28
"""Side of the largest image that the decoder makes; a larger one is pooled to it."""


class Code(Declared):
    """Options of a style code.

    Attributes:
        width: numbers in the code.
        nats: the most that the code can tell of an image.
        independence: weight of what codes tell of parents, against what they miss of the image, both as
            shares of variance.
        encoder: its network.
        hidden: leave the code out, as if the model had none: its noise is x_T alone.
    """

    width: int = Field(default=8, ge=1)
    nats: float = Field(default=12.0, gt=0)
    independence: float = Field(default=12.0, ge=0)
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
        if images := [name for name, parent in parents.items() if isinstance(parent, Image)]:
            raise MechanismError(
                f"code: parent {images[0]!r} is an image, of which a code cannot be held independent. Leave "
                "`code` out."
            )
        self.encoder.check_size(image.height, image.width)


class StyleCode(nn.Module):
    """q(z | x, pa), and what holds it independent of pa, for one image variable and its parents.

    Attributes:
        width: numbers in the code.
        spread: s.
        knots: quantiles of codes, which become ``_KNOTS``, (width, knots).
        whiten: then codes times this are white, (width, width).
        recent: codes of the last training rows, (rows, width).
        recent_parents: the columns of their parents that are regressed, (rows, columns).
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    recent: Tensor
    recent_parents: Tensor
    frequencies: Tensor
    whiten: Tensor
    knots: Tensor

    def __init__(self, image: Image, parents: Mapping[str, Variable], spec: Code) -> None:
        super().__init__()
        self.width = spec.width
        self.spread = math.exp(-spec.nats / spec.width)
        self.independence = spec.independence
        self.conditioning = Conditioning(parents, dtype=torch.float32)
        self.encoder = spec.encoder.build(image.channels)
        context = self.conditioning.width
        self.head = _perceptron(spec.encoder.features + context, spec.width)
        self._coarse = min(image.height, _COARSE), min(image.width, _COARSE)
        self.decoder = _perceptron(spec.width + context, image.channels * math.prod(self._coarse))
        self.normalise = nn.BatchNorm1d(spec.width, affine=False, momentum=_MOMENTUM)
        # Groups of columns whose R^2 count alike: each parent's and, where they say more, those of all.
        self._groups = list(self.conditioning.slices.values())
        joint = (
            0 if len(parents) == 1 and isinstance(next(iter(parents.values())), Categorical) else _FEATURES
        )
        if joint:
            self._groups.append(slice(context, context + joint))
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("frequencies", torch.randn(context, joint // 2, generator=generator))
        self.register_buffer("recent", torch.randn(_KEPT, spec.width, generator=generator))
        self.register_buffer("recent_parents", torch.zeros(_KEPT, context + joint))
        self.register_buffer("whiten", torch.eye(spec.width))
        self.register_buffer("knots", _KNOTS.repeat(spec.width, 1))
        self.register_buffer("pixel_mean", torch.tensor(0.0))
        self.register_buffer("pixel_std", torch.tensor(0.5))

    def prepare(self, value: Tensor, parents: Parents) -> None:
        """Take the pixel statistics and the parents' standardising from all training rows."""
        self.pixel_mean.fill_(value.double().mean().item())
        self.pixel_std.fill_(max(value.double().std().item(), 1e-3))
        self.conditioning.prepare(parents)

    @torch.no_grad()
    def settle(self, value: Tensor, parents: Parents, chunk_rows: int, *, generator: torch.Generator) -> None:
        """Normalise the means and fit the map to the prior, by the weights as they are.

        Args:
            value: training images, (N, C, H, W).
            parents: each (N, *event).
            chunk_rows: rows of a call.
            generator: of the codes drawn.
        """
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
        return mean + self.spread * self.sample(len(mean), generator=generator).to(mean)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """n codes from their prior, (n, width)."""
        return torch.randn(n, self.width, generator=generator, device=generator.device)

    def loss(self, code: Tensor, value: Tensor, parents: Parents) -> Tensor:
        """(N,) what codes (N, width) miss of their images (N, C, H, W), and tell of their parents."""
        context = self.conditioning(parents).to(code.dtype)
        made = self.decoder(torch.cat([code, context], 1)).to(value.dtype)
        target = nn.functional.adaptive_avg_pool2d((value - self.pixel_mean) / self.pixel_std, self._coarse)
        missed = (made - target.flatten(1)).square().mean(1)
        return missed + self.independence * self.dependence(code, parents)

    def dependence(self, code: Tensor, parents: Parents) -> Tensor:
        """(N,) how far codes tell of parents, and lack the law of their prior.

        The rows then join the recent ones.
        """
        with torch.autocast(code.device.type, enabled=False):
            code, columns = code.float(), self._regressed(parents)
            middle = float(self.width)
            ridge = _kernel(self.recent, self.recent, middle) + torch.eye(_KEPT, device=code.device)
            centre = self.recent_parents.mean(0)
            weights = torch.linalg.solve(ridge, self.recent_parents - centre)
            missed = (columns - centre - _kernel(code, self.recent, middle) @ weights).square()
            total = (columns - centre).square()
            shares = [
                (total[:, part] - missed[:, part]).sum(1) / total[:, part].sum(1).mean().clamp(min=1e-6)
                for part in self._groups
            ]
            discrepancies = [
                2 * (_kernel(code, self.recent, scale).mean(1) - _prior_kernel(code, scale))
                for scale in (each * middle / 8 for each in _SCALES)
            ]
            rows = min(len(code), _KEPT)
            # New tensors: the old ones are part of this step's gradient.
            self.recent = torch.cat([self.recent[rows:], code[:rows].detach()])
            self.recent_parents = torch.cat([self.recent_parents[rows:], columns[:rows].detach()])
            return torch.stack(shares).sum(0) + _DISCREPANCY * torch.stack(discrepancies).sum(0)

    @torch.no_grad()
    def figures(
        self, code: Tensor, parents: Parents, missed: Callable[[Tensor], Tensor], generator: torch.Generator
    ) -> dict[str, float]:
        """What codes of held-out rows tell of each parent and of the image; warns where that is wrong.

        Args:
            code: drawn, (N, width).
            parents: their values, each (N, *event).
            missed: codes to the denoiser's squared errors (N,), the same noise each time.
            generator: of the rows that codes are swapped with.

        Returns:
            "code: <name> accuracy" or "error" and "code: <name> chance" of each parent, by a fresh probe;
            "code: std"; "code: live", how many numbers the denoiser misses by two standard errors once they
            are swapped between rows.
        """
        leaf = self.to_prior(code)
        found = {"code: std": float(leaf.std(0).mean())}
        for name, variable in self.conditioning.variables.items():
            figure, chance, errors = told(leaf, parents[name], variable)
            measure = "accuracy" if isinstance(variable, Categorical) else "error"
            found |= {f"code: {name} {measure}": figure, f"code: {name} chance": chance}
            if errors > _ERRORS:
                warnings.warn(
                    f"The code tells parent {name!r} of held-out rows: {measure} {figure:.3g}, where "
                    f"guessing gives {chance:.3g}. Some of it would stay under an intervention: raise "
                    "code.independence, or train longer.",
                    stacklevel=2,
                )
        order = torch.randperm(len(code), generator=generator, device=code.device)
        before, live = missed(code), 0
        for number in range(self.width):
            swapped = code.clone()
            swapped[:, number] = code[order, number]
            rise = missed(swapped) - before
            live += float(rise.mean()) > _ERRORS * float(rise.std()) / len(rise) ** 0.5
        if not live:
            warnings.warn(
                "The code tells nothing of the image: swapped between rows, no number of it matters. Give it "
                "more nats, or train longer.",
                stacklevel=2,
            )
        return found | {"code: live": float(live)}

    def _encoded(self, value: Tensor, parents: Parents) -> Tensor:
        """The encoder's means before normalising, (N, width) float32."""
        level = value.new_full((len(value),), CLEAN)
        features = self.encoder((value - self.pixel_mean) / self.pixel_std, level)
        context = self.conditioning(parents).to(features.dtype)
        return self.head(torch.cat([features, context], 1)).float()

    def _regressed(self, parents: Parents) -> Tensor:
        """Columns of the parents, one by one and jointly, (N, columns)."""
        columns = self.conditioning(parents)
        angles = columns @ self.frequencies
        return torch.cat([columns, angles.cos(), angles.sin()], 1)


def in_chunks(
    encode: Callable[[Tensor, Parents], Tensor], value: Tensor, parents: Parents, chunk_rows: int
) -> Tensor:
    """``encode`` of all rows, so many at a time."""
    every = torch.arange(len(value), device=value.device).split(chunk_rows)
    return torch.cat([encode(value[at], {name: each[at] for name, each in parents.items()}) for at in every])


def told(code: Tensor, truth: Tensor, variable: Variable) -> tuple[float, float, float]:
    """How well a fresh probe tells a parent from codes, beside guessing.

    Kernel ridge regression; each half of the rows is predicted from the other.

    Args:
        code: (N, width), N >= 4.
        truth: the parent's values, (N, *event).
        variable: the parent's.

    Returns:
        Of categories the accuracy, and the share of the commonest one; of numbers the mean absolute error,
        and that of guessing the median. Last, by how many standard errors the probe is better than guessing.
    """
    code, n = code.double(), len(code)
    categorical = isinstance(variable, Categorical)
    numbers = nn.functional.one_hot(truth, variable.size) if categorical else truth.reshape(n, -1)
    numbers, kernel = numbers.double(), _kernel(code, code, float(code.shape[1]))
    halves = torch.arange(n, device=code.device).chunk(2)
    guess = torch.empty_like(numbers)
    for known, asked in (halves, halves[::-1]):
        centre = numbers[known].mean(0)
        ridge = kernel[known][:, known] + torch.eye(len(known), dtype=code.dtype, device=code.device)
        guess[asked] = centre + kernel[asked][:, known] @ torch.linalg.solve(ridge, numbers[known] - centre)
    if categorical:
        figure = (guess.argmax(1) == truth).double()
        chance = (truth == truth.bincount().argmax()).double()
    else:
        figure = (guess - numbers).abs().mean(1)
        chance = (numbers - numbers.median(0).values).abs().mean(1)
    gain = figure - chance if categorical else chance - figure
    error = max(float(gain.std()) / n**0.5, 1e-12)
    return float(figure.mean()), float(chance.mean()), float(gain.mean()) / error


def _kernel(one: Tensor, other: Tensor, scale: float) -> Tensor:
    """exp(-|a - b|^2 / 2 scale) of rows a and b."""
    return (torch.cdist(one, other).square() / (-2 * scale)).exp()


def _prior_kernel(code: Tensor, scale: float) -> Tensor:
    """E k(z, eps) over eps ~ N(0, I), (N,)."""
    return (scale / (scale + 1)) ** (code.shape[1] / 2) * (code.square().sum(1) / (-2 * (scale + 1))).exp()


def _piecewise(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Column d of x (N, width) by the line through (knots[d], values[d]), its ends going on straight."""
    columns = x.T.contiguous()
    at = torch.searchsorted(knots, columns).clamp(1, knots.shape[1] - 1)
    left, right = knots.gather(1, at - 1), knots.gather(1, at)
    low, high = values.gather(1, at - 1), values.gather(1, at)
    return (low + (columns - left) * (high - low) / (right - left)).T


def _perceptron(first: int, last: int) -> nn.Sequential:
    """Two linear layers with SiLU between."""
    return nn.Sequential(nn.Linear(first, _HIDDEN), nn.SiLU(), nn.Linear(_HIDDEN, last))
