"""``Tuning``: what every guidance strength scored, the one to take, and the curve of CLD against strength.

1. Effectiveness first: only strengths whose counterfactuals show the class asked for often enough count. CLD
   alone may prefer a strength that hardly ever reaches it. If none does, the most effective is taken.
2. Then the least CLD (Sanchez & Tsaftaris 2022, figure 5), up to its error: strengths whose CLD lies within
   the interval of the least are tied. A tie keeps the strength that the model has, or takes the smallest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causalgen.counterfactuals.export import figure_png
from causalgen.evaluation.pictures import plot_interval, tidy_axes
from causalgen.metrics.scores import Score
from causalgen.plotting.plot_style import ACCENT, FAINT, INK, SOFT, literal
from causalgen.saving.manifest import write_result
from causalgen.scm import SCM
from graphs.variables import Categorical
from mechanisms.diffusion.guidance import Guidance
from mechanisms.diffusion.mechanism import Diffusion

__all__ = [
    "Choice",
    "RESULT",
    "Tuned",
    "Tuning",
    "choose",
    "current_strength",
    "strength_option",
    "strength_options",
    "strength_steers_abduction",
]

RESULT = "tuning.json"

_DASHES = {"do nothing": ":", "random real": "--", "nearest real": "-."}
_SHOWN = ("CLD", "effectiveness", "IM1", "IM2", "distance")


@dataclass(frozen=True)
class Tuned:
    """One strength, and its counterfactuals' CLD, effectiveness, IM1, IM2 and distance (L1, 0..255)."""

    strength: float
    scores: Mapping[str, Score]


@dataclass(frozen=True)
class Choice:
    """The chosen point of a sweep, why, and whether it reaches the least effectiveness asked for."""

    point: Tuned
    reason: str
    effective: bool


@dataclass(frozen=True)
class Tuning:
    """A sweep of guidance strengths over the same rows."""

    node: str  # the image
    option: str  # "weight" (classifier-free guidance) or "scale" (anticausal)
    label: str  # the category that was set to another value
    evaluators: str  # name of the networks that scored
    rows: int  # how many rows
    seed: int  # of rows and new values
    points: tuple[Tuned, ...]  # by rising strength
    # The scores of doing nothing, and of a random and the nearest real image of the new class
    controls: Mapping[str, Mapping[str, Score]]
    floor: Score  # the least CLD that any image could score
    min_effectiveness: float = 0.95  # that a strength must reach to be chosen, where any does
    current: float | None = None  # the strength of the model that was tuned; None where it differs by row
    dropped: int = 0  # rows of the data that were left out, for they lack a value
    available: int = 0  # rows of the data that have every value

    @property
    def choice(self) -> Choice:
        """The point chosen, and why."""
        return choose(self.points, self.min_effectiveness, self.current)

    @property
    def best(self) -> Tuned:
        """The point chosen."""
        return self.choice.point

    def apply(self, scm: SCM) -> SCM:
        """The model with the chosen strength; it shares the weights."""
        options = strength_options(scm, self.node, self.label, self.best.strength)
        return scm.with_options(self.node, **options)

    def plot(self) -> Figure:
        """CLD and effectiveness against strength, beside their controls."""
        return _plot(self)

    def save(self, folder: Path | str, *, scm: SCM | None = None) -> Path:
        """Write ``curve.png`` and ``tuning.json`` to a folder, all or nothing.

        Args:
            folder: where to; an earlier tuning is replaced.
            scm: a model whose SCM file is written beside them, such as ``tuning.apply(scm)``.

        Raises:
            CheckpointError: the folder holds something else, or cannot be written.
        """
        files = [("curve.png", figure_png(self.plot()))]
        if scm is not None:
            files.append(("scm.yaml", scm.to_yaml().encode()))
        return write_result(folder, files, self.to_dict(), RESULT)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        told = {name: value for name, value in asdict(self).items() if isinstance(value, str | int)}
        scores = lambda each: {name: score.to_dict() for name, score in each.items()}  # noqa: E731
        return {
            **told,
            "best": self.best.strength,
            "reason": self.choice.reason,
            "min_effectiveness": self.min_effectiveness,
            "current": self.current,
            "points": [{"strength": each.strength, **scores(each.scores)} for each in self.points],
            "controls": {name: scores(each) for name, each in self.controls.items()},
            "floor": self.floor.to_dict(),
        }

    def __str__(self) -> str:
        """A table: a line a strength and a control, and the choice."""
        scored = [*((f"{each.strength:g}", each.scores) for each in self.points), *self.controls.items()]
        rows = [[name, *(str(scores[column]) for column in _SHOWN)] for name, scores in scored]
        rows = [[self.option, *_SHOWN], *rows, ["floor", str(self.floor)]]
        # Scores that leave rows out are long in words.
        width = max(25, *(2 + len(cell) for row in rows for cell in row[1:]))
        lines = [f"{name:>13}" + "".join(f"{cell:>{width}}" for cell in cells) for name, *cells in rows]
        last = (
            f"Chosen: {self.option} {self.best.strength:g}, {self.choice.reason}. "
            f"{self.rows:,} of {self.available:,} rows, evaluators of {self.evaluators}, do({self.label}). "
            "The best scores of the rows it was chosen on are better than it is: evaluate it on others."
        )
        if self.dropped:
            last += f" Rows left out, for they lack a value: {self.dropped:,}."
        return "\n".join([*lines, last])


