"""What ``abduction.posterior(node)`` gives: the distribution of a node given the evidence, row by row."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalgen.counterfactuals.summaries import shares_text, spread_text
from graphs.errors import DomainError
from graphs.text import Shown, counted
from graphs.variables import Categorical, Image, Variable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = [
    "CategoryPosterior",
    "GaussianPosterior",
    "MixturePosterior",
    "NodePosterior",
    "Posterior",
    "SamplePosterior",
]

_SHOWN_ROWS = 4
_HALVINGS = 60


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class NodePosterior(Shown, ABC):
    """What all of them are: a distribution for each of B rows. ``print`` shows it, ``plot`` draws it."""

    node: str = "a node"  #: whose distribution it is
    variable: Variable | None = None  #: what its values are
    #: (B,) "observed", "exact", "inferred" or "prior", as of ``Counterfactual.sources``
    sources: NDArray[np.object_] | None = None
    index: pd.Index | None = None  #: of the evidence, where it was a DataFrame

    @property
    @abstractmethod
    def rows(self) -> int:
        """B, the number of rows of evidence."""

    def shares(self) -> tuple[Sequence[object], Tensor] | None:
        """The K categories, or whole numbers, with their probabilities, (B, K); None of other numbers."""
        return None

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each number of a row, (B, D) each."""
        raise NotImplementedError

    def quantile(self, level: float) -> Tensor:
        """The value below which each number of a row lies with this probability, (B, D)."""
        raise NotImplementedError

    @property
    def row_names(self) -> list[str]:
        """What rows are called: by the index of the evidence, else by their numbers."""
        return [str(name) for name in (range(self.rows) if self.index is None else self.index)]

    def summary(self) -> pd.DataFrame:
        """A line a row: its ``source``, as in ``sources``, and what is known of it.

        Of a category k its probability ``p(k)``; of a number ``mean``, ``sd`` and the quantiles ``5%``,
        ``50%`` and ``95%``, or ``mean_0``, ``sd_0`` .. of a vector.
        """
        import pandas as pd

        columns: dict[str, Any] = {} if self.sources is None else {"source": self.sources}
        if (found := self.shares()) is not None:
            columns |= {f"p({label})": share for label, share in zip(found[0], found[1].T.cpu(), strict=True)}
        else:
            mean, spread = self.moments()
            quantiles = {f"{level:.0%}": self.quantile(level) for level in (0.05, 0.5, 0.95)}
            for part in range(mean.shape[1]):
                after = f"_{part}" if mean.shape[1] > 1 else ""
                figures = {"mean": mean, "sd": spread, **quantiles}
                columns |= {f"{name}{after}": each[:, part].cpu() for name, each in figures.items()}
        index = pd.RangeIndex(self.rows, name="row") if self.index is None else self.index
        return pd.DataFrame({name: np.asarray(each) for name, each in columns.items()}, index=index)

    def plot(self, rows: int = 8) -> Figure:
        """Means and intervals, probabilities, or mean images, of at most ``rows`` rows."""
        return import_module("causalgen.plotting.effect_plots").plot_posterior(self, rows)

    def __repr__(self) -> str:
        """Kind and node; then mean and spread, or the likeliest categories, of the first rows."""
        head = f"{type(self).__name__} of {self.node}, {counted(self.rows, 'row')}"
        shown = min(_SHOWN_ROWS, self.rows)
        if (found := self.shares()) is not None:
            texts = [shares_text(share, found[0]) for share in found[1][:shown].cpu().numpy()]
        elif self.variable is not None and len(self.variable.event_shape) > 1:
            return f"{head}: {self.variable.describe()}"
        else:
            pairs = [each[:shown].tolist() for each in self.moments()]
            texts = [", ".join(map(_number_text, *row)) for row in zip(*pairs, strict=True)]
        if self.sources is not None:
            told = ["" if each == "inferred" else f" ({each})" for each in self.sources]
            texts = [text + how for text, how in zip(texts, told, strict=False)]
        return f"{head}\n  {'; '.join(texts)}{'; ...' * (self.rows > shown)}"


@dataclass(frozen=True, eq=False, repr=False)
class GaussianPosterior(NodePosterior):
    """A normal distribution, exactly; an observed row has its value and no covariance."""

    mean: Tensor  #: (B, *event), in data units
    covariance: Tensor  #: (B, D, D) of the flattened event

    @property
    def rows(self) -> int:
        """B, the number of rows of evidence."""
        return len(self.mean)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each number of a row, (B, D) each."""
        return self.mean.reshape(self.rows, -1), _spread(self.covariance)

    def quantile(self, level: float) -> Tensor:
        """The value below which each number of a row lies with this probability, (B, D)."""
        mean, spread = self.moments()
        return mean + NormalDist().inv_cdf(level) * spread


@dataclass(frozen=True, eq=False, repr=False)
class CategoryPosterior(NodePosterior):
    """The probability of each category, or of each whole number within bounds, exactly.

    Where an image bears on it, exactly given the anticausal predictor.
    """

    probabilities: Tensor  #: (B, K); an observed row has a 1
    values: Tensor  #: (K,) which value each column stands for: codes, or whole numbers

    @property
    def rows(self) -> int:
        """B, the number of rows of evidence."""
        return len(self.probabilities)

    def shares(self) -> tuple[Sequence[object], Tensor]:
        """The K categories, or whole numbers, with their probabilities, (B, K)."""
        values: list[Any] = self.values.long().tolist()
        if isinstance(self.variable, Categorical) and self.variable.labels is not None:
            values = [self.variable.labels[int(code)] for code in values]
        return values, self.probabilities

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of whole numbers, (B, 1) each."""
        numbers = self._numbers()
        mean = (self.probabilities * numbers).sum(1, keepdim=True)
        return mean, (self.probabilities * (numbers - mean).square()).sum(1, keepdim=True).sqrt()

    def quantile(self, level: float) -> Tensor:
        """The least whole number that is reached with this probability, (B, 1)."""
        below = (self.probabilities.cumsum(1) < level - 1e-12).sum(1, keepdim=True)
        return self._numbers()[below.clamp(max=len(self.values) - 1)]

    def _numbers(self) -> Tensor:
        if isinstance(self.variable, Categorical):
            raise DomainError(
                f"{self.node!r} has categories, which have no mean and no quantiles: shares() tells their "
                "probabilities."
            )
        return self.values.double()


