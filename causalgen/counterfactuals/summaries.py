"""Summary statistics of draws: mean, spread and quantiles of numbers, probabilities of categories.

Over S draws of a row; standard deviations divide by S - 1. Where evidence determines a value its spread is 0.
One draw of a value that is not determined has an unknown spread, NaN, and tells no probability; nor do
several that are copies of one particle, the only one that the evidence left.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from causalgen.data.frames import number_names
from graphs.text import aligned
from graphs.variables import Categorical, Image, Variable, image_variables, table_variables
from graphs.variables.arrays import as_array

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


__all__ = [
    "CounterfactualLike",
    "DrawsLike",
    "contrast_text",
    "draw_texts",
    "evidence_texts",
    "inferred_texts",
    "is_counterfactual",
    "node_texts",
    "number_text",
    "one_draw",
    "shares_text",
    "spread_text",
    "summarise",
    "summarise_contrast",
    "summarise_inferred",
    "summary_text",
    "undetermined_nodes",
    "value_text",
]

_QUANTILES = {"5%": 0.05, "50%": 0.5, "95%": 0.95}
_SHOWN_ROWS, _SHOWN_CATEGORIES = 4, 3
_WHOLE = 2.0**53
"""Numbers up to which all digits before the point are shown."""
_ROUNDING = 64 * np.finfo(float).eps
"""How far apart rounding may put equal draws, in parts of their size."""


class DrawsLike(Protocol):
    """What is shown and saved of ``results.Draws``."""

    variables: Mapping[str, Variable]
    rows: int
    samples: int | None
    seed: int
    index: pd.Index | None

    @property
    def provenance(self) -> Mapping[str, NDArray[np.object_]]:
        """How each row of each node was obtained."""
        ...

    def __getitem__(self, node: str) -> Any: ...
    def __iter__(self) -> Iterator[str]: ...
    def keys(self) -> Iterable[str]:
        """The nodes."""
        ...

    def draws(self, node: str) -> Tensor:
        """Values of a node, (S, B, *event)."""
        ...

    def plot(self) -> Figure:
        """A picture of the rows."""
        ...


class ReadingsLike(Protocol):
    """What is saved of ``own_readings.OwnReadings``."""

    def __len__(self) -> int: ...
    def to_frame(self) -> pd.DataFrame:
        """What is asked and read."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """The same as plain values."""
        ...


class CounterfactualLike(DrawsLike, Protocol):
    """What is shown and saved of ``results.Counterfactual``."""

    do: Mapping[str, str]
    lineages: tuple[Tensor, ...]

    @property
    def factual(self) -> Mapping[str, Any]:
        """What was observed."""
        ...

    @property
    def inferred(self) -> Mapping[str, Any]:
        """What was drawn where nothing was observed."""
        ...

    @property
    def sources(self) -> Mapping[str, NDArray[np.object_]]:
        """Where evidence comes from."""
        ...

    @property
    def determined(self) -> Mapping[str, NDArray[np.bool_]]:
        """Whether evidence determines a value."""
        ...

    @property
    def readings(self) -> ReadingsLike:
        """What the model itself reads in its images."""
        ...

    def inferred_draws(self, node: str) -> Tensor:
        """The evidence of a node, (S, B, *event)."""
        ...


@dataclass(frozen=True)
class _Column:
    """A number or a category of each row: its draws, (S, B), and which rows evidence determines, (B,)."""

    node: str
    name: str
    draws: NDArray[Any]
    determined: NDArray[np.bool_]
    labels: Sequence[object] | None
    alone: NDArray[np.bool_] | None = None  # (B,) in which rows all draws come from one particle

    @property
    def known(self) -> NDArray[np.bool_]:
        """(B,) whether the draws tell their spread."""
        if self.alone is None or not self.alone.any():
            return self.determined | (len(self.draws) > 1)
        differ = (self.draws != self.draws[0]).any(0)
        return self.determined | ((len(self.draws) > 1) & (differ | ~self.alone))

    def statistics(self) -> dict[str, NDArray[np.floating[Any]]]:
        """Mean, standard deviation and quantiles of a number, (B,) each."""
        values = self.draws.astype(float)
        spread = values.std(0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])
        spread[np.ptp(values, 0) <= _ROUNDING * np.abs(values).max(0)] = 0.0  # rounding is no spread
        quantiles = np.quantile(values, list(_QUANTILES.values()), axis=0)
        found = {"sd": spread, **dict(zip(_QUANTILES, quantiles, strict=True))}
        unless = {name: np.where(self.known, each, np.nan) for name, each in found.items()}
        return {"mean": values.mean(0)} | unless

    def shares(self) -> NDArray[np.floating[Any]]:
        """(K, B) how often each category occurs."""
        return np.stack([(self.draws == code).mean(0) for code in range(len(self.labels or ()))])


def is_counterfactual(draws: DrawsLike) -> TypeGuard[CounterfactualLike]:
    """Whether there is evidence behind a result."""
    return hasattr(draws, "factual")


def summarise(cf: CounterfactualLike) -> pd.DataFrame:
    """The draws of a counterfactual: a line for each node, row and, of a categorical node, category.

    Index (node, row, category), with the index of the evidence in the place of row where it has one, and the
    category "" of numbers; categories that no draw took are left out, and so
    are images; a vector has a line for each of its numbers. Columns ``mean``, ``sd``, ``5%``, ``50%``,
    ``95%`` of numbers, ``probability`` of categories, and ``provenance``.
    """
    return _table(_columns(cf, slice(None)), cf, cf.provenance)


def summarise_inferred(cf: CounterfactualLike) -> pd.DataFrame:
    """The same of the values in the place of missing evidence, "inferred", of the "prior" or "exact"."""
    sources, alone = cf.sources, _alone(cf)
    columns = [
        column
        for node in cf.inferred
        for column in _parts(node, cf.variables, cf.inferred_draws(node), sources[node] == "exact", alone)
    ]
    table = _table(columns, cf, sources)
    return table.loc[table["provenance"] != "observed"]


def summarise_contrast(
    one: CounterfactualLike, other: CounterfactualLike, nodes: Iterable[str]
) -> pd.DataFrame:
    """The same of differences; of a categorical node the probability of the category "differs"."""
    return _table(_differences(one, other, nodes, slice(None)), one, None)


def summary_text(cf: CounterfactualLike) -> str:
    """A line for each node: mean and spread of its first rows, and how they were obtained."""
    lines = [
        (name, text, ", ".join(dict.fromkeys(cf.provenance[node].tolist())))
        for node, name, text in node_texts(cf)
    ]
    return "\n".join([*aligned(lines), *one_draw(cf)])


def node_texts(cf: CounterfactualLike, *, images: bool = True) -> list[tuple[str, str, str]]:
    """Node, name and "mean +- sd" of the first rows, for each number, category and image of a row."""
    texts = [(column.node, column.name, _text(column, cf.rows)) for column in _columns(cf, _FIRST)]
    if images:
        pictures = image_variables(cf.variables)
        texts += [(node, node, cf.variables[node].describe()) for node in pictures]
    order = list(cf.variables)
    return sorted(texts, key=lambda line: order.index(line[0]))


def inferred_texts(cf: CounterfactualLike, rows: int = _SHOWN_ROWS) -> dict[str, dict[str, list[str]]]:
    """What was drawn for the first rows of each node with gaps, by the names of its numbers, "mean +- sd"."""
    return {node: draw_texts(node, cf.variables, cf.inferred_draws(node)[:, :rows]) for node in cf.inferred}


def evidence_texts(cf: CounterfactualLike, rows: int) -> Iterator[tuple[str, str, list[str]]]:
    """Node, name and first rows of each number of the evidence: what was observed, or else "mean +- sd"."""
    factual, sources, drawn = cf.factual, cf.sources, inferred_texts(cf, rows)
    for node, variable in table_variables(cf.variables).items():
        array = as_array(factual[node], where=node)
        flat = array.reshape(len(array), -1)[:rows]
        for part, name in enumerate(number_names(node, variable, cf.variables)):
            cells = enumerate(zip(flat[:, part].tolist(), sources[node], strict=False))
            told = [value_text(v) if how == "observed" else drawn[node][name][row] for row, (v, how) in cells]
            yield node, name, told


def draw_texts(node: str, variables: Mapping[str, Variable], draws: Tensor) -> dict[str, list[str]]:
    """Draws (S, B, *event) in canonical encoding by the names of their numbers, "mean +- sd" of each row."""
    unsure = np.zeros(draws.shape[1], dtype=np.bool_)
    return {column.name: _cells(column) for column in _parts(node, variables, draws, unsure)}


def contrast_text(one: CounterfactualLike, other: CounterfactualLike, nodes: Iterable[str]) -> str:
    """A line for each node: mean and spread of the difference in the first rows."""
    columns = _differences(one, other, nodes, _FIRST)
    lines = [(column.name, _text(column, one.rows)) for column in columns]
    return "\n".join([*aligned(lines), *one_draw(one, other)])


def one_draw(*answers: CounterfactualLike) -> list[str]:
    """A line that says so where what is shown is one draw of a distribution."""
    nodes = undetermined_nodes(*answers)
    if not nodes or (answers[0].samples or 1) > 1:
        return []
    return [f"  one draw of a distribution of {', '.join(nodes)}: num_samples=... gives mean and spread"]


def undetermined_nodes(*answers: CounterfactualLike) -> list[str]:
    """The nodes of which another seed may give another value in some row."""
    unsure = {node for each in answers for node, known in each.determined.items() if not known.all()}
    return [node for node in answers[0].variables if node in unsure]


_FIRST = slice(_SHOWN_ROWS)


def _columns(cf: CounterfactualLike, rows: slice) -> Iterator[_Column]:
    known, alone = cf.determined, _alone(cf)[rows]
    for node in cf.variables:
        yield from _parts(node, cf.variables, cf.draws(node)[:, rows], known[node][rows], alone)


def _differences(
    one: CounterfactualLike, other: CounterfactualLike, nodes: Iterable[str], rows: slice
) -> Iterator[_Column]:
    known, also, alone = one.determined, other.determined, (_alone(one) | _alone(other))[rows]
    for node in nodes:
        variable = one.variables[node]
        pair = one.draws(node)[:, rows], other.draws(node)[:, rows]
        if isinstance(variable, Categorical):
            differ = (pair[0] != pair[1]).cpu().numpy()
            yield _Column(node, node, differ, (known[node] & also[node])[rows], ("same", "differs"), alone)
        else:
            sure = (known[node] & also[node])[rows]
            yield from _parts(node, one.variables, pair[0] - pair[1], sure, alone)


def _alone(cf: CounterfactualLike) -> NDArray[np.bool_]:
    """(B,) in which rows all draws are copies of one particle."""
    found = np.zeros(cf.rows, dtype=np.bool_)
    for lineage in cf.lineages:
        found |= (lineage == lineage[0]).all(0).cpu().numpy()
    return found


def _parts(
    node: str,
    variables: Mapping[str, Variable],
    draws: Tensor,
    determined: NDArray[np.bool_],
    alone: NDArray[np.bool_] | None = None,
) -> Iterator[_Column]:
    """The numbers of a node's rows, from draws (S, B, *event) in canonical encoding; none of an image."""
    variable = variables[node]
    if isinstance(variable, Image):
        return
    values = draws.reshape(*draws.shape[:2], math.prod(variable.event_shape)).cpu().numpy()
    labels = None
    if isinstance(variable, Categorical):
        labels = variable.labels or range(variable.size)
    for part, name in enumerate(number_names(node, variable, variables)):
        yield _Column(node, name, values[..., part], determined, labels, alone)