def choose(points: Sequence[Tuned], least: float, current: float | None) -> Choice:
    """The point of a sweep, by rising strength, to take; see the head of the module.

    ``least`` is the effectiveness to reach, ``current`` the strength that the model has, or None where it
    differs by row.
    """
    allowed = [point for point in points if point.scores["effectiveness"].value >= least]
    if not allowed:
        most = max(points, key=lambda point: (point.scores["effectiveness"].value, -_cld(point)))
        share = most.scores["effectiveness"]
        return Choice(
            most, f"the most effective, at {share}; none reaches an effectiveness of {least:g}", False
        )
    best = min(allowed, key=_cld)
    interval = best.scores["CLD"]
    tied = [point for point in allowed if point is best or _cld(point) <= interval.high]
    dropped = f" of those that reach an effectiveness of {least:g}" if len(allowed) < len(points) else ""
    if len(tied) == 1:
        return Choice(best, f"the least CLD{dropped}", True)
    others = ", ".join(f"{point.strength:g}" for point in tied)
    told = f"its CLD is within the interval of the least{dropped} ({interval}, at {best.strength:g})"
    told += f", as that of {others}"
    for point in tied:
        if point.strength == current:
            return Choice(point, f"{told}; it is the model's own", True)
    return Choice(tied[0], f"{told}; it is the smallest of them", True)


def _cld(point: Tuned) -> float:
    return point.scores["CLD"].value


def strength_option(scm: SCM, node: str) -> str:
    """The name of a diffusion node's strength: "weight" (classifier-free) or "scale" (anticausal)."""
    return _guidance(scm, node).strength_option


def strength_options(scm: SCM, node: str, label: str, strength: float) -> dict[str, dict[str, object]]:
    """Options that give a category's guidance a strength, and leave those of other categories."""
    guidance, parents = _guidance(scm, node), scm.mechanisms[node].parents
    kept = {
        name: each
        for name, each in guidance.strengths(parents).items()
        if name != label and isinstance(parents[name], Categorical)
    }
    alone = not kept and not isinstance(guidance.strength, Mapping)
    return {"guidance": {guidance.strength_option: strength if alone else {**kept, label: strength}}}


def current_strength(scm: SCM, node: str, label: str) -> float | None:
    """The strength that a diffusion node has for a category; None where each row gets its own."""
    guidance = _guidance(scm, node)
    return None if guidance.automatic else guidance.strengths(scm.mechanisms[node].parents)[label]


def strength_steers_abduction(scm: SCM, node: str) -> bool:
    """Whether what abduction finds of a diffusion node depends on its strength."""
    guidance, parents = _guidance(scm, node), scm.mechanisms[node].parents
    return guidance.at(1.0).abduction_weights(parents) != guidance.at(2.0).abduction_weights(parents)


def _guidance(scm: SCM, node: str) -> Guidance:
    spec = scm.mechanisms[node].spec
    assert isinstance(spec, Diffusion)
    return spec.guidance


@literal
def _plot(tuning: Tuning) -> Figure:
    """CLD (lower is better) and effectiveness (higher is), with 95 % intervals and controls."""
    figure = Figure(figsize=(5.4, 5.4), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    tidy_axes(top, f"do({tuning.label})", f"{tuning.rows} rows")
    tidy_axes(bottom)
    _curve(top, tuning, "CLD")
    top.axhline(tuning.floor.value, color=SOFT, linewidth=0.9)
    _label(top, "floor", tuning.floor.value)
    _curve(bottom, tuning, "effectiveness")
    bottom.set_ylim(0, 1.03)
    bottom.axhline(tuning.min_effectiveness, color=SOFT, linewidth=0.9)
    name = {"weight": "weight w", "scale": "scale s"}[tuning.option]
    bottom.set_xlabel(f"guidance {name} of {tuning.label}", color=INK, fontsize=9)
    top.set_ylabel("CLD, nats", color=INK, fontsize=9)
    bottom.set_ylabel("effectiveness", color=INK, fontsize=9)
    return figure


def _curve(axes: Axes, tuning: Tuning, metric: str) -> None:
    scores = {point.strength: point.scores[metric] for point in tuning.points}
    plot_interval(axes, scores, ACCENT)
    for control, found in tuning.controls.items():
        value = found[metric].value
        axes.axhline(value, color=SOFT, linewidth=0.9, linestyle=_DASHES[control])
        _label(axes, control, value)
    best = tuning.best
    axes.plot([best.strength], [best.scores[metric].value], "o", color=INK, markersize=6, fillstyle="none")


def _label(axes: Axes, text: str, value: float) -> None:
    axes.annotate(
        text, (1, value), xycoords=("axes fraction", "data"), xytext=(4, 0),
        textcoords="offset points", va="center", fontsize=7.5, color=FAINT, annotation_clip=False,
    )  # fmt: skip
