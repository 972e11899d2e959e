"""The training of a style code: an autoencoder's own code, held independent of the parents.

The decoder g(z, pa) of a coarse image has no further use:

    loss_n = |x_n - g(z_n, pa_n)|^2 / var(x) + 0.1 / width * sum over i != j of C_ij^2
             + c(k) independence [mean of R^2_n + 0.75 MMD^2_n]

C is the correlation of the batch's codes. Numbers that say the same again, as a channel of so many nats
allows, leave no room for the rest: what varies most, such as a background, would be said many times.

R^2 is the share of the parents' variance that a kernel ridge regression on the last codes tells of new ones:
an adversary at its best response, in closed form, so that there is no game to lose. It regresses each parent,
and random features (Rahimi & Recht 2007) of all of them jointly; the mean is over these regressions. The
maximum mean discrepancy (Gretton et al. 2012), whose part of the prior is exact, draws codes to N(0, I). c
rises from 0 to 1 over the first 60 % of the steps: a code that must not tell of the parents from the start
hardly learns to tell of anything.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from graphs.errors import warn
from graphs.variables import Categorical, Image, Variable
from mechanisms.base import Parents
from mechanisms.diffusion.code import HIDDEN, StyleCode, in_chunks
from mechanisms.diffusion.denoiser import Denoiser, log_normal_levels
from mechanisms.diffusion.solvers import standard_normal
from mechanisms.networks import perceptron
from mechanisms.seeds import keyed_generator

__all__ = ["CodeTraining", "held_out_code_figures", "told"]

_KEPT = 1024
"""Codes of the last training rows that the adversary learns from."""

_FEATURES = 64
"""Random features of the parents' joint law."""

_DISCREPANCY = 0.75
"""Weight of the discrepancy beside R^2."""

_REPETITION = 0.1
"""Weight of the squared correlations of a number with the others."""

_SCALES = (2.0, 8.0, 32.0)
"""Squared widths of the kernels of the discrepancy; codes of 8 numbers are 16 apart on average."""

_RISE = 0.6
"""Share of the steps over which the price of dependence rises."""

_ERRORS = 2.0
"""Standard errors beyond which a figure is no chance."""

_COARSE = 28
"""Side of the largest image that the decoder makes; a larger one is pooled to it."""

_LEAST_PROBED, _PROBED_ROWS = 100, 500
"""Held-out rows that tell something of a code, and as many as are asked."""