def _table(
    columns: Iterable[_Column], draws: DrawsLike, sources: Mapping[str, NDArray[np.object_]] | None
) -> pd.DataFrame:
    """The columns below each other, with the source of each row as provenance."""
    import pandas as pd

    rows, levels = np.arange(draws.rows), _row_levels(draws)
    keys = ["node", *levels, "category"]
    order = [*keys, "mean", "sd", *_QUANTILES, "probability"] + ["provenance"] * (sources is not None)
    frames: list[pd.DataFrame] = []
    for column in columns:
        found: dict[str, Any] = {"node": column.name, "category": ""}
        place = rows
        if column.labels is None:
            found |= column.statistics()
        else:
            shares = column.shares()
            place, codes = (shares.T > 0).nonzero()
            labels = np.array([str(label) for label in column.labels], dtype=object)
            probability = np.where(column.known, shares, np.nan)[codes, place]
            found |= {"category": labels[codes], "probability": probability}
        found |= {name: level[place] for name, level in levels.items()}
        if sources is not None:
            found["provenance"] = sources[column.node][place]
        frames.append(pd.DataFrame(found))
    table = pd.concat(frames) if frames else pd.DataFrame(columns=order)
    return table.reindex(columns=order).set_index(keys)


def _row_levels(draws: DrawsLike) -> dict[str, Any]:
    """What tells rows apart: their number, or the levels of the evidence's index, by name."""
    import pandas as pd

    if draws.index is None:
        return {"row": np.arange(draws.rows)}
    taken = {"node", "category", "mean", "sd", *_QUANTILES, "probability", "provenance", None}
    own = [None if name in taken else str(name) for name in draws.index.names]
    names: list[str] = []
    for level, name in enumerate(own):
        told = name or (f"row_{level}" if level else "row")
        while told in names or (name is None and told in own):
            told = f"{told}_index"
        names.append(told)
    if isinstance(draws.index, pd.MultiIndex):
        return {name: draws.index.get_level_values(level) for level, name in enumerate(names)}
    return {names[0]: draws.index}


