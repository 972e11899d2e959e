"""The denoiser, by EDM preconditioning: from a network F to eps(x_bar, sigma, pa), and the training loss.

With m and s the mean and standard deviation of all training pixels, EDM preconditioning (Karras et al. 2022,
table 1, around m) predicts ``D = m + c_skip (x_bar - m) + c_out F(c_in (x_bar - m), sigma)``, whose noise is

    eps = (x_bar - D) / sigma = sigma (x_bar - m) / (sigma^2 + s^2) - s F / sqrt(sigma^2 + s^2),

free of cancellation at small sigma. A network trained to predict eps, x_0 or v on a discrete schedule takes
``x_t = x_bar / sqrt(1 + sigma^2)``; with a = alpha_bar, ``v = sqrt(a) eps - sqrt(1 - a) x_0`` (Salimans & Ho
2022, section 4).

Flow matching (rectified flow: Liu et al. 2023; Lipman et al. 2023) walks ``x_t = (1 - t) x_0 + t eps`` and
predicts its velocity, ``eps - x_0``. Its levels are sigma = t / (1 - t), with x_bar = x_t / (1 - t), so that
``x_t = x_bar / (1 + sigma)`` and ``eps = x_t + (1 - t) velocity = (x_bar + velocity) / (1 + sigma)``. Levels
with normal ln sigma are times with normal logit t, as in Esser et al. (2024).

A network may take a style code beside the parents (see ``code``). Image parents, of any number and size, are
channels beside the image's own, resized to its height and width (bilinear; averaged where they shrink).

Each parent can be hidden on its own: its columns are zeroed and a flag says so. In training a share
``dropout`` of the rows hides a random set of parents, so one network is conditional and unconditional (Ho &
Salimans 2022). Hiding each independently would leave hardly a row of many parents whole, or all hidden.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from graphs.variables import Categorical, Image, Variable
from mechanisms.base import Parents
from mechanisms.conditioning import Conditioning
from mechanisms.diffusion.backbones import Backbone
from mechanisms.diffusion.schedule import alpha_bar_of
from mechanisms.encoders import OfPixels

__all__ = ["Denoiser", "Denoising", "Prediction", "column", "log_normal_levels", "stratified"]

Prediction = Literal["edm", "eps", "x0", "v", "velocity"]


def column(values: Tensor) -> Tensor:
    """(N,) as (N, 1, 1, 1), to scale images row by row."""
    return values.view(-1, 1, 1, 1)


def stratified(n: int, *, generator: torch.Generator) -> Tensor:
    """n uniform numbers, the k-th within the k-th n-th of [0, 1], (n,)."""
    device = generator.device
    uniform = torch.rand(n, generator=generator, device=device, dtype=torch.float32)
    return (uniform + torch.arange(n, device=device)) / n


def log_normal_levels(n: int, mean: float, std: float, *, generator: torch.Generator) -> Tensor:
    """n levels with ln sigma ~ N(mean, std^2), stratified, (n,) float32."""
    uniform = stratified(n, generator=generator)
    return (mean + std * torch.special.ndtri(uniform.double().clamp(1e-6, 1 - 1e-6))).exp().float()


@dataclass(frozen=True)
class Denoising:
    """What guidance knows of a denoiser, perhaps under given codes."""

    variables: Mapping[str, Variable]  # the parents', in declared order
    eps: Callable[..., Tensor]  # of (x, sigma, parents, shown=True): see ``Denoiser.eps``


class Denoiser(OfPixels):
    """eps(x_bar, sigma, pa, code) for one image variable and its parents."""

    def __init__(
        self,
        image: Image,
        parents: Mapping[str, Variable],
        backbone: Backbone,
        prediction: Prediction,
        dropout: float,
        code: int = 0,
        further: int = 0,
    ) -> None:
        super().__init__()
        self.prediction: Prediction = prediction
        self.dropout = dropout
        self.code = code
        self.variables: Mapping[str, Variable] = dict(parents)
        self.names = tuple(parents)
        self.images = {name: variable for name, variable in parents.items() if isinstance(variable, Image)}
        tabular = {name: variable for name, variable in parents.items() if name not in self.images}
        self.conditioning = Conditioning(tabular, dtype=torch.float32)
        extra = sum(variable.channels for variable in self.images.values())
        context = self.conditioning.width + len(self.names) + (code + 1 if code else 0) + further
        self.network = backbone.build(image.channels, extra, context)

    def prepare(self, value: Tensor, parents: Parents) -> None:
        """Take the pixel statistics and the parents' standardising from all training rows."""
        self.measure_pixels(value)
        self.conditioning.prepare(parents)

    def eps(
        self,
        x: Tensor,
        sigma: Tensor | float,
        parents: Parents,
        shown: Tensor | bool = True,
        code: Tensor | None = None,
        further: Tensor | None = None,
    ) -> Tensor:
        """The estimated noise, (N, C, H, W), of x_bar = x_0 + sigma eps; sigma is one for all rows or (N,).

        ``shown`` says which parents the network sees, (N, parents) or one for all; the value (N, *event) of
        a hidden one does not matter. A network that has a code (N, width) hides it where None; ``further``
        are columns of the context beside these, (N, further), of a network that has some.
        """
        levels = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x))
        columns = self._code_columns(code, x)
        if further is not None:
            columns = torch.cat([columns, further.to(x)], 1)
        out = self._forward(x, levels, parents, shown, columns)
        return self._eps_from(out, x, column(levels))

    def loss(
        self,
        value: Tensor,
        parents: Parents,
        sigma: Tensor,
        noise: Tensor,
        shown: Tensor,
        code: Tensor | None = None,
        coarse: float = 0.0,
        sharpening: float = 0.0,
    ) -> Tensor:
        """(N,) mean squared error of the network's own target, which is the unit-weight loss of its kind.

        Clean images are (N, C, H, W), as is the noise eps, levels (N,), codes (N, width); ``shown`` says
        which parents, and last the code, each row shows, (N, parents or parents + 1). With ``coarse``, the
        same of the image averaged over blocks of 4 x 4, 16 x 16, ... pixels and over all is added with that
        weight: another denoising problem, whose noise is as many times lower as a block's side has pixels.
        Blocks are smaller at the edges of sides that 4 does not divide. It is solved by the same estimate,
        but pixels alone hardly say so: what the mean of a block is wrong by is a small share of their error
        (the multiscale loss of Hoogeboom et al. 2023).

        With ``sharpening`` s the target moves by s / (1 + s) of what the network's own output owes to the
        categories that a row shows. It is at rest where the output is e_h + (1 + s) (e - e_h), with e of the
        shown and e_h of hidden categories as they are learned without: guidance of weight 1 + s, in one
        evaluation (model-guidance, Tang et al. 2025).
        """
        x, known = value + column(sigma) * noise, len(self.names)
        columns = self._code_columns(code, x, shown[:, known:])
        out = self._forward(x, sigma, parents, shown[:, :known], columns)
        missed = out - self._target(value, noise, x, column(sigma))
        if sharpening:
            kept = [not isinstance(variable, Categorical) for variable in self.variables.values()]
            without = shown[:, :known] & torch.tensor(kept, device=shown.device)
            with torch.no_grad():  # second: a first forward pass in bfloat16 keeps the cast weights
                owed = out - self._forward(x, sigma, parents, without, columns)
            missed = missed - sharpening / (1 + sharpening) * owed
        loss = missed.square().flatten(1).mean(1)
        return loss + coarse * self._coarse_loss(missed, sigma) if coarse else loss

    def _coarse_loss(self, missed: Tensor, sigma: Tensor) -> Tensor:
        """(N,) what the means of blocks are wrong by, each in units of their own denoising problem."""
        loss, pixels, means = torch.zeros_like(sigma), missed[0, 0].numel(), missed
        while means[0, 0].numel() > 1:
            sides = [min(4, side) for side in means.shape[2:]]
            means = nn.functional.avg_pool2d(means, sides, ceil_mode=True, count_include_pad=False)
            lower = sigma * (means[0, 0].numel() / pixels) ** 0.5  # of the noise of a mean
            weight = (self._image_per_output(sigma) / self._image_per_output(lower)).square()
            loss = loss + weight * means.square().flatten(1).mean(1)
        return loss

    def _image_per_output(self, sigma: Tensor) -> Tensor:
        """How far the denoised image is off where the network's output is off by one."""
        match self.prediction:
            case "edm":
                return sigma * self.pixel_std / (sigma**2 + self.pixel_std**2).sqrt()
            case "eps":
                return sigma
            case "x0":
                return torch.ones_like(sigma)
            case "v":
                return sigma / (1 + sigma**2).sqrt()
            case "velocity":
                return sigma / (1 + sigma)

    def draw_shown(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Which parents a row shows, and last the code of a network that has one: (n, parents or one more).

        With probability ``dropout`` a row hides parents: each by the toss of a coin, all where none fell.
        Half of these rows hide the code as well, and as many others hide it alone.
        """
        device = generator.device
        chance = torch.rand(n, 1, generator=generator, device=device, dtype=torch.float32)
        coins = torch.rand(n, len(self.names), generator=generator, device=device, dtype=torch.float32) < 0.5
        shown = ~((chance < self.dropout) & (coins | ~coins.any(1, keepdim=True)))
        if not self.code:
            return shown
        return torch.cat([shown, (chance - self.dropout).abs() >= self.dropout / 2], 1)

    def _forward(
        self, x: Tensor, sigma: Tensor, parents: Parents, shown: Tensor | bool, code: Tensor
    ) -> Tensor:
        """F, on the input scaled for its kind."""
        visible = torch.as_tensor(shown, device=x.device).expand(len(x), len(self.names)).to(x.dtype)
        channels = [self._scale_input(x, column(sigma))]
        for name in self.images:
            channels.append(_resized(parents[name], x) * column(visible[:, self.names.index(name)]))
        context = torch.cat([self._context(parents, visible), code], 1)
        dtype = next((weight.dtype for weight in self.network.parameters()), x.dtype)
        return self.network(torch.cat(channels, 1).to(dtype), sigma, context.to(dtype)).to(x.dtype)

    def _code_columns(self, code: Tensor | None, x: Tensor, shown: Tensor | None = None) -> Tensor:
        """The code's part of the context, zeros where it is hidden, and a flag: (N, width + 1), or (N, 0)."""
        if not self.code:
            return x.new_zeros(len(x), 0)
        if code is None:
            return x.new_zeros(len(x), self.code + 1)
        visible = x.new_ones(len(x), 1) if shown is None else shown.to(x)
        return torch.cat([code.to(x) * visible, visible], 1)

    def _context(self, parents: Parents, visible: Tensor) -> Tensor:
        """Columns of the shown parents, zeros for hidden ones, and a flag for each: (N, width)."""
        columns = self.conditioning(parents, rows=len(visible)).to(visible.dtype)
        masks = [
            visible[:, self.names.index(name), None].expand(-1, part.stop - part.start)
            for name, part in self.conditioning.slices.items()
        ]
        return torch.cat([columns * torch.cat(masks, 1) if masks else columns, visible], 1)

    def _scale_input(self, x: Tensor, sigma: Tensor) -> Tensor:
        if self.prediction == "edm":
            return (x - self.pixel_mean) / (sigma**2 + self.pixel_std**2).sqrt()
        if self.prediction == "velocity":
            return x / (1 + sigma)
        return x * alpha_bar_of(sigma).sqrt()

    def _eps_from(self, out: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        a = alpha_bar_of(sigma)
        match self.prediction:
            case "edm":
                variance = sigma**2 + self.pixel_std**2
                return sigma * (x - self.pixel_mean) / variance - self.pixel_std * out / variance.sqrt()
            case "eps":
                return out
            case "x0":
                return (x - out) / sigma
            case "v":
                return a.sqrt() * out + (1 - a).sqrt() * (a.sqrt() * x)
            case "velocity":
                return (x + out) / (1 + sigma)

    def _target(self, value: Tensor, noise: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        a = alpha_bar_of(sigma)
        match self.prediction:
            case "edm":
                variance = sigma**2 + self.pixel_std**2
                # Solving the module's equation for F at eps = noise.
                return (sigma * (x - self.pixel_mean) / variance - noise) * variance.sqrt() / self.pixel_std
            case "eps":
                return noise
            case "x0":
                return value
            case "v":
                return a.sqrt() * noise - (1 - a).sqrt() * value
            case "velocity":
                return noise - value


def _resized(image: Tensor, like: Tensor) -> Tensor:
    """An image parent, (N, C, H', W'), as high and wide as another image, and of its dtype."""
    size = like.shape[2:]
    if image.shape[2:] != size:
        image = nn.functional.interpolate(image, size=size, mode="bilinear", antialias=True)
    return image.to(like.dtype)
