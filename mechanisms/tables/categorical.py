"""``x := argmax_k (logits_k(pa) + u_k)``, u Gumbel: a category and the posterior of its noise.

Gumbel-max (Maddison & Tarlow 2017, "Gumbel Machinery"; Oberst & Sontag 2019): given x, the top score
t = max_k (logits_k + u_k) ~ Gumbel(logsumexp logits) whatever x is, and every other score is a
Gumbel(logits_k) truncated at t: -log(exp(-t) + exp(-(logits_k + g))), g a fresh Gumbel.

``coupling: monotone`` takes the inverse distribution function of one uniform u instead, for categories
with an order: x = #{k < K - 1: u >= P(x <= k)}; given x, u is uniform on x's step.

Logits are log frequencies looked up by the parents' categories, a regression on the parents (``logits.py``),
or a network of them, images too, beside a line in their numbers and categories, at which its training starts:

    root     P(k) = (n_k + s / K) / (n + s)               s the smoothing, of K categories
    table    P(k | pa) = (n_k,pa + s P(k)) / (n_pa + s)   P(k) as of a root: the overall frequencies
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import ClassVar, Literal, final

import pyro.distributions as dist
import torch
from pydantic import Field
from torch import Tensor

from graphs import variables
from graphs.errors import EvidenceError, MechanismError
from mechanisms.base import Abducted, Mechanism, Noise, Parents
from mechanisms.conditioning import Conditioning
from mechanisms.encoders import EncodingSpec
from mechanisms.networks import DenseNetwork
from mechanisms.options import Hidden
from mechanisms.seeds import gumbels, uniforms
from mechanisms.tables.logits import REGRESSIONS, Line
from mechanisms.training import LEAST_TRAINED_ROWS, Training

__all__ = ["Categorical", "CategoricalMechanism"]

_LARGEST_TABLE = 100_000

_REGRESSED = 20_000
"""Most rows that the start of a network looks at."""


class Categorical(EncodingSpec, frozen=True):
    """A categorical node.

    Attributes:
        logits: "table" of smoothed frequencies, one row for each combination of the parents' categories;
            "linear" in the parents, which is logistic regression; "ordinal", of categories with an order,
            proportional odds (McCullagh 1980); "network" of the parents; "auto" is a table where all parents
            are categorical and it has at most 100,000 entries, and else what rows held out favour of these
            (``causalgen.fitting.choosing``). A root is a table.
        smoothing: rows added in all: to a root spread evenly, to each combination of parents by the overall
            frequencies, which a combination never seen follows. Where n rows have a combination they draw
            effects towards none, by smoothing / (n + smoothing). At 0, what was never seen has probability
            zero. Of linear and ordinal logits, the weight of their penalty: at 0, rows whose categories a
            line separates have no likeliest one, and a very steep one is taken.
        coupling: how noise makes the category: "gumbel", or "monotone" for categories with an order.
        hidden: widths of the network's hidden layers.
        encoder: of image parents, trained with the network; None for a small one by their size.
        training: of the network; a table is counted, and regressions are solved.
    """

    learned: ClassVar[tuple[str, ...]] = ("smoothing",)
    kind: Literal["categorical"] = "categorical"
    training: Training | None = Training(epochs=50, batch_size=256, learning_rate=3e-3)
    logits: Literal["auto", "table", "linear", "ordinal", "network"] = "auto"
    smoothing: float = Field(default=1.0, ge=0)
    coupling: Literal["gumbel", "monotone"] = "gumbel"
    hidden: Hidden = (64, 64)

    def candidates(
        self, variable: variables.Variable, parents: Mapping[str, variables.Variable]
    ) -> tuple[Categorical, ...]:
        """Regressions and a network where some parents are numbers and none an image."""
        kinds = {parent.type for parent in parents.values()}
        fixed = self.logits != "auto" or self.training is None
        if fixed or "image" in kinds or kinds <= {"categorical"}:
            return ()
        ordered = isinstance(variable, variables.Categorical) and variable.ordered and variable.size > 2
        forms = ("ordinal", "linear", "network") if ordered else ("linear", "network")
        return tuple(self.model_copy(update={"logits": each}) for each in forms)

    def make(
        self, variable: variables.Variable, parents: Mapping[str, variables.Variable]
    ) -> CategoricalMechanism:
        """The mechanism for one categorical variable and its parents.

        Raises:
            MechanismError: the variable is not categorical, a table was asked for with a parent that is not
                categorical, linear or ordinal logits with an image, ordinal ones of categories without an
                order, or the encoder has no image to read, or one that it cannot.
        """
        if not isinstance(variable, variables.Categorical):
            raise MechanismError(
                f"Mechanism 'categorical' needs a categorical variable, got {variable.describe()}."
            )
        return CategoricalMechanism(self, variable, parents)


@final
class CategoricalMechanism(Mechanism):
    """Gumbel-max or inverse-distribution categories; ``abduct`` draws from the posterior, in closed form.

    Noise: ``gumbel`` (N, K), or ``uniform`` (N,) with the monotone coupling; float64.
    """

    abduction = "posterior"
    deterministic = False
    log_probabilities = ("table",)
    table: Tensor
    spec: Categorical
    variable: variables.Categorical

    def __init__(
        self, spec: Categorical, variable: variables.Categorical, parents: Mapping[str, variables.Variable]
    ) -> None:
        super().__init__(spec, variable, parents)
        self.categories = variable.size
        self.tabular = _is_table(spec, variable, parents)
        encoders = spec.encoders(parents)
        if encoders and spec.logits in REGRESSIONS:
            raise MechanismError(
                f"Logits that are {spec.logits} read no images, as {', '.join(map(repr, encoders))}. Use "
                "logits: network."
            )
        if spec.logits == "ordinal" and not variable.ordered:
            raise MechanismError(
                "Ordinal logits are of categories with an order. Declare them with ordered: true, or use "
                "logits: linear."
            )
        start = torch.zeros(self.categories, dtype=torch.float64)
        if self.tabular:
            combinations = prod(_size(parent) for parent in parents.values())
            self.register_buffer("table", start.repeat(combinations, 1))
        else:
            self.conditioning = Conditioning(parents, encoders=encoders)
            width, slices = self.conditioning.width, self.conditioning.slices
            form = REGRESSIONS.get(spec.logits)
            self.regression = None if form is None else form(width, self.categories)
            if self.regression is None:
                self.least_rows = LEAST_TRAINED_ROWS
                self.network = DenseNetwork(width, spec.hidden, start)
                numbers = (range(width)[slices[name]] for name in slices if name not in encoders)
                self.numbers = [each for columns in numbers for each in columns]
                self.line = Line(len(self.numbers), self.categories) if self.numbers else None

    def logits(self, parents: Parents, rows: int) -> Tensor:
        """(N, K) normalised log probabilities; -inf for what cannot happen. ``rows`` is N."""
        if not self.tabular:
            context = self.conditioning(parents)
            if self.regression is not None:
                return self.regression(context)
            logits = self.network(context)
            if self.line is not None:
                logits = logits + self.line(self._without_images(context))
            return logits.log_softmax(-1)
        if not self.parents:
            return self.table.expand(rows, -1)
        return self.table.index_select(0, self._combination(parents))

    def distribution(self, parents: Parents, rows: int) -> dist.Categorical:
        """p(x | pa) as a Pyro distribution of batch shape (N,)."""
        return dist.Categorical(logits=self.logits(parents, rows))

    def sample_noise(self, n: int, *, generator: torch.Generator) -> Noise:
        """Gumbels or uniforms for ``n`` rows, on the generator's device."""
        if self.spec.coupling == "gumbel":
            return Noise(n, {"gumbel": gumbels((n, self.categories), generator)})
        return Noise(n, {"uniform": uniforms((n,), generator)})

    def generate(self, parents: Parents, noise: Noise) -> Tensor:
        """(N,) int64 codes."""
        logits = self.logits(parents, noise.n)
        if self.spec.coupling == "gumbel":
            return (logits + noise["gumbel"]).argmax(-1)
        return (noise["uniform"][:, None] >= _edges(logits)).sum(-1)

    def abduct(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Abducted:
        """A draw of p(u | x, pa)."""
        logits = self.logits(parents, len(value))
        if self.spec.coupling == "gumbel":
            chosen = logits.gather(1, value[:, None])
            self._refuse_impossible(chosen[:, 0] > -torch.inf, value)
            return Abducted(Noise(len(value), {"gumbel": _posterior_gumbel(logits, value, generator)}))
        padded = torch.nn.functional.pad(_edges(logits).clamp(max=1.0), (1, 1))
        padded[:, -1] = 1.0
        low, high = (padded.gather(1, (value + step)[:, None])[:, 0] for step in (0, 1))
        self._refuse_impossible(high > low, value)
        uniform = low + (high - low) * uniforms((len(value),), generator)
        # Rounding may reach the upper edge, which belongs to the next category.
        below = torch.nextafter(high, torch.zeros_like(high))
        return Abducted(Noise(len(value), {"uniform": torch.minimum(uniform, below)}))

    def prepare(self, value: Tensor, parents: Parents) -> None:
        """Standardise the inputs, and fit or start at logistic regression; of images at frequencies."""
        if self.tabular:
            return
        self.conditioning.prepare(parents)
        counts = torch.bincount(value, minlength=self.categories).double()
        # A finite start, whatever the smoothing: no gradient leads away from -inf.
        frequencies = (counts + max(self.spec.smoothing, 0.5) / self.categories).log().log_softmax(-1)
        context = self.conditioning(parents, len(value), images=False)
        if self.regression is not None:
            self.regression.prepare(context, value, frequencies, self.spec.smoothing)
            return
        if self.line is not None:
            some = torch.arange(min(len(value), _REGRESSED), device=value.device)
            some = some * len(value) // len(some)
            frequencies = self.line.prepare(self._without_images(context)[some], value[some], frequencies)
        self.network.bias.data.copy_(frequencies)

    def solve(self, value: Tensor, parents: Parents) -> bool:
        """Count the table; of a regression ``prepare`` has done all; False for a network."""
        if not self.tabular:
            return self.regression is not None
        rows = self._combination(parents) if self.parents else torch.zeros_like(value)
        cells = torch.bincount(rows * self.categories + value, minlength=self.table.numel())
        counts = cells.reshape(self.table.shape).to(self.table)
        # Spread over the categories: by a row for each, labels that no row has, as those of most countries,
        # would be drawn as often as there are of them.
        overall = counts.sum(0, keepdim=True) + self.spec.smoothing / self.categories
        if self.parents:
            # Not by even odds: of parents that met once or twice these outweigh the rows, and what is rare in
            # all of them would be told as common.
            added = self.spec.smoothing * overall / overall.sum()
            counts = torch.where(counts.sum(1, keepdim=True) > 0, counts + added, overall)
        else:
            counts = overall
        self.table.copy_(counts.log().log_softmax(-1))
        return True

    def log_prob(self, value: Tensor, parents: Parents) -> Tensor:
        """(N,) log p(x | pa); -inf for what cannot happen."""
        return self.logits(parents, len(value)).gather(1, value[:, None])[:, 0]

    def diluted(self, parents: Parents) -> float:
        """What share of an effect of these parents the smoothing of a table takes, the mean over rows."""
        if not (self.tabular and self.parents):
            return 0.0
        rows = self._combination(parents)
        return float((self.spec.smoothing / (rows.bincount()[rows] + self.spec.smoothing)).mean())

    def _without_images(self, context: Tensor) -> Tensor:
        """The columns of a context that are no image's features."""
        return context if len(self.numbers) == context.shape[1] else context[:, self.numbers]

    def _combination(self, parents: Parents) -> Tensor:
        """(N,) the table row of each combination of parents, the last parent running fastest."""
        index: Tensor | None = None
        for name, parent in self.parents.items():
            index = parents[name] if index is None else index * _size(parent) + parents[name]
        assert index is not None, "a root has no combination"
        return index

    def _refuse_impossible(self, possible: Tensor, value: Tensor) -> None:
        """Refuse rows whose category has probability zero."""
        if not bool(possible.all()):
            row = int((~possible).nonzero()[0])
            raise EvidenceError(
                f"Row {row}: category {int(value[row])} has probability zero given its parents, so no noise "
                "explains it. Fit with smoothing > 0, or check this row's parents."
            )


def _size(variable: variables.Variable) -> int:
    """The number of categories of a variable that is known to be categorical."""
    assert isinstance(variable, variables.Categorical), "only categorical parents index a table"
    return variable.size


def _is_table(
    spec: Categorical, variable: variables.Categorical, parents: Mapping[str, variables.Variable]
) -> bool:
    """Whether the logits are a table."""
    others = [name for name, parent in parents.items() if not isinstance(parent, variables.Categorical)]
    if spec.logits == "table" and others:
        raise MechanismError(
            f"A table of logits needs categorical parents; {others} are not. Use logits: linear, or network."
        )
    if others or (spec.logits in (*REGRESSIONS, "network") and parents):
        return False
    entries = variable.size * prod(_size(parent) for parent in parents.values())
    return spec.logits == "table" or not parents or entries <= _LARGEST_TABLE


def _posterior_gumbel(logits: Tensor, value: Tensor, generator: torch.Generator) -> Tensor:
    """(N, K) Gumbels given that ``value`` (N,) has the top score; logits (N, K) are normalised."""
    logits = logits.double()
    fresh = gumbels(tuple(logits.shape), generator)
    chosen = value[:, None]
    # The top score is Gumbel(logsumexp) = Gumbel(0): any fresh Gumbel of the row serves, as the
    # chosen category's own is not needed otherwise.
    top = fresh.gather(1, chosen)
    others = -torch.logaddexp(-top, -(logits + fresh))
    # Far above the top, truncation rounds to a tie: keep every other score strictly below.
    finite = torch.where(logits.isinf(), torch.zeros_like(logits), logits)
    margin = 8 * torch.finfo(torch.float64).eps * (1 + top.abs() + finite.abs())
    others = torch.minimum(others, top - margin) - finite
    # A category that cannot happen is never constrained: its noise keeps the prior.
    others = torch.where(logits.isinf(), fresh, others)
    return others.scatter(1, chosen, top - logits.gather(1, chosen))


def _edges(logits: Tensor) -> Tensor:
    """(N, K - 1) upper edges of the steps of the distribution function, the last step's dropped.

    A cumulative sum may end below 1; an edge above which nothing has any probability is therefore put at
    infinity, or a uniform in the gap would give a category that cannot happen.
    """
    probabilities = logits.double().exp()
    above = probabilities.flip(-1).cumsum(-1).flip(-1)[:, 1:]
    edges = probabilities.cumsum(-1)[:, :-1]
    return torch.where(above > 0, edges, torch.inf)
