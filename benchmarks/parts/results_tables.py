"""The tables of the results page, as Markdown, from the saved results alone.

An entry is what ``causalgen evaluate`` writes: a metric of one subject (the mechanism, the whole model, or a
control) under one intervention, with its interval. Figures of several seeds are shown as their mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from causalgen.metrics.scores import figure

__all__ = [
    "Scores",
    "abductions",
    "composition",
    "effectiveness",
    "markdown",
    "mnist",
    "shortfalls",
    "speed",
    "training",
    "truth",
]

CAUSES = ("thickness", "intensity", "digit")
READ = {"digit": "digit, accuracy", "thickness": "thickness, MAE in px", "intensity": "intensity, MAE"}
PUBLISHED = {"digit": "digit_accuracy", "thickness": "thickness_mae", "intensity": "intensity_mae"}
MNIST_METRICS = {
    "CLD": "CLD, nats", "IM1": "IM1", "IM2": "IM2", "effectiveness": "effectiveness",
    "reversibility": "reversibility, L1", "composition": "composition, L1",
}  # fmt: skip
CONTROLS = {
    "do nothing": "control: do nothing",
    "random real": "control: a random real image of that digit",
    "nearest real": "control: the nearest real image of that digit",
}


_ABDUCTION_COLUMNS = {
    "effectiveness": "effectiveness",
    "CLD": "CLD",
    "L1": "L1",
    "r thickness": "r thickness",
    "r slant": "r slant",
    "r size": "r size",
    "ratio to samples": "variance ratio",
    "FD to samples": "FD to samples",
    "std x_T": "std of x_T",
    "neighbours x_T": "r of neighbours in x_T",
    "evaluations": "evaluations",
}


@dataclass(frozen=True)
class Scores:
    """Entries of one contender, of one or more runs on other rows."""

    runs: Sequence[Sequence[Mapping[str, Any]]]
    about: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, reports: Iterable[Mapping[str, Any]]) -> Scores:
        """Those of reports."""
        found = list(reports)
        return cls([report["entries"] for report in found], found[0])

    def values(self, metric: str, subject: str = "mechanism", **named: str) -> list[float]:
        """One figure a run; none where a run lacks it."""
        wanted = {"metric": metric, "subject": subject, "node": "image", **named}
        return [
            entry["value"]
            for run in self.runs
            for entry in run
            if all(entry[name] == value for name, value in wanted.items()) and entry["value"] is not None
        ]

    def value(self, metric: str, subject: str = "mechanism", **named: str) -> float | None:
        """The mean over the runs."""
        found = self.values(metric, subject, **named)
        return mean(found) if found else None


def _number(value: float | None) -> str:
    """Three digits or so; a dash for none."""
    if value is None:
        return "-"
    if value and abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:.{3 if abs(value) < 2 else 2 if abs(value) < 10 else 1}f}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def effectiveness(
    contenders: Mapping[str, Scores],
    published: Mapping[str, Any] | None,
    oracle: Scores,
    by: str = "predictor",
) -> str:
    """What is read of each cause under do(thickness) / do(intensity) / do(digit), and factually."""
    causes = [of for of in READ if by == "predictor" or of != "digit"]  # nothing measures a digit
    rows = [[name, *(_triple(scores, of, by) for of in causes)] for name, scores in contenders.items()]
    if published:
        columns = published["effectiveness"]
        for name in ("VAE", "HVAE", "GAN"):
            cells = [" / ".join(f"{value:g}" for value in columns[PUBLISHED[of]][name]) for of in causes]
            rows.append([f"published: {name}", *cells])
    rows.append(["the true counterfactual images", *(_triple(oracle, of, by) for of in causes)])
    ours = next(iter(contenders.values()))
    floor = [_number(ours.value("effectiveness", "floor", of=of, by=by)) for of in causes]
    return markdown(["", *(READ[of] for of in causes)], [*rows, ["floor: the factual images", *floor]])


def _triple(scores: Scores, of: str, by: str) -> str:
    return " / ".join(_number(scores.value("effectiveness", do=do, of=of, by=by)) for do in CAUSES)


def shortfalls(ours: Scores, published: Mapping[str, Any], *, by: str = "predictor") -> str:
    """How each figure of effectiveness stands to HVAE's, or to the floor where that is the easier bound."""
    behind, figures = list[str](), 0
    for of in READ:
        floor = ours.value("effectiveness", "floor", of=of, by=by)
        for do, theirs in zip(CAUSES, published["effectiveness"][PUBLISHED[of]]["HVAE"], strict=True):
            value = ours.value("effectiveness", do=do, of=of, by=by)
            if value is None or floor is None:
                continue
            figures += 1
            bound = min(theirs, floor) if of == "digit" else max(theirs, floor)
            if (value < bound) if of == "digit" else (value > bound):
                said = f"{READ[of]} under do({do})"
                behind.append(f"{said} ({_number(value)}, HVAE {theirs:g}, floor {_number(floor)})")
    return (
        f"Of these {figures} figures, {figures - len(behind)} reach the published HVAE, or the floor where "
        f"the floor is the easier bound. Behind: {'; '.join(behind) if behind else 'none'}."
    )


