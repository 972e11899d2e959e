"""Effects as text and as tables."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from causalgen.effects.estimates import Estimate

if TYPE_CHECKING:
    from causalgen.effects.effect import Effect

__all__ = ["effect_frame", "effect_text", "individual_frame"]

_COLUMNS = ("value", "standard_error", "low", "high", "under_do", "under_versus")


def effect_frame(effect: Effect) -> pd.DataFrame:
    """A line a group, or a single one; a line for each component where the statistic has a shape.

    Columns: the nodes grouped by, ``component`` where there are several, then those of ``Estimate``.
    """
    if not effect.groups:
        return pd.DataFrame(_lines(effect.overall))
    lines: list[dict[str, Any]] = []
    for label, each in effect.groups.items():
        labels = label if len(effect.given) > 1 else (label,)
        where = dict(zip(effect.given, labels, strict=True))
        lines += [{**where, **line} for line in _lines(each)]
    return pd.DataFrame(lines)


def individual_frame(effect: Effect) -> pd.DataFrame:
    """A line a row: its effect, and the standard error where rows are evidence; components side by side."""
    found = {"effect": effect.individual}
    if effect.individual_error is not None:
        found["standard_error"] = effect.individual_error
    columns: dict[str, Any] = {}
    for name, values in found.items():
        if values.ndim == 1:
            columns[name] = values
            continue
        flat = values.reshape(len(values), -1)
        columns |= {f"{name}_{number}": flat[:, number] for number in range(flat.shape[1])}
    index = effect.index
    return pd.DataFrame(
        columns, index=pd.RangeIndex(len(effect.individual), name="row") if index is None else index
    )


def effect_text(effect: Effect) -> str:
    """The question, the mean effect, and a line for each group."""
    rows = effect.overall.rows
    what = (
        "draws" if effect.individual_error is None else "row of evidence" if rows == 1 else "rows of evidence"
    )
    lines = [
        f"Effect on {effect.target} of {effect.do} against {_other(effect.versus)}",
        f"  {_line(effect.overall)}",
        f"  over {rows:,} {what} ({', '.join(effect.provenance)}); {100 * effect.confidence:g} % interval of "
        + _included(effect),
    ]
    if effect.groups:
        lines.append(f"by {', '.join(effect.given)}:")
        names = [", ".join(map(str, k if isinstance(k, tuple) else (k,))) for k in effect.groups]
        width = max(map(len, names))
        for name, each in zip(names, effect.groups.values(), strict=True):
            lines.append(f"  {name:<{width}}  {_line(each)}, {each.rows:,} rows")
    return "\n".join(lines)


def _included(effect: Effect) -> str:
    """What the interval is of, and what it leaves out."""
    if effect.refits:
        return f"{effect.refits} refits and finite draws, given the graph and the forms of the mechanisms"
    return "finite draws and rows; without the error of the fit (refits=...)"


def _lines(each: Estimate) -> list[dict[str, Any]]:
    shape = np.shape(each.value)
    if shape == ():
        return [{name: getattr(each, name) for name in _COLUMNS} | {"rows": each.rows}]
    flat = {name: np.reshape(getattr(each, name), -1) for name in _COLUMNS}
    return [
        {"component": tuple(map(int, np.unravel_index(number, shape)))}
        | {name: float(values[number]) for name, values in flat.items()}
        | {"rows": each.rows}
        for number in range(prod(shape))
    ]


def _line(each: Estimate) -> str:
    if np.shape(each.value) != ():
        return f"{_show(each.value)} +- {_show(each.standard_error)}"
    # What is left of shared noise after subtracting is rounding, and no error to speak of.
    scale = max(abs(each.under_do), abs(each.under_versus))
    error = 0.0 if each.standard_error <= 1e-13 * scale else each.standard_error
    return (
        f"{each.value:.4g} +- {error:.2g}  [{each.low:.4g}, {each.high:.4g}]  "
        f"({each.under_do:.4g} against {each.under_versus:.4g})"
    )


def _show(values: Any) -> str:
    return np.array2string(np.asarray(values), precision=4, threshold=8, edgeitems=2).replace("\n", "")


def _other(versus: str) -> str:
    return "no intervention" if versus == "do()" else versus
