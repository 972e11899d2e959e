"""``Tuning``: what every strength scored, the choice, and the curve of CLD against strength.

The choice is the least CLD among effective strengths, up to its error; see ``choice``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalgen.evaluation.tuning_choice import Choice, choose
from causalgen.metrics.scores import Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from causalgen.scm import SCM

__all__ = ["RESULT", "Tuned", "Tuning"]

RESULT = "tuning.json"

_SHOWN = ("CLD", "effectiveness", "IM1", "IM2", "distance")


@dataclass(frozen=True)
class Tuned:
    """One strength, and its counterfactuals' CLD, effectiveness, IM1, IM2 and distance (L1, 0..255)."""

    strength: float
    scores: Mapping[str, Score]


@dataclass(frozen=True)
class Tuning:
    """A sweep of guidance strengths over the same rows.

    Attributes:
        node: the image.
        option: "weight" (classifier-free guidance) or "scale" (anticausal).
        label: the category that was set to another value.
        judges: name of the networks that scored.
        rows: how many rows.
        seed: of rows and new values.
        points: by rising strength.
        controls: the scores of doing nothing, and of a random and the nearest real image of the new class.
        floor: the least CLD that any image could score.
        min_effectiveness: that a strength must reach to be chosen, where any does.
        current: the strength of the model that was tuned; None where it differs by row.
    """

    node: str
    option: str
    label: str
    judges: str
    rows: int
    seed: int
    points: tuple[Tuned, ...]
    controls: Mapping[str, Mapping[str, Score]]
    floor: Score
    min_effectiveness: float = 0.95
    current: float | None = None

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
        from causalgen.evaluation.tuning_strength import strength_options

        options = strength_options(scm, self.node, self.label, self.best.strength)
        return scm.with_options(self.node, **options)

    def plot(self) -> Figure:
        """CLD and effectiveness against strength, beside their controls."""
        from causalgen.evaluation.tuning_curve import plot_tuning

        return plot_tuning(self)

    def save(self, folder: Path | str, *, scm: SCM | None = None) -> Path:
        """Write ``curve.png`` and ``tuning.json`` to a folder, all or nothing.

        Args:
            folder: where to; an earlier tuning is replaced.
            scm: a model whose SCM file is written beside them, such as ``tuning.apply(scm)``.

        Raises:
            CheckpointError: the folder holds something else, or cannot be written.
        """
        from causalgen.counterfactuals.export import figure_png
        from causalgen.saving.result_folder import write_result

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
        head = f"{self.option:>13}" + "".join(f"{name:>25}" for name in _SHOWN)
        rows = [(f"{each.strength:g}", each.scores) for each in self.points]
        lines = [
            f"{name:>13}" + "".join(f"{scores[column]!s:>25}" for column in _SHOWN)
            for name, scores in [*rows, *self.controls.items()]
        ]
        floor = f"{'floor':>13}{self.floor!s:>25}"
        last = (
            f"Chosen: {self.option} {self.best.strength:g}, {self.choice.reason}. "
            f"{self.rows} rows, judges of {self.judges}, do({self.label})."
        )
        return "\n".join([head, *lines, floor, last])