def composition(contenders: Mapping[str, Scores], published: Mapping[str, Any]) -> str:
    """Null interventions and the way there and back."""

    def null(scores: Scores, cycles: str) -> float | None:
        residual_free = scores.value("composition", of=cycles, by="without residuals")
        return scores.value("composition", of=cycles, by="") if residual_free is None else residual_free

    rows = [
        [name, _number(null(scores, "1")), _number(null(scores, "10")), *_back(scores)]
        for name, scores in contenders.items()
    ]
    kept = next(iter(contenders.values()))
    values = [kept.value("composition", of=cycles, by="with residuals") for cycles in ("1", "10")]
    rows.insert(1, ["the same with step residuals", *map(_number, values), "-", "-", "-"])
    padding = 32**2 / 28**2
    for name in ("VAE", "HVAE", "GAN"):
        cells = [_number(padding * value) for value in published["composition_l1"][name]]
        rows.append([f"published: {name}", *cells, "-", "-", "-"])
    head = ["L1 on 0..255", "null, once", "null, ten times", *(f"do({do}) and back" for do in CAUSES)]
    return markdown(head, rows)


def _back(scores: Scores) -> list[str]:
    return [_number(scores.value("reversibility", do=do)) for do in CAUSES]


def truth(contenders: Mapping[str, Scores]) -> str:
    """The distance to the true counterfactual image, and to its measured attributes, beside doing nothing."""
    subjects = {name: (scores, "mechanism") for name, scores in contenders.items()}
    ours = next(iter(contenders.values()))
    subjects["causalgen, the whole model"] = (ours, "whole model")
    subjects["control: do nothing"] = (ours, "do nothing")
    rows = []
    for name, (scores, subject) in subjects.items():
        cells = [
            _number(scores.value("true error", subject, do=do, of=of))
            for do in ("thickness", "intensity")
            for of in ("pixels", "thickness", "intensity")
        ]
        if set(cells) != {"-"}:
            rows.append([name, *cells])
    parts = "pixels, L1", "thickness, px", "intensity"
    head = [f"do({do}): {part}" for do in ("thickness", "intensity") for part in parts]
    shares = " and ".join(f"{100 * _share(ours, do):.0f} % for do({do})" for do in ("thickness", "intensity"))
    said = f"In pixels the distance is this share of doing nothing: {shares}."
    return markdown(["distance to the truth", *head], rows) + "\n\n" + said


def _share(scores: Scores, do: str) -> float:
    """Of the distance to the true image that doing nothing has."""
    made, nothing = (
        scores.value("true error", who, do=do, of="pixels") for who in ("mechanism", "do nothing")
    )
    assert made is not None and nothing
    return made / nothing