def _text(column: _Column, rows: int) -> str:
    cells = _cells(column)
    return ", ".join(cells) + (", ..." if rows > len(cells) else "")


def _cells(column: _Column) -> list[str]:
    """Each row: a number as "mean +- sd", a category by its shares; a value alone where it has no spread."""
    if column.labels is not None:
        return [shares_text(share, column.labels) for share in column.shares().T]
    found = column.statistics()
    return list(map(spread_text, found["mean"].tolist(), found["sd"].tolist()))


def number_text(number: float, spread: float = 0.0) -> str:
    """A number in four digits, and those that its spread speaks of, up to ten.

    Without a spread it has all digits of its whole part.
    """
    if not spread > 0:
        return f"{number + 0.0:{'.0f' if 1e3 <= abs(number) < _WHOLE else '.4g'}}"
    if not (number and math.isfinite(number) and math.isfinite(spread)):
        return f"{number + 0.0:.4g}"
    spoken_of = math.floor(math.log10(abs(number))) - math.floor(math.log10(spread)) + 2
    return f"{number:.{min(max(spoken_of, 4), 10)}g}"


def spread_text(mean: float, spread: float) -> str:
    """A number's mean and standard deviation, "1.2 +- 0.3"; a value alone where it has no spread."""
    return number_text(mean, spread) + (f" +- {spread:.2g}" if spread > 0 else "")


def value_text(value: object) -> str:
    """A number without a spread as ``spread_text`` tells it; anything else as it is."""
    return spread_text(float(value), 0.0) if isinstance(value, float | np.floating) else str(value)


def shares_text(shares: NDArray[np.floating[Any]], labels: Sequence[object]) -> str:
    """The most probable categories, "a 0.70 | b 0.30"; a label alone where there is no other."""
    likely = [code for code in np.argsort(-shares, kind="stable") if shares[code] > 0]
    if len(likely) == 1:
        return str(labels[likely[0]])
    shown = [f"{labels[code]} {shares[code]:.2f}" for code in likely[:_SHOWN_CATEGORIES]]
    return " | ".join([*shown, "..."] if len(likely) > _SHOWN_CATEGORIES else shown)