class CodeTraining(nn.Module):
    """The code with what its training alone needs: the decoder, and the last rows.

    ``progress`` is the share of the training that is done, in [0, 1]; ``recent`` are codes of the last
    training rows, (rows, width), ``recent_parents`` the columns of their parents that are regressed, (rows,
    columns).
    """

    recent: Tensor
    recent_parents: Tensor
    frequencies: Tensor

    def __init__(self, code: StyleCode, image: Image, independence: float, chunk_rows: int) -> None:
        super().__init__()
        self.code, self.independence, self.progress = code, independence, 0.0
        self._chunk = chunk_rows
        self._coarse = min(image.height, _COARSE), min(image.width, _COARSE)
        parents, context = code.conditioning.variables, code.conditioning.width
        pixels = image.channels * self._coarse[0] * self._coarse[1]
        self.decoder = perceptron(code.width + context, HIDDEN, pixels)
        # Groups of columns whose R^2 count alike: each parent's and, where they say more, those of all.
        self._groups = list(code.conditioning.slices.values())
        alone = len(parents) == 1 and isinstance(next(iter(parents.values())), Categorical)
        joint = 0 if alone else _FEATURES
        if joint:
            self._groups.append(slice(context, context + joint))
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("frequencies", torch.randn(context, joint // 2, generator=generator))
        self.register_buffer("recent", torch.randn(_KEPT, code.width, generator=generator))
        self.register_buffer("recent_parents", torch.zeros(_KEPT, context + joint))

    def advance(self, share: float) -> None:
        """Be told the share of the training that is done."""
        self.progress = share

    def finish(self, value: Tensor, parents: Parents) -> None:
        """Fit the map to the prior."""
        generator = torch.Generator(value.device).manual_seed(0)
        self.code.settle(value, parents, self._chunk, generator=generator)

    def loss(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Tensor:
        """(N,) what drawn codes miss of their images (N, C, H, W), and tell of their parents."""
        drawn = self.code.around(self.code.mean(value, parents), generator=generator)
        context = self.code.conditioning(parents).to(drawn.dtype)
        made = self.decoder(torch.cat([drawn, context], 1)).to(value.dtype)
        target = nn.functional.adaptive_avg_pool2d(self.code.scaled(value), self._coarse)
        missed = (made - target.flatten(1)).square().mean(1)
        price = min(1.0, self.progress / _RISE) * self.independence
        return missed + self.repetition(drawn) + price * self.dependence(drawn, parents)

    def repetition(self, code: Tensor) -> Tensor:
        """What numbers of these codes (N, width) say again of each other: squared correlations, a scalar.

        Of the batch alone: the last codes lag behind, and by theirs training did not learn to be rid of it.
        """
        apart = code.float() - code.float().mean(0)
        apart = apart / apart.square().mean(0).sqrt().clamp(min=1e-6)
        together = (apart.T @ apart / len(apart)).square()
        return _REPETITION / self.code.width * (together.sum() - together.trace())

    def dependence(self, code: Tensor, parents: Parents) -> Tensor:
        """(N,) how far codes tell of parents, and lack the law of their prior.

        The rows then join the recent ones.
        """
        with torch.autocast(code.device.type, enabled=False):
            code, columns = code.float(), self._regressed(parents)
            middle = float(self.code.width)
            own = torch.eye(_KEPT, dtype=code.dtype, device=code.device)
            ridge = _kernel(self.recent, self.recent, middle) + own
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
            return torch.stack(shares).mean(0) + _DISCREPANCY * torch.stack(discrepancies).sum(0)

    def _regressed(self, parents: Parents) -> Tensor:
        """Columns of the parents, one by one and jointly, (N, columns)."""
        columns = self.code.conditioning(parents)
        angles = columns @ self.frequencies
        return torch.cat([columns, angles.cos(), angles.sin()], 1)


@torch.no_grad()
def held_out_code_figures(
    style: StyleCode,
    denoiser: Denoiser,
    value: Tensor,
    parents: Parents,
    levels: tuple[float, float],
    chunk: int,
    generator: torch.Generator,
) -> dict[str, float]:
    """What codes of some held-out rows tell of each parent and of the image; warns where that is wrong.

    Of few rows none, and a warning. Images are (N, C, H, W), parents (N, *event); ``levels`` are the mean and
    the standard deviation of ln sigma in training, ``chunk`` the rows in one call.

    Returns:
        "code: <name> accuracy" or "error" and "code: <name> chance" of each parent, by a fresh probe;
        "code: std"; "code: live", how many numbers the denoiser misses by two standard errors once they
        are swapped between rows.
    """
    if len(value) < _LEAST_PROBED:
        warn(
            f"Whether the code is independent of the parents was not tested: {len(value)} rows were held "
            f"out, and it takes {_LEAST_PROBED}. A code that tells a parent keeps it where that is set. "
            "Raise training.validation."
        )
        return {}
    # Evenly, as rows may lie in the order of their labels.
    some = torch.linspace(0, len(value) - 1, min(len(value), _PROBED_ROWS)).long().to(value.device)
    value, parents = value[some], {name: each[some] for name, each in parents.items()}
    noise = standard_normal(len(value), tuple(value.shape[1:]), generator=generator).to(value)
    sigma = log_normal_levels(len(value), *levels, generator=generator).to(value)
    shown = torch.ones(len(value), len(denoiser.names) + 1, dtype=torch.bool, device=value.device)

    def missed(code: Tensor) -> Tensor:
        losses: list[Tensor] = []
        for at in torch.arange(len(value), device=value.device).split(chunk):
            rows = {name: each[at] for name, each in parents.items()}
            losses.append(denoiser.loss(value[at], rows, sigma[at], noise[at], shown[at], code[at]))
        return torch.cat(losses)

    code = style.around(in_chunks(style.mean, value, parents, chunk), generator=generator)
    leaf = style.to_prior(code)
    found = {"code: std": float(leaf.std(0).mean())}
    for name, variable in style.conditioning.variables.items():
        figure, chance, errors = told(leaf, parents[name], variable)
        measure = "accuracy" if isinstance(variable, Categorical) else "error"
        found |= {f"code: {name} {measure}": figure, f"code: {name} chance": chance}
        if errors > _ERRORS:
            warn(
                f"The code tells parent {name!r} of held-out rows: {measure} {figure:.3g}, where "
                f"guessing gives {chance:.3g}. Some of it would stay under an intervention: raise "
                "code.independence, or train longer."
            )
    return found | {"code: live": float(_live(code, missed, generator))}


def _live(code: Tensor, missed: Callable[[Tensor], Tensor], generator: torch.Generator) -> int:
    """How many numbers of codes matter to the squared errors (N,), once they are swapped between rows."""
    order = torch.randperm(len(code), generator=generator, device=code.device)
    before, live = missed(code), 0
    for number in range(code.shape[1]):
        swapped = code.clone()
        swapped[:, number] = code[order, number]
        rise = missed(swapped) - before
        live += float(rise.mean()) > _ERRORS * float(rise.std()) / len(rise) ** 0.5
    if not live:
        warn(
            "The code tells nothing of the image: swapped between rows, no number of it matters. Give it "
            "more nats, train longer, or lower code.independence."
        )
    return live


def told(code: Tensor, truth: Tensor, variable: Variable) -> tuple[float, float, float]:
    """How well a fresh probe tells a parent from codes (N, width), N >= 4, beside guessing.

    Kernel ridge regression; each of two halves of the rows, drawn at random, is predicted from the other: of
    rows in the order of their labels, one half would not have the other's.

    Returns:
        Of categories the accuracy, and the share of the commonest one; of numbers the mean absolute error,
        and that of guessing the median. Last, by how many standard errors the probe is better than guessing.
    """
    code, n = code.double(), len(code)
    categorical = isinstance(variable, Categorical)
    numbers = nn.functional.one_hot(truth, variable.size) if categorical else truth.reshape(n, -1)
    numbers, kernel = numbers.double(), _kernel(code, code, float(code.shape[1]))
    halves = torch.randperm(n, generator=keyed_generator(0, "halves")).to(code.device).chunk(2)
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