def speed(by_steps: Mapping[int, Scores]) -> str:
    """Quality against the number of steps."""
    rows = []
    for steps, scores in by_steps.items():
        rows.append([
            f"{steps}, {scores.about['rows']} rows",
            _number(scores.about["time"]["images_per_second"]["image"]),
            _triple(scores, "thickness", "predictor"),
            _triple(scores, "intensity", "predictor"),
            *(_number(scores.value("true error", do=do, of="pixels")) for do in ("thickness", "intensity")),
            _number(scores.value("composition", of="1", by="without residuals")),
        ])  # fmt: skip
    head = ["steps", "images/s", READ["thickness"], READ["intensity"], "true error of do(thickness), L1",
            "of do(intensity), L1", "null without residuals, L1"]  # fmt: skip
    return markdown(head, rows)


def training(nodes: Mapping[str, Mapping[str, Any]]) -> str:
    """How long each node that takes gradient steps was fitted."""
    rows = [
        [
            f"`{name}`",
            f"{told['parameters']:,}",
            f"{told['epochs']} x {told['rows']:,}",
            f"{told['steps']:,}",
            told["precision"],
            f"{told['seconds'] / 60:.1f}",
            f"{told['epochs'] * told['rows'] / told['seconds']:,.0f}",
        ]
        for name, told in nodes.items()
        if told["steps"]
    ]
    return markdown(["node", "parameters", "epochs x rows", "steps", "precision", "minutes", "rows/s"], rows)


def mnist(contenders: Mapping[str, Scores]) -> str:
    """do(digit) on MNIST: every metric, with controls."""
    rows = [[name, *_digit_cells(scores, "mechanism")] for name, scores in contenders.items()]
    ours = next(iter(contenders.values()))
    rows += [[shown, *_digit_cells(ours, subject)] for subject, shown in CONTROLS.items()]
    rows.append(["floor", *_digit_cells(ours, "floor")])
    return markdown(["", *MNIST_METRICS.values()], rows)


def gap_closed(scores: Scores, rows: str) -> str:
    """How much of the way from a random real image to the floor of CLD the counterfactuals go."""
    value = scores.value("CLD", do="digit")
    random, floor = (scores.value("CLD", each, do="digit") for each in ("random real", "floor"))
    if value is None or random is None or floor is None:
        raise ValueError("CLD, that of a random real image or its floor is missing")
    return (
        f"On {rows} the CLD of the default is {_number(value)}: it closes "
        f"{(random - value) / (random - floor):.0%} of the gap between a random real image of the digit "
        f"({_number(random)}) and the floor ({_number(floor)})."
    )


def _digit_cells(scores: Scores, subject: str) -> list[str]:
    cells = []
    for metric in MNIST_METRICS:
        if metric == "composition":
            free = scores.value(metric, subject, of="1", by="without residuals")
            cells.append(_number(scores.value(metric, subject, of="1", by="") if free is None else free))
        elif metric == "effectiveness" and subject == "floor":
            cells.append(_number(scores.value(metric, subject, of="digit", by="predictor")))
        elif metric == "effectiveness":
            cells.append(_number(scores.value(metric, subject, do="digit", of="digit", by="predictor")))
        else:
            cells.append(_number(scores.value(metric, subject, do="digit")))
    return cells


def abductions(sections: Mapping[str, Any]) -> str:
    """Settings and controls of each model, one table a model."""
    parts: list[str] = []
    for name, section in sections.items():
        found = section["result"]
        rows = [
            [
                each["setting"],
                *("-" if each.get(column) is None else figure(each[column]) for column in _ABDUCTION_COLUMNS),
            ]
            for each in found["settings"]
        ]
        head = [f"`{name}`, {found['rows']} rows", *_ABDUCTION_COLUMNS.values()]
        parts.append(markdown(head, rows))
    return "\n\n".join(parts)