@dataclass(frozen=True, eq=False, repr=False)
class MixturePosterior(NodePosterior):
    """A mixture of normal distributions, exactly; an observed row has its value, and no covariance.

    There is one for each combination of the missing categories that are inferred together with the number.
    """

    weights: Tensor  #: (K, B), summing to 1 over K
    means: Tensor  #: (K, B, *event), in data units
    covariances: Tensor  #: (K, B, D, D) of the flattened event

    @property
    def rows(self) -> int:
        """B, the number of rows of evidence."""
        return self.weights.shape[1]

    @property
    def mean(self) -> Tensor:
        """(B, *event) of the mixture."""
        weights = self.weights.reshape(*self.weights.shape, *[1] * (self.means.ndim - 2))
        return (weights * self.means).sum(0)

    @property
    def covariance(self) -> Tensor:
        """(B, D, D) of the mixture, of the flattened event: within its parts and between them."""
        apart = (self.means - self.mean).reshape(*self.weights.shape, -1)
        spread = self.covariances + apart[..., :, None] * apart[..., None, :]
        return (self.weights[..., None, None] * spread).sum(0)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each number of a row, (B, D) each."""
        return self.mean.reshape(self.rows, -1), _spread(self.covariance)

    def quantile(self, level: float) -> Tensor:
        """The value below which each number of a row lies with this probability, (B, D), by bisection."""
        means = self.means.reshape(len(self.means), self.rows, -1)
        spreads = _spread(self.covariances)
        parts = means + NormalDist().inv_cdf(level) * spreads  # theirs is between that of the parts
        low, high = parts.amin(0), parts.amax(0)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            certain = (middle >= means).to(means)  # a part without spread is a step
            below = torch.where(
                spreads > 0, torch.special.ndtr((middle - means) / spreads.clamp(min=1e-300)), certain
            )
            enough = (self.weights[..., None] * below).sum(0) >= level
            low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
        return high


@dataclass(frozen=True, eq=False, repr=False)
class SamplePosterior(NodePosterior):
    """Weighted draws; one that has all the weight, of what is not determined, has an unknown spread, NaN."""

    values: Tensor  #: (P, B, *event) in canonical encoding; an observed row has its value P times
    weights: Tensor  #: (P, B), summing to 1 over P

    @property
    def rows(self) -> int:
        """B, the number of rows of evidence."""
        return self.weights.shape[1]

    @property
    def effective_sample_size(self) -> Tensor:
        """(B,) draws of equal weight that would say as much (Kong 1992): 1 / sum of squared weights."""
        return 1 / self.weights.square().sum(0)

    def shares(self) -> tuple[Sequence[object], Tensor] | None:
        """The K categories with their probabilities, (B, K); None of numbers."""
        if not isinstance(self.variable, Categorical):
            return None
        codes = range(self.variable.size)
        found = [torch.where(self.values == code, self.weights, 0).sum(0) for code in codes]
        return self.variable.labels or codes, torch.stack(found, 1)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each number of a row, (B, D) each."""
        values = self._numbers()
        mean = torch.einsum("pb,pbd->bd", self.weights.double(), values)
        square = torch.einsum("pb,pbd->bd", self.weights.double(), (values - mean).square())
        square = square / (1 - self.weights.double().square().sum(0))[:, None]  # S / (S - 1) of S equal ones
        spread = torch.where((values == values[0]).all(0), 0, square.sqrt())
        return mean, spread.masked_fill(self._untold, torch.nan)

    def quantile(self, level: float) -> Tensor:
        """The value below which each number of a row lies with this probability, (B, D)."""
        values, order = self._numbers().sort(0)
        reached = self.weights.double()[..., None].expand_as(values).gather(0, order).cumsum(0)
        place = (reached < level - 1e-12).sum(0, keepdim=True).clamp(max=len(values) - 1)
        return values.gather(0, place)[0].masked_fill(self._untold, torch.nan)

    @property
    def _untold(self) -> Tensor:
        """(B, 1) bool, in which rows one draw alone counts, and others may differ."""
        sure = np.isin(self.sources, ["observed", "exact"]) if self.sources is not None else False
        alone = (self.effective_sample_size < 1 + 1e-9)[:, None]
        return alone & ~torch.as_tensor(sure).reshape(-1, 1).to(alone.device)

    def _numbers(self) -> Tensor:
        """The numbers of the draws, (P, B, D) float64, as the user has them: pixels in [0, 1]."""
        shown = self.variable.decode(self.values) if isinstance(self.variable, Image) else self.values
        return shown.reshape(*self.weights.shape, -1).double()


def _number_text(mean: float, spread: float) -> str:
    return spread_text(mean, spread) + (" +- unknown" if math.isnan(spread) else "")


def _spread(covariance: Tensor) -> Tensor:
    """Standard deviations (..., D) of covariances (..., D, D)."""
    return covariance.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()


Posterior = GaussianPosterior | CategoryPosterior | MixturePosterior | SamplePosterior
